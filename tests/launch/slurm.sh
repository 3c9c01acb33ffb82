#!/bin/bash
# Slurm for real, one controller and four nodes on this machine, in namespaces of their own: the shipped script, but for
# its one line, trains; a node is drained and the job requeued, then its time runs out; it goes on each time and ends at
# the optimum. Then: each worker is bound to a card of its own (pretended cards, a pretended skald).
source "$(dirname "$0")/lib.bash"
needs slurmctld slurmd sbatch munged ip unshare
if [ -z "${INSIDE:-}" ]; then exec unshare --net --uts --pid --fork --mount-proc env INSIDE=1 TMPDIR=/tmp bash "$0"; fi
cd "$work" || exit 1

# ---- the cluster --------------------------------------------------------------------------------------------------
ip link set lo up
ip link add here type bridge # names resolve only where there is more than loopback
ip addr add 192.0.2.1/24 dev here
ip link set here up
hostname localhost

mkdir spool state card0 card1
dd if=/dev/urandom of=munge.key bs=1024 count=1 status=none
chmod 600 munge.key
munged --force --key-file "$work/munge.key" --socket "$work/munge.sock" --pid-file "$work/munged.pid" \
    --log-file "$work/munged.log" --seed-file "$work/munge.seed" --num-threads 1
cat >slurm.conf <<END
ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
AuthInfo=socket=$work/munge.sock
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool/%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
KillWait=60
GresTypes=gpu
NodeName=n[1-4] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[17001-17004] CPUs=2 Gres=gpu:2
PartitionName=all Nodes=ALL Default=YES
END
echo "NodeName=n[1-4] Name=gpu File=$work/card[0-1]" >gres.conf
export SLURM_CONF=$work/slurm.conf
slurmctld -c
for n in 1 2 3 4; do slurmd -N n$n; done
idle() { [ "$(sinfo -h -N -t idle | wc -l)" -eq 4 ]; }
check "four nodes are idle" wait_for 60 idle

# ---- a run that is disturbed twice ----------------------------------------------------------------------------------
"$skald" generate rcv1 --rows 3000 --seed 4 --output train.svm >/dev/null
mine="train=(--loss logistic --l2 1e-4 --target-gap 1e-8 --pace 20 --checkpoint-every 1s --linger 0s \
--export liblinear:model.txt $work/train.svm)"
sed "s|^train=.*|$mine|" "$root/launch/slurm/skald.sbatch" >run.sbatch
check "one line of the script was edited" test "$(diff "$root/launch/slurm/skald.sbatch" run.sbatch | grep -c '^>')" -eq 1
submit() { SKALD=$1 SKALD_HOME=$root sbatch "${@:2}"; }
job=$(submit "$skald" --parsable --nodes 3 --cpus-per-task 1 run.sbatch)
dir=$work/skald-$job

started() { grep -q "start $1 on" "skald-$job.out"; }
underway() { [ -x "$dir/status" ] && awk -v p="$("$dir/status" --wait 2s --json | figure passes)" -v least="$1" \
    'BEGIN { exit !(p > least) }'; }
nodes() { sed -n "s/.*start $1 on \([^:]*\):.*/\1/p" "skald-$job.out"; }
again() { # START: the job is pending; it would wait two minutes
    pending() { squeue -h -j "$job" -o %T | grep -q PENDING; }
    wait_for 100 pending
    scontrol update jobid="$job" starttime=now+5 # not the same second: credentials of before are revoked
    wait_for 100 started "$1"
}
must() { # as check; without it nothing that follows means anything
    local before=$failures
    check "$@"
    if [ "$failures" -gt "$before" ]; then
        tail -n 50 "skald-$job.out" "$dir"/*.out slurmctld.log
        finish
    fi
}
must "the run is under way" wait_for 60 underway 1
check "its checkpoint is there" wait_for 30 test -s "$dir/checkpoint.h5"
check "a worker a node" test "$("$dir/status" --json | grep -o '"worker:n[1-3]\.0"' | sort -u | wc -l)" -eq 3
check "credentials are the owner's only" test -z "$(find "$dir" -perm /077)"

taken=$("$dir/status" --json | figure passes)
scontrol update nodename=n2 state=drain reason=test
scontrol requeue "$job"
must "requeued, it starts again" again 1
check "without the drained node ($(nodes 0), then $(nodes 1))" test "$(nodes 1)" = "n[1,3-4]"
must "it goes on after pass $taken" wait_for 60 underway "$taken"
check "it says so" grep -q "going on with run" "$dir/coordinator-1.out"

taken=$("$dir/status" --json | figure passes)
scancel --batch --signal=USR1 "$job" # as --signal does before the time limit
must "out of time, it goes back to the queue itself" again 2
must "it goes on after pass $taken" wait_for 60 underway "$taken"
over() { [ -z "$(squeue -h -j "$job")" ] || squeue -h -j "$job" -t all -o %T | grep -q COMPLETED; }
must "it ends" wait_for 200 over
check "in order" grep -q "the coordinator ended with 0" "skald-$job.out"
check "with a certified gap" grep -q "target gap reached" "$dir/coordinator-2.out"
check "at the optimum ($(optimum train.svm 1e-4 "$dir/model.txt"))" optimum train.svm 1e-4 "$dir/model.txt"
check "each worker has said something" test "$(find "$dir" -name 'worker-[0-2].out' -size +0 | wc -l)" -eq 3

# ---- a worker a card --------------------------------------------------------------------------------------------------
cat >pretend <<'END'
#!/bin/bash
if [ "$1" = coordinator ]; then
    echo "listening on 0.0.0.0:1, waiting"
    until [ "$(ls bound | wc -l)" -eq 4 ]; do sleep 0.2; done
else
    echo "sees $CUDA_VISIBLE_DEVICES: $*" >"bound/$SLURM_PROCID"
fi
END
chmod +x pretend
mkdir -p cards/bound
SKALD_DIR=$work/cards submit "$work/pretend" --wait --nodes 2 --ntasks-per-node 2 --gpus-per-node 2 run.sbatch >/dev/null
check "four workers, two a node" test "$(cat cards/bound/* | grep -o 'worker:n[1-4]\.[01]' | sort -u | wc -l)" -eq 4
check "each has a card of its own" test "$(cat cards/bound/* | grep -o 'worker:n[1-4]\.\([01]\) --device cuda:\1' | wc -l)" -eq 4
[ "$failures" -eq 0 ] || cat cards/bound/* skald-*.out

kill "$(cat slurmctld.pid)" # the nodes and munged end with the namespace
finish
