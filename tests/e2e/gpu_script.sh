#!/bin/bash
# only: release
# tests/gpu/run, which is for a machine with a card, against the emulated device: it builds without CMake and without
# gRPC, every phase that can run does, its report can be read and says that nothing in it is a measurement.
source "$(dirname "$0")/lib.bash"
build=$(dirname "$(readlink -f "$skald")")
cd "$root" || exit 1

# no pkg-config file is found: as where gRPC is not installed. No skald binary is given either.
PKG_CONFIG_LIBDIR=/nonexistent SKALD_GPU_EMULATED=$build SKALD_GPU_SECONDS=280 env -u SKALD \
    tests/gpu/run "$work/out" >"$work/said.txt" 2>&1
status=$?
check "passes: $(grep -E ' failed ' "$work/said.txt")" test $status -eq 0
check "the report" python3 - "$work/out/report.json" <<'END'
import json, os, sys
r = json.load(open(sys.argv[1]))
steps = {s["name"]: s for s in r["steps"]}
assert r["emulated"] and r["complete"], "marked"
for name in ("compile", "link", "test_kernels_vectors", "backend", "backend_softmax", "bandwidth",
             "solve_rows", "solve_card", "solve_ranks", "solve_cpu"):
    assert steps[name]["result"] == "passed", steps[name]
assert steps["skald"]["result"] == "left out", steps["skald"]
assert all(m in steps["skald"]["note"] for m in ("grpc", "libcrypto", "libmicrohttpd", "liblzma")), steps["skald"]
for name in ("torch_gradient", "compute-sanitizer"):
    assert steps[name]["result"] in ("left out", "skipped"), steps[name]
kernels = r["kernels"]
assert kernels["emulated"] and all(k["emulated"] for k in kernels["results"])
assert all(k["reads"] >= 1 for k in kernels["results"]) and kernels["left_out"] == "", kernels
measured = {(k["case"].split(" x ")[1], k["note"].split(":")[0]) for k in kernels["results"]}
for case in ("2000 f32", "784 u8", "20000 f32", "47236 csr, 74 a row", "784 f32, 10 classes", "784 u8, 10 classes"):
    for note in ("saga" if "classes" in case else "chosen", "difference" if "classes" in case else "difference of two",
                 "objective of two, with gradients"):
        assert (case, note) in measured, (case, note)
assert len(kernels["goals"]) == 14 and all(g["verdict"] == "emulated" for g in kernels["goals"]), kernels["goals"]
objectives = [r[name]["objective"] for name in ("solve_card", "solve_ranks", "solve_cpu")]
assert all(r[name]["reached"] for name in ("solve_card", "solve_ranks", "solve_cpu"))
assert max(objectives) - min(objectives) <= 1e-6 * min(objectives), objectives
assert "nccl" in r["solve_ranks"]["engine"] and "vectors on the card" in r["solve_ranks"]["engine"], r["solve_ranks"]
threads = len(os.sched_getaffinity(0))
assert f"{threads} thread" in r["solve_cpu"]["device"], r["solve_cpu"]
END
report=$work/out/report.md
check "the table says that it measures nothing" grep -q '^\*\*Emulated device: no figure here is a measurement' "$report"
check "bandwidth, solves and goals are in it" test "$(grep -cE '^## (Bandwidth|Logistic)|^\| goal ' "$report")" = 3
check "no figure without its mark" bash -c "! grep -E 'us|GB/s|of the copy|times two' '$report' | grep '^|' | grep -E '[0-9]' | grep -v emulated"

# No time at all: nothing is begun, and the report is there and says so. One tool is not there either: that one is named.
mkdir "$work/bin" && ln -s /usr/bin/* "$work/bin" && rm "$work/bin/protoc-c"
SKALD_GPU_EMULATED=$build SKALD_GPU_SECONDS=0 PATH=$work/bin env -u SKALD tests/gpu/run "$work/late" >"$work/late.txt" 2>&1
check "a tool is not installed: said which" grep -q '"note": "not installed: protoc-c"' "$work/late/report.json"
check "no time left: said" grep -q '"name": "compile", "result": "left out"' "$work/late/report.json"
check "no time left: the report can be read" python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$work/late/report.json"

# A phase that fails does not hide the others. (What is built is used again: nothing is compiled anew.)
SKALD_GPU_EMULATED=$build SKALD_GPU_SECONDS=280 SKALD=$skald SKALD_EMULATED_DEVICES=0 \
    tests/gpu/run "$work/out" >"$work/none.txt" 2>&1
check "no card under it: fails" test $? -eq 1
check "no card under it: the CPU's solve is there all the same" grep -q '"name": "solve_cpu", "result": "passed"' "$work/out/report.json"
check "no card under it: skald's run says why" grep -q '"name": "skald_async", "result": "failed"' "$work/out/report.json"
finish
