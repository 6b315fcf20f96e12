# echelon-export: Python, torch and transformers on a CPU, without CUDA's libraries; no shell.
# Built by images/build.sh (make images), from the repository's root; see docs/images.md.
# INPUTS is a digest of what is mounted, since buildah looks no further than a step's words for whether it was done already.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS interpreter
COPY images/apt.sh images/packages/exporter.txt /images/
RUN --mount=type=secret,id=apt,target=/run/secrets/echelon/apt.conf \
    /images/apt.sh binutils ca-certificates chrpath && /images/apt.sh -f /images/exporter.txt
ARG BINARIES=compile
ARG VERSION=0.0.0
ARG SOURCE_DATE_EPOCH=0
ARG INPUTS
WORKDIR /src
RUN --mount=type=bind,target=/src \
    --mount=type=secret,id=ca,target=/run/secrets/echelon/ca.pem \
    --mount=type=secret,id=pip,target=/run/secrets/echelon/pip.conf \
    BINARIES=${BINARIES} VERSION=${VERSION} SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} images/exporter.sh

FROM scratch
ARG VERSION=0.0.0
LABEL org.opencontainers.image.title="echelon-exporter" \
      org.opencontainers.image.description="Writes a PyTorch model as the .pt2 file that Echelon serves" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=interpreter /rootfs/ /
ENV PATH=/opt/echelon/bin:/usr/bin HOME=/tmp HF_HUB_OFFLINE=1 TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
USER 65532:65532
ENTRYPOINT ["echelon-export"]
