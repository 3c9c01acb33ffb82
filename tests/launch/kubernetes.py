"""Are these manifests what they should be? Against the published schemas of Kubernetes, and what no schema says.

    kubernetes.py RENDERED.yaml OPTIONS        OPTIONS: a file with the names of all options, one a line
"""

import sys

import kubernetes_validate
import yaml

VERSIONS = ("1.29", "1.31", kubernetes_validate.latest_version())  # 1.29: the oldest with all that is used
bad = []


def require(holds, text):
    if not holds:
        bad.append(text)


with open(sys.argv[1]) as f:
    objects = [o for o in yaml.safe_load_all(f) if o]
with open(sys.argv[2]) as f:
    options = {line.strip() for line in f}

for o in objects:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(o, version, strict=True)
        except kubernetes_validate.ValidationError as e:
            bad.append(f"{o['kind']} {o['metadata']['name']}, {version}: {'.'.join(map(str, e.path))}: {e.message}")

named = {}
for o in objects:
    named.setdefault(o["kind"], {})[o["metadata"]["name"]] = o
    if o["kind"] != "Namespace":
        require(o["metadata"].get("namespace") == "skald", f"{o['metadata']['name']} is in no namespace of its own")
pods = [o for o in objects if "template" in o.get("spec", {})]
require({o["kind"] for o in pods} == {"StatefulSet", "Job"}, "a StatefulSet and a Job are wanted")

for o in pods:
    name, spec = o["metadata"]["name"], o["spec"]["template"]["spec"]
    labels = o["spec"]["template"]["metadata"]["labels"]
    volumes = {v["name"]: v for v in spec["volumes"]}
    templates = {v["metadata"]["name"] for v in o["spec"].get("volumeClaimTemplates", [])}
    if "selector" in o["spec"]:
        require(o["spec"]["selector"]["matchLabels"].items() <= labels.items(), f"{name} does not select its own pods")
    require(
        any(p["spec"]["podSelector"]["matchLabels"].items() <= labels.items() for p in named["NetworkPolicy"].values()),
        f"{name}: no network policy is about it",
    )
    for c in spec["containers"]:
        for one in c.get("env", []):
            known = one["name"].removeprefix("SKALD_").lower().replace("_", "-") in options
            require(known or not one["name"].startswith("SKALD_"), f"{name}: {one['name']} is no option")
        for source in c.get("envFrom", []):
            settings = named["ConfigMap"].get(source["configMapRef"]["name"], {"data": {}})["data"]
            require(settings, f"{name}: no settings {source['configMapRef']['name']}")
            for one in settings:
                known = one.removeprefix("SKALD_").lower().replace("_", "-") in options
                require(known or not one.startswith("SKALD_"), f"{name}: {one} is no option")
        for m in c["volumeMounts"]:
            require(m["name"] in volumes or m["name"] in templates, f"{name}: no volume {m['name']}")
        ports = {p["containerPort"] for p in c.get("ports", [])}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if o["kind"] == "StatefulSet":
                require(c[probe]["grpc"]["port"] in ports, f"{name}: {probe} asks at a port that is none of its own")
        if len(sys.argv) > 3 and o["kind"] == "Job":
            require(c["resources"]["limits"].get("nvidia.com/gpu") == sys.argv[3], f"{name} has no card")
    for v in volumes.values():
        claim = v.get("persistentVolumeClaim", {}).get("claimName")
        require(not claim or claim in named["PersistentVolumeClaim"], f"{name}: no claim {claim}")

coordinator, job = named["StatefulSet"]["skald-coordinator"]["spec"], named["Job"]["skald-worker"]["spec"]
require(coordinator["serviceName"] in named["Service"], "the coordinator's service is missing")
require(job["completionMode"] == "Indexed", "workers are not numbered")
require(job["completions"] == job["parallelism"], "workers could not be more or fewer: completions is not parallelism")
(settings,) = named["ConfigMap"].values()
require(str(job["completions"]) == settings["data"]["SKALD_WORKERS"], "the coordinator waits for another number")

for text in bad:
    print(text)
print(f"{len(objects)} objects against {', '.join(VERSIONS)}: {len(bad)} faults")
sys.exit(1 if bad else 0)
