#!/bin/bash
# Brings the programs of an image to /out, in a build stage whose working folder is the context:
#   binaries.sh operator | runtime | runtime-cuda
#   /out/bin     programs
#   /out/lib     libraries that are not Debian's (LibTorch)
#   /out/wheels  NAME.dist-info of the wheels these come from
# With BINARIES=prebuilt there is nothing to do: build.sh staged the same in build/images/prebuilt.
set -euo pipefail
part=$1
mkdir -p /out/bin /out/lib /out/wheels

# What build.sh passes for this machine: certificates for HTTPS and pip's settings.
secrets=/run/secrets/echelon
if [ -f $secrets/ca.pem ]; then
  export PIP_CERT=$secrets/ca.pem SSL_CERT_FILE=$secrets/ca.pem CARGO_HTTP_CAINFO=$secrets/ca.pem
fi
[ ! -f $secrets/pip.conf ] || export PIP_CONFIG_FILE=$secrets/pip.conf

torch_libraries() { # FOLDER: a site-packages with the wheels of tools/pins/libtorch.txt
  cp -L "$1"/torch/lib/{libtorch_cpu.so,libc10.so,libgomp.so.1} /out/lib/
  cp -L "$1"/nvidia/cu13/lib/{libcudart.so.13,libcupti.so.13} /out/lib/
  for info in "$1"/{torch,nvidia_cuda_runtime,nvidia_cuda_cupti}-*.dist-info; do
    mkdir -p "/out/wheels/${info##*/}"
    cp "$info/METADATA" "/out/wheels/${info##*/}/"
  done
}

cuda_libraries() { # what libtorch_cuda.so is linked with, by the pins of the Python environment
  local pins site=/deps/cuda
  pins=$(grep -iE '^(torch|nvidia-[a-z0-9-]+)==' tools/pins/python.txt)
  # shellcheck disable=SC2086  # pins are words
  pip install --no-cache-dir --no-deps --no-compile --only-binary=:all: --quiet --break-system-packages --target $site $pins
  cp -L $site/torch/lib/lib{torch_cuda,torch_cuda_linalg,torch_nvshmem,c10_cuda,caffe2_nvrtc}.so /out/lib/
  find $site/nvidia -path '*/lib/*.so*' -not -name '*.alt.so*' -not -name 'nvshmem_*' -not -name 'libcufile_rdma*' -type f -exec cp -n {} /out/lib/ \;
  cp -r $site/*.dist-info /out/wheels/
}

compile() {
  images/apt.sh ca-certificates make python3-pip python3-venv
  export ECHELON_DEPS=/deps
  if [ "$part" = operator ]; then
    tools/deps.sh debian
    # Nothing of Rust is linked into the operator, so no cargo is asked for its work.
    cmake -S . -B /build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCARGO=/bin/false \
      -DECHELON_TORCH=OFF -DECHELON_TESTS=OFF -DECHELON_BENCH=OFF > /build.log || { cat /build.log >&2; exit 1; }
    ninja -C /build echelon-operator
    cp /build/bin/echelon-operator /out/bin/
  else
    make build BUILD=/build
    cp /build/bin/echelon /build/bin/echelon-stage /out/bin/
    torch_libraries "$(echo /deps/libtorch/lib/python3.*/site-packages)"
    [ "$part" = runtime ] || cuda_libraries
  fi
}

case ${BINARIES:-compile} in
  compile) compile ;;
  prebuilt) ;; # closure.sh finds them in the context
  *)
    echo "binaries: BINARIES=$BINARIES is neither compile nor prebuilt" >&2
    exit 1
    ;;
esac
