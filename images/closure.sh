#!/bin/sh
# Makes /rootfs, the file system of an image, in a build stage that has the programs' Debian packages:
#   closure.sh operator | runtime | runtime-cuda
# The programs are in /out (binaries.sh) or, with BINARIES=prebuilt, in the context.
set -eu
context=$(cd "$(dirname "$0")/.." && pwd)
from=/out
[ "${BINARIES:-compile}" = compile ] || from=$context/build/images/prebuilt
ln -sfn "$from/lib" /usr/lib/echelon

part=$1
set -- --root /rootfs --name "echelon-$part" --version "${VERSION:-0.0.0}" --wheels "$from/wheels" \
  --file "$context/LICENSE:/usr/share/doc/echelon/LICENSE"
if [ "$part" = operator ]; then
  set -- "$@" --file "$from/bin/echelon-operator:/usr/bin/echelon-operator"
else
  set -- "$@" --file "$from/bin/echelon-stage:/usr/bin/echelon-stage" --file "$from/bin/echelon:/usr/bin/echelon" \
    --crates "$context/runtime/text/capi/Cargo.lock"
fi
[ "$part" != runtime-cuda ] || set -- "$@" --host libcuda.so.1 # the driver's, which the container toolkit adds
exec python3 "$context/images/rootfs.py" "$@"
