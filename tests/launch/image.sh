#!/bin/bash
# The image: built on a base that debootstrap makes, then run as the compose file and the Kubernetes manifests say, each
# container in a network namespace of its own: a coordinator and three workers train, one is killed, another comes, and
# the run ends at the optimum.
source "$(dirname "$0")/lib.bash"
needs buildah podman runc debootstrap ip unshare prometheus promtool kubectl openssl
store=(--root "$work/store" --runroot "$work/run" --storage-driver "${STORAGE_DRIVER:-overlay}")
run_podman() {
    podman "${store[@]}" --runtime runc --cgroup-manager cgroupfs --events-backend file --log-level fatal "$@"
}
export IMAGE=localhost/skald

# ---- built ------------------------------------------------------------------------------------------------------------
if [ -z "${INSIDE:-}" ]; then
    base=$root/out/launch/base # kept: it takes minutes
    if [ ! -d "$base" ]; then
        mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
        mkdir -p "$base.new"
        debootstrap --variant=minbase bookworm "$base.new" "$mirror" >"$work/debootstrap.log" || exit 1
        rm -rf "$base.new"/var/cache/apt/archives/*.deb
        mv "$base.new" "$base"
    fi
    empty=$(buildah "${store[@]}" from scratch)
    buildah "${store[@]}" add -q "$empty" "$base" / >/dev/null
    buildah "${store[@]}" commit -q "$empty" localhost/base >/dev/null
    buildah "${store[@]}" rm "$empty" >/dev/null
    mkdir "$work/context"
    (cd "$root" && git ls-files -z | xargs -0 cp --parents -t "$work/context")
    nice buildah "${store[@]}" bud --isolation chroot --format docker --pull-never --build-arg BASE=localhost/base \
        --build-arg REVISION=test-1 -t "$IMAGE" "$work/context" >"$work/build.log" 2>&1
    check "the image builds" test $? -eq 0
    [ "$failures" -eq 0 ] || { tail -n 40 "$work/build.log"; finish; }
    trap - EXIT
    INSIDE=$work unshare --mount --net --pid --fork --mount-proc bash "$0"
    code=$?
    [ -n "${TEST_KEEP:-}" ] || rm -rf "$work"
    exit $code
fi
rmdir "$work"
work=$INSIDE
trap - EXIT
store=(--root "$work/store" --runroot "$work/run" --storage-driver "${STORAGE_DRIVER:-overlay}")
cd "$work" || exit 1
mount -t tmpfs none /run && mkdir -p /run/netns /run/lock
mkdir data && chmod 755 . data
low=(--ulimit nofile=1024:1024 --ulimit nproc=256:256 --ulimit core=0:0)

about=$(run_podman inspect "$IMAGE")
says() { grep -q "$1" <<<"$about"; }
check "it does not run as root" says '"User": "10001:10001"'
check "it asks skald status how it is" says '"status",'
check "it says what it was made from" says '"org.opencontainers.image.revision": "test-1"'
size() { run_podman image inspect --format '{{.Size}}' "$1"; }
added=$((($(size "$IMAGE") - $(size localhost/base)) / 1000000))
check "it adds $added MB to its base" test "$added" -lt 150
once() { run_podman run --rm --network none "${low[@]}" "$@" 2>&1; }
check "the version is stamped ($(once "$IMAGE" version))" grep -q 'skald [0-9.]*, test-1' <(once "$IMAGE" version)
left=$(once --entrypoint sh "$IMAGE" -c 'for t in cc gcc c++ cmake ninja; do command -v $t; done; ls -d /source /build 2>/dev/null')
check "no compiler, no source ($left)" test -z "$left"

# ---- hosts ------------------------------------------------------------------------------------------------------------
ip link set lo up
ip link add switch type bridge
ip link set switch up
hosts=0
host() { # NAME: a namespace with an address, which the others call so
    [ ! -e "/run/netns/$1" ] || return 0
    hosts=$((hosts + 1))
    ip netns add "$1"
    ip link add "v$hosts" type veth peer name eth0 netns "$1"
    ip link set "v$hosts" master switch up
    ip -n "$1" addr add "198.51.100.$hosts/24" dev eth0
    ip -n "$1" link set eth0 up
    ip -n "$1" link set lo up
    echo "198.51.100.$hosts $1" >>names
}
plan() { # KIND FILE EXTRA-OPTION...: makes hosts, notes what to start
    /usr/bin/python3 "$root/tests/launch/pods.py" "$1" "$2" >pods || exit 1
    shift 2
    extra=("$@")
    : >names
    pod() { host "$2"; }
    source ./pods
    sed "s/^/--add-host /; s/\([0-9]\) /\1:/; s/--add-host \(.*\):\(.*\)/--add-host \2:\1/" names >add-hosts
}
start() { # PATTERN: the containers whose names match
    pod() {
        local name=$1 host=$2 options=()
        shift 2
        while [ "$1" != -- ]; do options+=("$1"); shift; done
        shift
        run_podman run --detach --name "$name" --network "ns:/run/netns/$host" $(cat add-hosts) "${low[@]}" "${options[@]}" \
            "${extra[@]}" "$IMAGE" "$@" >/dev/null || fail "$name does not start"
    }
    source <(grep -E "^pod $1" pods)
}
logs() { run_podman logs "$1" 2>&1; }
said() { logs "$1" | grep -q "$2"; }
passes() { run_podman exec "$1" skald status --wait 2s --json | figure passes; }
underway() { awk -v p="$(passes "$1")" 'BEGIN { exit !(p > 1) }'; }
exited() { run_podman wait --condition exited "$1"; }
show() {
    local one
    for one in $(run_podman ps -a --format '{{.Names}}'); do
        echo "---- $one"
        logs "$one" | tail -n 15
    done
}
must() { # as check; without it nothing that follows means anything
    local before=$failures
    check "$@"
    [ "$failures" -eq "$before" ] || { show; finish; }
}

"$skald" generate rcv1 --rows 3000 --seed 4 --output data/train.svm >/dev/null
slow=(--env SKALD_PACE=40 --env SKALD_EXPORT=liblinear:/state/model.txt)

# ---- as compose does ----------------------------------------------------------------------------------------------------
export DATA=$work/data FILE=/data/train.svm L2=1e-4 TARGET_GAP=1e-8
plan compose "$root/launch/compose/compose.yaml" "${slow[@]}"
host prometheus
mkdir -p /run/prometheus && cp names /run/prometheus/hosts
start '(coordinator|worker[123]) '
must "compose: under way" wait_for 60 underway coordinator
check "compose: the coordinator is well" run_podman healthcheck run coordinator
check "compose: so is a worker" run_podman healthcheck run worker1
run_podman kill --signal KILL worker2 >/dev/null
check "worker2 is missed" wait_for 60 said coordinator 'worker [0-9]* .*is gone'
must "the run goes on without it" wait_for 60 underway coordinator
run_podman start worker2 >/dev/null
check "started again, it comes back" wait_for 60 said coordinator 'worker [0-9]* comes'
check "prometheus accepts its settings" promtool check config "$root/launch/compose/prometheus.yml"
ip netns exec prometheus unshare --mount sh -c "mount --bind /run/prometheus/hosts /etc/hosts && exec prometheus \
    --config.file=$root/launch/compose/prometheus.yml --storage.tsdb.path=$work/tsdb --web.listen-address=127.0.0.1:9090" \
    >prometheus.log 2>&1 &
prometheus=$!
asked() { ip netns exec prometheus curl -s "http://127.0.0.1:9090/api/v1/query?query=$1" | grep -q '"value":\[[^]]*"[1-9]'; }
check "prometheus sees the coordinator" wait_for 60 asked up
check "and its passes" wait_for 60 asked skald_passes_total
kill $prometheus
must "it ends" wait_for 300 said coordinator 'target gap reached'
check "the workers end with it" test "$(for k in 1 2 3; do run_podman wait "worker$k"; done | sort -u)" = 0
check "the coordinator stays, and says so" grep -q '"ended"' <(run_podman exec coordinator skald status --json)
volume=$(run_podman volume inspect state --format '{{.Mountpoint}}')
check "at the optimum ($(optimum data/train.svm 1e-4 "$volume/model.txt"))" \
    optimum data/train.svm 1e-4 "$volume/model.txt"
run_podman stop -t 30 coordinator >/dev/null
check "stopped, it ends in order" test "$(run_podman wait coordinator)" = 0
run_podman rm -fa >/dev/null
run_podman volume rm state >/dev/null

# ---- as Kubernetes does --------------------------------------------------------------------------------------------------
"$root/launch/certs" certs coordinator=coordinator,status@skald worker=worker,status || exit 1
for role in coordinator worker; do # as a volume of secrets is with fsGroup
    mkdir -p "secrets/skald-$role-tls"
    cp certs/ca.pem "secrets/skald-$role-tls/ca.pem"
    cp "certs/$role.pem" "secrets/skald-$role-tls/tls.crt"
    cp "certs/$role.key" "secrets/skald-$role-tls/tls.key"
    chown -R root:10001 "secrets/skald-$role-tls"
    chmod 755 "secrets/skald-$role-tls"
    chmod 440 "secrets/skald-$role-tls"/*
done
cp -r "$root/launch/kubernetes" kubernetes
printf '%s\n' DATA=/data/train.svm SKALD_WORKERS=3 SKALD_LOSS=logistic SKALD_L2=1e-4 SKALD_TARGET_GAP=1e-8 >kubernetes/base/run.env
kubectl kustomize kubernetes/base >rendered.yaml || exit 1
export SECRETS=$work/secrets
plan kubernetes rendered.yaml "${slow[@]}"
start skald-
must "Kubernetes: under way" wait_for 60 underway skald-coordinator-0
probe() {
    printf '\0\0\0\0\0' | ip netns exec skald curl -s --http2-prior-knowledge -H 'content-type: application/grpc' \
        -H 'te: trailers' --data-binary @- http://127.0.0.1:7701/grpc.health.v1.Health/Check | od -An -tx1 | tr -d ' \n'
}
check "a kubelet's probe sees health" test "$(probe)" = 00000000020801
check "who has no certificate is refused" grep -q 'certificate' \
    <(ip netns exec skald "$skald" status --connect 127.0.0.1:7700 --tls-ca certs/ca.pem --wait 2s 2>&1)
run_podman stop -t 30 skald-worker-1 >/dev/null
code=$(run_podman wait skald-worker-1)
check "a worker that is evicted ends with $code, so that its Job replaces it" test "$code" = 130
check "its rows go to others" wait_for 60 said skald-coordinator-0 'worker [0-9]* .*is gone'
run_podman rm skald-worker-1 >/dev/null
start 'skald-worker-1 '
check "its replacement comes" wait_for 60 said skald-coordinator-0 'worker [0-9]* comes'
must "it ends" wait_for 300 said skald-coordinator-0 'target gap reached'
check "the workers' Job is complete" test "$(for k in 0 1 2; do run_podman wait "skald-worker-$k"; done | sort -u)" = 0
volume=$(run_podman volume inspect state --format '{{.Mountpoint}}')
check "at the optimum ($(optimum data/train.svm 1e-4 "$volume/model.txt"))" \
    optimum data/train.svm 1e-4 "$volume/model.txt"
[ "$failures" -eq 0 ] || show
run_podman rm -fa >/dev/null
finish
