#!/bin/bash
# The layers of the README hold: who includes whom, which external header is seen where, no file does two jobs' worth
# of lines, nothing below src/cli prints or exits. Reads the tree only; seen to fail with `#include "net/session.h"`
# in src/solver/saga.c.
# only: release
source "$(dirname "$0")/lib.bash"
cd "$root" || exit 1

# Rows a row may include besides include/skald, itself and base. Arrows point down only.
declare -A may=(
    [base]="" [objective]="" [data]="objective" [compute]="objective data kernels" [net]="" [wire]="net" [report]="" [http]=""
    [curvature]="objective data" [engine]="objective" [solver]="engine curvature" [worker]="wire engine data compute net" [coordinator]="wire engine data net"
    [replay]="worker engine data compute"
    [collective]="" [cli]="*"
)
for folder in src/*/; do
    row=$(basename "$folder")
    if [ -z "${may[$row]+set}" ]; then
        fail "src/$row is not a row this test knows"
        continue
    fi
    bad=""
    while IFS=: read -r file line include; do
        target=$(sed -E 's/.*"([^"]*)".*/\1/' <<<"$include")
        other=${target%%/*}
        [ "$other" = "$target" ] && [ -f "$folder$target" ] && continue # "name.h" of the same folder
        case " skald $row base ${may[$row]} " in *" $other "* | *" * "*) continue ;; esac
        [[ "$target" == *.pb-c.h && "wire worker coordinator" == *"$row"* ]] && continue
        bad+=" $file:$line($target)"
    done < <(grep -rnE '^ *# *include *"' "$folder" --include='*.[ch]')
    check "src/$row includes only what lies below it$bad" test -z "$bad"
done

# only PATTERN WHERE...: the header is included in these rows alone.
only() {
    local pattern=$1 found
    shift
    found=$(grep -rlE "^ *# *include *[<\"]$pattern" src include kernels 2>/dev/null |
        grep -vE "^(src/)?($(IFS='|'; echo "$*"))/" | tr '\n' ' ')
    check "$pattern only in $*${found:+: $found}" test -z "$found"
}
only 'grpc/' net
only 'hdf5' data
only '(H5|H5public)' data
only 'protobuf-c/' wire
only 'skald\.pb-c' wire worker coordinator
only 'microhttpd' http
only 'jansson' report http cli coordinator engine replay
only '(zlib|lzma)' data
only '(cuda|cublas|cusparse)' compute/cuda kernels collective
only 'kernels/(kernels\.h|.*\.cuh)' compute/cuda kernels
only 'nccl' collective
only 'argp' cli

# words PATTERN WHERE...: not even the names are used elsewhere. Seen to fail with a cudaStream_t in src/worker/runner.h.
words() {
    local pattern=$1 found
    shift
    found=$(grep -rlwE "$pattern" src include kernels 2>/dev/null |
        grep -vE "^(src/)?($(IFS='|'; echo "$*"))/" | tr '\n' ' ')
    check "$pattern only in $*${found:+: $found}" test -z "$found"
}
words '(cuda[A-Z][A-Za-z]*|CU[a-z]+(_st)?|cublas[A-Z][A-Za-z]*)' compute/cuda kernels collective
words 'nccl[A-Z][A-Za-z]*' collective

long=$(find src include kernels -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' 2>/dev/null | xargs wc -l |
    awk '$2 != "total" && $1 > 600 {print $2 "(" $1 ")"}' | tr '\n' ' ')
check "no file of more than 600 lines${long:+: $long}" test -z "$long"

loud=$(grep -rnE '\b(printf|puts|putchar|exit|_exit|abort|perror)\(|\b(stdout|stderr)\b' src --include='*.[ch]' |
    grep -v '^src/cli/' | grep -vE '^[^:]*:[0-9]+: *(/\*|\*|//)' | grep -vE '/\*.*(exit|stdout|stderr).*\*/' | tr '\n' ' ')
check "nothing below src/cli prints or exits${loud:+: $loud}" test -z "$loud"
named=$(grep -rnE '(^|[^a-z])/(work|root)/' src include kernels launch tests README.md Dockerfile 2>/dev/null |
    grep -v 'tests/e2e/layers.sh' | cut -d: -f1 | sort -u | tr '\n' ' ')
check "no path of one machine${named:+: $named}" test -z "$named"
finish
