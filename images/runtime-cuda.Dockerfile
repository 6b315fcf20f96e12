# echelon-stage and echelon with CUDA's libraries beside LibTorch, for nodes with NVIDIA's driver.
# Built by images/build.sh (make images), from the repository's root; see docs/images.md.
# INPUTS is a digest of what is mounted, since buildah looks no further than a step's words for whether it was done already.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS binaries
ARG BINARIES=compile
ARG INPUTS
WORKDIR /src
RUN --mount=type=bind,target=/src \
    --mount=type=secret,id=apt,target=/run/secrets/echelon/apt.conf \
    --mount=type=secret,id=ca,target=/run/secrets/echelon/ca.pem \
    --mount=type=secret,id=pip,target=/run/secrets/echelon/pip.conf \
    BINARIES=${BINARIES} images/binaries.sh runtime-cuda

FROM ${BASE} AS closure
COPY images/apt.sh images/packages/runtime.txt /images/
RUN --mount=type=secret,id=apt,target=/run/secrets/echelon/apt.conf \
    /images/apt.sh binutils ca-certificates chrpath python3 && /images/apt.sh -f /images/runtime.txt
ARG VERSION=0.0.0
ARG SOURCE_DATE_EPOCH=0
ARG BINARIES=compile
ARG INPUTS
RUN --mount=type=bind,target=/src \
    --mount=type=bind,from=binaries,source=/out,target=/out \
    BINARIES=${BINARIES} VERSION=${VERSION} SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} /src/images/closure.sh runtime-cuda

FROM scratch
ARG VERSION=0.0.0
LABEL org.opencontainers.image.title="echelon-runtime-cuda" \
      org.opencontainers.image.description="One stage of a model served as a pipeline, on NVIDIA GPUs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=closure /rootfs/ /
# The container toolkit adds the driver's own libraries by these.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
ENTRYPOINT ["/usr/bin/echelon-stage"]
