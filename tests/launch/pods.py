"""What a compose file or rendered Kubernetes manifests would run, as calls of bash functions: a line a container,
    pod NAME HOSTNAME ARGUMENT-OF-PODMAN... -- COMMAND...
Volumes: /data is $DATA, secrets are folders of that name under $SECRETS, others named volumes. So that what is shipped
is what runs, users, limits of rights and read-only file systems included.

    pods.py compose FILE | pods.py kubernetes FILE
"""

import os
import re
import shlex
import sys

import yaml


def emit(name, host, options, command):
    print(" ".join(shlex.quote(str(word)) for word in ["pod", name, host, *options, "--", *command]))


def interpolate(text):
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: os.environ.get(m[1]) or m[2], text)


def compose(path):
    with open(path) as f:
        services = yaml.safe_load(interpolate(f.read()))["services"]
    for name, one in services.items():
        if not one["image"].startswith(os.environ["IMAGE"]):
            continue
        options = [f"--env={k}={v}" for k, v in one.get("environment", {}).items()]
        options += [f"--volume={v.removeprefix('./')}" for v in one.get("volumes", [])]
        options += ["--read-only"] * one.get("read_only", False)
        options += [f"--cap-drop={c}" for c in one.get("cap_drop", [])]
        options += [f"--security-opt={o}" for o in one.get("security_opt", [])]
        emit(name, name, options, one["command"])


def expand(text, env):
    return re.sub(r"\$\((\w+)\)", lambda m: env.get(m[1], m[0]), text)


def environment(container, settings, index):
    env = {}
    for source in container.get("envFrom", []):
        env.update(settings[source["configMapRef"]["name"]])
    for one in container.get("env", []):
        source = one.get("valueFrom")
        if source and "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"].endswith("job-completion-index']")
            env[one["name"]] = str(index)
        elif source:
            env[one["name"]] = container["resources"]["requests"][source["resourceFieldRef"]["resource"].split(".")[1]]
        else:
            env[one["name"]] = expand(one["value"], env)
    return env


def pod(name, host, spec, settings, index):
    (container,) = spec["containers"]
    env = environment(container, settings, index)
    who, rights = spec["securityContext"], container["securityContext"]
    assert who["runAsNonRoot"] and not rights["allowPrivilegeEscalation"]
    options = [f"--env={k}={v}" for k, v in env.items()]
    options += [f"--user={who['runAsUser']}:{who['runAsGroup']}", f"--group-add={who['fsGroup']}"]
    options += ["--read-only"] * rights["readOnlyRootFilesystem"] + ["--security-opt=no-new-privileges:true"]
    options += [f"--cap-drop={c}" for c in rights["capabilities"]["drop"]]
    volumes = {v["name"]: v for v in spec["volumes"]}
    for mount in container["volumeMounts"]:
        volume = volumes.get(mount["name"], {})
        at, mode = mount["mountPath"], "ro" if mount.get("readOnly") else "rw"
        if "secret" in volume:
            where = os.path.join(os.environ["SECRETS"], volume["secret"]["secretName"])
        elif "persistentVolumeClaim" in volume:
            where = os.environ["DATA"]
        else:
            where = mount["name"]
        options.append(f"--volume={where}:{at}:{mode}")
    emit(name, host, options, [expand(a, env) for a in container["args"]])


def kubernetes(path):
    with open(path) as f:
        objects = [o for o in yaml.safe_load_all(f) if o]
    kinds = {}
    for o in objects:
        kinds.setdefault(o["kind"], {})[o["metadata"]["name"]] = o
    settings = {name: o["data"] for name, o in kinds["ConfigMap"].items()}
    (service,) = kinds["Service"]
    for name, o in kinds["StatefulSet"].items():
        assert o["spec"]["serviceName"] == service
        pod(f"{name}-0", service, o["spec"]["template"]["spec"], settings, None)
    for name, o in kinds["Job"].items():
        for k in range(o["spec"]["completions"]):
            pod(f"{name}-{k}", f"{name}-{k}", o["spec"]["template"]["spec"], settings, k)


{"compose": compose, "kubernetes": kubernetes}[sys.argv[1]](sys.argv[2])
