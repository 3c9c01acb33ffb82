# What the scripts here share, beside what tests/e2e has. They need root, for namespaces of their own.
source "$(dirname "${BASH_SOURCE[0]}")/../e2e/lib.bash"

# A tool that is not there is a failure, not less to test.
needs() { # TOOL...
    local tool
    [ "$(id -u)" -eq 0 ] || { echo "FAIL needs root"; exit 1; }
    for tool in "$@"; do
        command -v "$tool" >/dev/null || { echo "FAIL no $tool: launch/install clusters, launch/install containers"; exit 1; }
    done
}

optimum() { # DATA L2 MODEL: prints the gap
    /usr/bin/python3 "$root/tests/launch/optimum.py" "$@"
}

figure() { # NAME: of a status in JSON on stdin
    grep -o "\"$1\": *[-0-9.e+]*" | head -n 1 | sed 's/.*: *//'
}
