# A small image that runs any subcommand:
#   docker build -t skald .
#   docker run --rm --user "$(id -u)" -v "$PWD/data:/data" skald train --model /data/model.h5 /data/train.svm
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential cmake ninja-build pkg-config \
        protobuf-c-compiler libprotobuf-c-dev libgrpc-dev libhdf5-dev libjansson-dev libmicrohttpd-dev zlib1g-dev liblzma-dev
COPY . /source
RUN cmake -S /source -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release -DSKALD_TESTS=OFF && \
    cmake --build /build && strip -o /skald /build/skald

FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends \
        libgrpc29 libprotobuf-c1 libhdf5-103-1 libjansson4 libmicrohttpd12 zlib1g liblzma5 && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --create-home --uid 1000 skald
COPY --from=build /skald /usr/local/bin/skald
RUN skald version
USER skald
WORKDIR /home/skald
ENTRYPOINT ["skald"]
CMD ["help"]
