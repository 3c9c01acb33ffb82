# Builds what tests/gpu/run runs into $build, with a C compiler and nvcc alone: no CMake, gRPC, cmocka, HDF5, jansson.
# With $emulated (a build folder of this tree), kernels and runtime are those of the emulated device there, and nvcc is
# not needed. Wants: build, cc, jobs, and nvcc, arch, include or emulated.

c_flags="-O2 -g -std=gnu11 -fPIC -ffunction-sections -fdata-sections -ffp-contract=off -fno-math-errno -D_GNU_SOURCE"
c_flags+=" -Iinclude -Isrc -I. -Itests/unit"
if [ -n "$emulated" ]; then
    c_flags="-DSKALD_EMULATED -Itests/emulated/include -Itests ${c_flags/-O2/-O0}"
    cuda="${CXX:-c++} -x c++ -O0 -std=c++17 -fPIC -DSKALD_EMULATED -Itests/emulated/include -Itests -Iinclude -I. -Wno-unknown-pragmas"
    cuda_sources=(tests/gpu/gather.cu)
else
    c_flags="-I$include $c_flags"
    cuda="$nvcc -std=c++17 -O3 -lineinfo $arch -Xptxas=-warn-spills,-warn-lmem-usage,-Werror -Xcompiler=-fPIC -Iinclude -I."
    cuda_sources=(kernels/*.cu tests/gpu/gather.cu)
fi

# What to compile: "source object compiler flags", one a line. What nothing refers to falls away at linking.
sources() {
    local f name isa
    for f in "${cuda_sources[@]}"; do
        isa= # the bits of vectors are the host's
        [ "$f" = kernels/vectors.cu ] && isa=-fmad=false
        echo "$f $build/$(basename "$f" .cu).cu.o $cuda $isa"
    done
    for f in tests/gpu/*.c; do echo "$f $build/$(basename "$f" .c).o $cc $c_flags"; done
    for f in src/compute/cuda/*.c src/collective/nccl.c; do
        echo "$f $build/host_$(basename "$f" .c).o $cc $c_flags -fvisibility=hidden"
    done
    for f in src/base/*.c src/objective/*.c src/solver/*.c src/curvature/*.c src/engine/*.c src/worker/{runner,history}.c src/data/rows.c \
        src/data/problem_epsilon.c; do
        case $f in */table_json.c | */checkpoint.c) continue ;; esac # they want jansson, and HDF5
        echo "$f $build/$(basename "$(dirname "$f")")_$(basename "$f" .c).o $cc $c_flags"
    done
    for f in src/compute/*.c; do
        name=$(basename "$f" .c) isa=
        case $name in
        cpu_avx2) isa="-mavx2 -mfma -ffp-contract=fast" ;;
        cpu_avx512)
            isa="-mavx2 -mfma -mavx512f -mavx512dq -mavx512vl -mavx512bw -mprefer-vector-width=512 -ffp-contract=fast"
            ;;
        cpu_portable) isa="-ffp-contract=fast" ;;
        esac
        if [[ $isa != *avx* ]] || [ "$(uname -m)" = x86_64 ]; then echo "$f $build/compute_$name.o $cc $c_flags $isa"; fi
    done
    echo "tests/unit/test_cuda.c $build/test_cuda.o $cc $c_flags -Itests/gpu/cmocka"
}

compile() {
    # nothing has changed since the last time: neither sources, nor what they are compiled by
    local stamp
    stamp="$(sources | cksum) $(find src include kernels tests -type f -printf '%T@ %p\n' | sort | cksum)"
    if [ "$(cat "$build/stamp" 2>/dev/null)" = "$stamp" ]; then return 0; fi
    rm -f "$build"/*.o "$build/stamp"
    compile_all && echo "$stamp" >"$build/stamp"
}
compile_all() {
    sources | xargs -P "$jobs" -d '\n' -n 1 sh -c 'set -f
        IFS=" "; set -- $0; from=$1 to=$2; shift 2; "$@" -c "$from" -o "$to" || { echo "failed: $from"; exit 255; }'
}

link() {
    local name link_cuda=("$nvcc" $arch -cudart static) kernels=("$build"/*.cu.o) plugin=(-Xlinker --exclude-libs=ALL)
    if [ -n "$emulated" ]; then
        link_cuda=(${CXX:-c++}) plugin=(-Wl,--exclude-libs,ALL)
        kernels=("$build"/*.cu.o "$emulated/tests/gpu/libskald_kernels_emulated.a" -L"$emulated/tests/emulated" -lskald_emulated
            "-Wl,-rpath,$emulated/tests/emulated")
    fi
    for name in test_kernels test_kernels_local test_kernels_vectors; do
        "${link_cuda[@]}" -o "$build/$name" "$build/$name.o" "$build/objective_objective.o" "$build/base_status.o" \
            "${kernels[@]}" -lm -ldl || return 1
    done
    "${link_cuda[@]}" -o "$build/bench_kernels" "$build/bench_kernels.o" "$build"/compute_*.o \
        "$build"/base_*.o "$build/objective_objective.o" "$build"/{data_rows,engine_vectors_host}.o "${kernels[@]}" \
        -lm -ldl -lpthread || return 1
    "${link_cuda[@]}" -shared "${plugin[@]}" -o "$build/libskald_cuda.so" "$build"/host_*.o "$build/compute_checks.o" \
        "$build"/base_{base,status}.o "$build/data_rows.o" "${kernels[@]}" -lm -lpthread || return 1
    $cc -Wl,--gc-sections -o "$build/test_cuda" "$build/test_cuda.o" "$build"/compute_*.o "$build"/base_*.o \
        "$build/objective_objective.o" "$build/data_rows.o" "$build/engine_vectors_host.o" -lm -ldl -lpthread || return 1
    $cc -Wl,--gc-sections -o "$build/solve" "$build/solve.o" "$build"/{compute,base,curvature,engine,solver,data}_*.o \
        "$build/objective_objective.o" "$build"/worker_*.o -lm -ldl -lpthread
}
