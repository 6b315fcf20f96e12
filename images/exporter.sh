#!/bin/bash
# Makes /rootfs with /opt/echelon, the environment that echelon-export runs in, in a build stage whose working folder is
# the context.
# The wheels come from a package index, or BINARIES=prebuilt, from what build.sh staged in build/images/prebuilt.
set -euo pipefail
secrets=/run/secrets/echelon
[ ! -f $secrets/ca.pem ] || export PIP_CERT=$secrets/ca.pem
[ ! -f $secrets/pip.conf ] || export PIP_CONFIG_FILE=$secrets/pip.conf

python3 -m venv /opt/echelon
site=$(/opt/echelon/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
staged=build/images/prebuilt/site-packages
if [ "${BINARIES:-compile}" = prebuilt ] && [ -d $staged ]; then
  cp -a $staged/. "$site/"
else
  names=$(sed -e 's/#.*//' images/packages/wheels.txt | tr 'A-Z_.' 'a-z--')
  # shellcheck disable=SC2086  # names are words
  pins=$(for name in $names; do tr 'A-Z_' 'a-z-' < tools/pins/python.txt | grep "^$name=="; done)
  # shellcheck disable=SC2086
  /opt/echelon/bin/pip install --no-cache-dir --no-deps --no-compile --only-binary=:all: --quiet $pins
fi
cp -r export /tmp/export # the context is read-only, and setuptools builds in place
/opt/echelon/bin/pip install --no-cache-dir --no-deps --no-compile --no-build-isolation --quiet /tmp/export

# What only a compiler or a GPU would use, and what the rest is linked with without ever calling it.
rm -rf "$site"/torch/{include,test,share} "$site"/torch/bin/{ptxas,protoc*,nvdisasm,cuobjdump} "$site"/pip "$site"/pip-*.dist-info /opt/echelon/bin/{pip*,[aA]ctivate*}
find "$site/sympy" -name tests -type d -prune -exec rm -rf {} +
cp -L "$site"/nvidia/cu13/lib/libcudart.so.13 "$site/torch/lib/"
rm -rf "$site/nvidia"
strip --strip-unneeded "$site/torch/lib/libtorch_cpu.so"
images/stub_libraries.py "$site/torch/lib" libtorch_cuda_linalg.so libcaffe2_nvrtc.so

# The root file system is read-only where this runs, so byte code is made here; of transformers' models, for the common ones.
/opt/echelon/bin/python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash \
  -x 'transformers/(models/(?!auto|llama|mistral|mixtral|qwen|gpt|opt|gemma|phi)|quantizers|pipelines|cli)|/tests?/' \
  "$site" /usr/lib/python3.11 > /tmp/compile.log || true # torch carries templates that are not Python
/opt/echelon/bin/python -c 'import torch, transformers, echelon_export; assert not torch.cuda.is_available()'

python3 images/rootfs.py --root /rootfs --name echelon-exporter --version "${VERSION:-0.0.0}" --wheels /rootfs/opt/echelon/lib \
  --move /opt/echelon --tree /usr/lib/python3.11 --file /usr/bin/python3.11:/usr/bin/python3 \
  --file LICENSE:/usr/share/doc/echelon/LICENSE
rm -rf /tmp/export
