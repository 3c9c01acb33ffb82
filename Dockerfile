# One image, any subcommand: coordinator, worker, train, status, ... Settings are options or SKALD_* in the environment.
#   docker build -t skald .
#   docker run --rm --user "$(id -u)" -v "$PWD/data:/data" skald train --model /data/model.h5 /data/train.svm
# For cards: the first base has nvcc, the second what the driver leaves to an image (cuBLAS, NCCL); one distribution.
#   docker build -t skald:cuda --build-arg CUDA=ON --build-arg BUILD_BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04 \
#       --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 .
ARG BASE=debian:bookworm-slim
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential cmake ninja-build pkg-config protobuf-c-compiler libprotobuf-c-dev libgrpc-dev libssl-dev \
        libhdf5-dev libjansson-dev libmicrohttpd-dev zlib1g-dev liblzma-dev
COPY . /source
# AUTO: with cards if there is nvcc; ON: or fail
ARG CUDA=AUTO
ARG CUDA_ARCHITECTURES="80-real;90"
# What the image was made from, shown by `skald version`: git describe --always --dirty
ARG REVISION=
RUN cmake -S /source -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release -DSKALD_TESTS=OFF -DSKALD_CUDA=${CUDA} \
        -DCMAKE_CUDA_ARCHITECTURES="${CUDA_ARCHITECTURES}" -DSKALD_REVISION="${REVISION}" && \
    cmake --build /build && cmake --install /build --strip --prefix /installed/usr/local
# The packages that hold the libraries it is linked with: their names differ between distributions
RUN ldd /installed/usr/local/bin/skald | sed -n 's|.* => .*/\([^/ ]*\) .*|*/\1|p' | xargs dpkg-query -S | \
        sed 's/:.*//' | sort -u >/packages && cat /packages

FROM ${BASE}
RUN --mount=type=bind,from=build,source=/packages,target=/packages \
    apt-get update && DEBIAN_FRONTEND=noninteractive xargs -a /packages apt-get install -y --no-install-recommends \
        libopenblas0-pthread && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb && \
    useradd --create-home --uid 10001 --user-group skald && install -d -o skald -g skald /state
COPY --from=build /installed/ /
RUN skald version
ARG REVISION=
LABEL org.opencontainers.image.title=skald org.opencontainers.image.licenses=MIT \
      org.opencontainers.image.revision="${REVISION}"
# by number, so that a cluster can see that it is not root
USER 10001:10001
WORKDIR /home/skald
# Volumes that many machines read at once often have no locks
ENV HDF5_USE_FILE_LOCKING=BEST_EFFORT
EXPOSE 7700 7780
STOPSIGNAL SIGTERM
# Asks the coordinator: its own, or the one that SKALD_CONNECT names to a worker
HEALTHCHECK --interval=30s --timeout=10s --start-period=2m CMD ["skald", "status", "--wait", "5s"]
ENTRYPOINT ["skald"]
CMD ["help"]
