#!/bin/bash
# The manifests, base and overlay: rendered, then against the published schemas of Kubernetes, and against themselves.
# Each kind of fault is planted once and found.
source "$(dirname "$0")/lib.bash"
venv=$root/out/launch/venv
[ -x "$venv/bin/python" ] || "$root/launch/install" clusters
for tool in kubectl "$venv/bin/python"; do
    command -v "$tool" >/dev/null || { echo "FAIL no $tool (kubectl comes from Kubernetes' own packages)"; exit 1; }
done
cd "$work" || exit 1

"$skald" coordinator --help >help.txt
"$skald" worker --help >>help.txt
grep -o -- '--[a-z0-9-]*' help.txt | sed 's/^--//' | sort -u >options
cp -r "$root/launch/kubernetes" shipped
render() { kubectl kustomize "$1" >rendered.yaml; }
valid() { "$venv/bin/python" "$root/tests/launch/kubernetes.py" rendered.yaml options "$@"; }
check "base renders" render shipped/base
finds() { grep "$1" <(valid) >/dev/null; }
check "base is valid" valid
check "gpu renders" render shipped/gpu
check "gpu is valid, a card a worker" valid 1

sed -i 's|newName: skald |newName: registry.example.com/skald |' shipped/base/kustomization.yaml
check "gpu renders with an image from elsewhere" render shipped/gpu
check "its workers have the image with CUDA" test "$(sed -n 's/^ *image: //p' rendered.yaml | sort | xargs)" = \
    "registry.example.com/skald:latest skald:cuda"
cp "$root/launch/kubernetes/base/kustomization.yaml" shipped/base

planted() { # NAME FILE SED-SCRIPT WHAT IS SAID
    rm -rf broken && cp -r shipped broken
    sed -i "$3" "broken/base/$2"
    render broken/base
    check "$1 is found" finds "$4"
}
planted "a misspelt field" workers.yaml 's/backoffLimit/backofLimit/' "backofLimit"
planted "a wrong type" coordinator.yaml 's/replicas: 1/replicas: one/' "replicas"
planted "a wrong value" coordinator.yaml 's/type: RuntimeDefault/type: 7/' "seccompProfile.type"
planted "a variable that is no option" workers.yaml 's/SKALD_CONNECT/SKALD_CONECT/' "SKALD_CONECT is no option"
planted "a volume that is missing" workers.yaml 's/claimName: skald-data/claimName: data/' "no claim data"
planted "a probe at the wrong port" coordinator.yaml 's/grpc: {port: 7701}/grpc: {port: 7703}/' "none of its own"
planted "another number of workers" run.env 's/SKALD_WORKERS=3/SKALD_WORKERS=4/' "another number"
finish
