#!/usr/bin/env bash
# Builds the container images: images/build.sh [operator|runtime|runtime-cuda|exporter]...   (default: all but runtime-cuda)
#   ENGINE     docker, podman or buildah (default: the first that works)
#   REGISTRY   first part of the images' names (localhost/echelon); PUSH=1 sends them there
#   VERSION    their tag (the project's version)
#   BASE       base of the build stages (debian:bookworm-slim; without a registry, mmdebstrap makes one)
#   BINARIES   compile: in the container; prebuilt: what `make build` left in BUILD; default: prebuilt on Debian 12
#   BUILD      build folder (build); archives and SBOMs go to BUILD/images
#   SIZES=1    also says how large each is when compressed
# Proxies, certificates and pip's settings of this machine reach the build as secrets: no layer and no file keeps them.
set -euo pipefail
cd "$(dirname "$0")/.."

BUILD=${BUILD:-build}
OUT=$BUILD/images
REGISTRY=${REGISTRY:-localhost/echelon}
VERSION=${VERSION:-$(sed -n 's/.*kVersion\[\] = "\([0-9.]*\)";.*/\1/p' runtime/version.h)}
BASE=${BASE:-docker.io/library/debian:bookworm-slim}
ECHELON_DEPS=${ECHELON_DEPS:-$PWD/.deps}
MADE_BASE=localhost/echelon-base:bookworm

say() { echo "images: $*"; }
fail() {
  echo "images: $*" >&2
  exit 1
}

engine() {
  if docker info > /dev/null 2>&1; then
    echo docker
  elif command -v podman > /dev/null; then
    echo podman
  elif command -v buildah > /dev/null; then
    echo buildah
  else
    fail "no docker, podman or buildah works here; on Debian: apt-get install buildah mmdebstrap"
  fi
}
ENGINE=${ENGINE:-$(engine)}

# Debian 12's compiler and libraries are the image's: what was built there runs there.
# shellcheck disable=SC1091
is_bookworm() { [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" = bookworm ]; }
BINARIES=${BINARIES:-$(is_bookworm && echo prebuilt || echo compile)}

# ---- the engine's commands ----------------------------------------------------------------------

has_image() {
  case $ENGINE in
    docker) docker image inspect "$1" > /dev/null 2>&1 ;;
    podman) podman image exists "$1" ;;
    buildah) buildah inspect --type image "$1" > /dev/null 2>&1 ;;
  esac
}

import_base() { # the root file system comes on standard input
  case $ENGINE in
    docker | podman) "$ENGINE" import - "$MADE_BASE" > /dev/null ;;
    buildah)
      local container
      cat > "$WORK/base.tar"
      container=$(buildah from scratch)
      buildah add -q "$container" "$WORK/base.tar" / > /dev/null
      buildah commit -q --disable-compression "$container" "$MADE_BASE" > /dev/null
      buildah rm "$container" > /dev/null
      rm "$WORK/base.tar"
      ;;
  esac
}

build_image() { # DOCKERFILE TAG OPTION...
  local file=$1 tag=$2
  shift 2
  case $ENGINE in
    docker) DOCKER_BUILDKIT=1 docker build -q -f "$file" -t "$tag" "$@" . ;;
    podman) podman build -q --layers --isolation "${BUILDAH_ISOLATION:-chroot}" -f "$file" -t "$tag" "$@" . ;;
    buildah) buildah bud --layers --isolation "${BUILDAH_ISOLATION:-chroot}" --pull-never -f "$file" -t "$tag" "$@" . ;;
  esac
}

save_image() { # TAG ARCHIVE
  rm -f "$2"
  case $ENGINE in
    docker) docker save -o "$2" "$1" ;;
    podman) podman save -q --format docker-archive -o "$2" "$1" ;;
    buildah) buildah push -q "$1" "docker-archive:$2:$1" ;;
  esac
}

push() { # TAG
  [ -z "${PUSH:-}" ] || "$ENGINE" push -q "$1" || fail "$1 could not be pushed; log in to its registry first"
}

# ---- what a build needs -------------------------------------------------------------------------

find_base() {
  has_image "$BASE" && return
  if has_image "$MADE_BASE"; then
    BASE=$MADE_BASE
    return
  fi
  say "fetching $BASE"
  if timeout 120 "$ENGINE" pull -q "$BASE" > "$WORK/pull.log" 2>&1; then return; fi
  command -v mmdebstrap > /dev/null ||
    fail "$BASE cannot be pulled ($(tail -n 1 "$WORK/pull.log")); name another by BASE, or apt-get install mmdebstrap"
  say "no registry has it here; making $MADE_BASE from Debian's packages"
  mmdebstrap -q --variant=minbase bookworm - ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} 2> "$WORK/base.log" | import_base ||
    fail "mmdebstrap: $(tail -n 1 "$WORK/base.log")"
  BASE=$MADE_BASE
}

# Of apt's configuration only what it takes to reach a mirror.
secrets() {
  local file
  if command -v apt-config > /dev/null; then
    apt-config dump | grep -iE '^Acquire::(https?)::(Proxy|CAInfo|Verify)' > "$WORK/apt.conf" || true
    [ ! -s "$WORK/apt.conf" ] || SECRETS+=(--secret "id=apt,src=$WORK/apt.conf")
  fi
  for file in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
    [ ! -f "$file" ] || { SECRETS+=(--secret "id=ca,src=$file") && break; }
  done
  if [ -n "${PIP_INDEX_URL:-}" ]; then
    printf '[global]\nindex-url = %s\n' "$PIP_INDEX_URL" > "$WORK/pip.conf"
    SECRETS+=(--secret "id=pip,src=$WORK/pip.conf")
    return
  fi
  for file in "${PIP_CONFIG_FILE:-}" "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf" /etc/pip.conf; do
    [ ! -f "$file" ] || { SECRETS+=(--secret "id=pip,src=$file") && break; }
  done
}

link() { cp -lL "$1" "$2" 2> /dev/null || cp -pL "$1" "$2"; }

stage() { # PART: hard links of what is built, where .dockerignore lets it through
  local part=$1 to=build/images/prebuilt bin=$BUILD/bin programs site cuda=""
  rm -rf $to && mkdir -p $to/bin $to/lib $to/wheels
  case $part in
    operator) programs=(echelon-operator) ;;
    runtime) programs=(echelon echelon-stage) ;;
    runtime-cuda)
      programs=(echelon echelon-stage)
      cuda=$(echo "$ECHELON_DEPS"/python/lib/python3.*/site-packages)
      [ -d "$cuda/nvidia" ] || fail "there are no CUDA libraries in $ECHELON_DEPS/python; run make deps-python first, or set BINARIES=compile"
      ;;
    exporter)
      site=$ECHELON_DEPS/python/lib/python3.11/site-packages
      [ -d "$site" ] || return 0 # another Python than the image's: wheels come from the package index
      mapfile -t programs < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' images/packages/wheels.txt)
      python3 images/stage_wheels.py "$site" $to/site-packages "${programs[@]}"
      return
      ;;
  esac
  for program in "${programs[@]}"; do
    [ -x "$bin/$program" ] || fail "there is no $bin/$program; run make build first, or set BINARIES=compile"
    link "$bin/$program" $to/bin/
  done
  [ "$part" = operator ] && return
  site=$(echo "$ECHELON_DEPS"/libtorch/lib/python3.*/site-packages)
  [ -d "$site/torch" ] || fail "there is no LibTorch in $ECHELON_DEPS/libtorch; run make deps"
  for library in "$site"/torch/lib/{libtorch_cpu.so,libc10.so,libgomp.so.1} "$site"/nvidia/cu13/lib/lib{cudart,cupti}.so.13; do
    link "$library" $to/lib/
  done
  for info in "$site"/{torch,nvidia_cuda_runtime,nvidia_cuda_cupti}-*.dist-info; do
    mkdir -p "$to/wheels/${info##*/}"
    link "$info/METADATA" "$to/wheels/${info##*/}/"
  done
  [ -z "$cuda" ] || stage_cuda "$cuda" "$to"
}

# Plugins for MPI and InfiniBand would want those systems' own libraries.
stage_cuda() { # SITE-PACKAGES TO: what libtorch_cuda.so is linked with
  local file
  find "$1/torch/lib" "$1/nvidia" -type f \( -path '*/nvidia/*/lib/*.so*' -o -name 'lib*cuda*.so' -o -name libtorch_nvshmem.so \
    -o -name libcaffe2_nvrtc.so \) -not -name '*.alt.so*' -not -name 'nvshmem_*' -not -name 'libcufile_rdma*' | while read -r file; do
    [ -e "$2/lib/${file##*/}" ] || link "$file" "$2/lib/"
  done
  for file in "$1"/nvidia_*.dist-info; do
    [ -e "$2/wheels/${file##*/}" ] || { mkdir "$2/wheels/${file##*/}" && link "$file/METADATA" "$2/wheels/${file##*/}/"; }
  done
}

# A digest of what goes in, of the sources or of what is staged: the same words over other files are another step.
inputs() {
  local sources=(images export tools LICENSE)
  [ "$BINARIES" = prebuilt ] || sources+=(runtime operator proto CMakeLists.txt Makefile)
  {
    echo "$BASE $BINARIES $VERSION $(git log -1 --format=%ct -- "${sources[@]}" 2> /dev/null)"
    find "${sources[@]}" -type f -not -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum
    find build/images/prebuilt -type f -printf '%P %s %T@\n' 2> /dev/null | sort
  } | sha256sum | cut -c1-16
}

build() { # PART
  local part=$1 tag=$REGISTRY/$1:$VERSION began=$SECONDS name digest
  local options=(--build-arg "BASE=$BASE" --build-arg "BINARIES=$BINARIES" --build-arg "VERSION=$VERSION")
  options+=(--build-arg "SOURCE_DATE_EPOCH=$(git log -1 --format=%ct -- images export 2> /dev/null)" "${SECRETS[@]}")
  for name in http_proxy https_proxy no_proxy; do
    [ -z "${!name:-}" ] || options+=(--build-arg "$name=${!name}")
  done
  [ "$BINARIES" = compile ] || stage "$part"
  digest=$(inputs)
  if [ -f "$OUT/$part.tar" ] && [ "$(cat "$OUT/$part.stamp" 2> /dev/null)" = "$tag $digest" ]; then
    say "$tag: $OUT/$part.tar is up to date"
    push "$tag"
    return
  fi
  rm -f "$OUT/$part.stamp"
  options+=(--build-arg "INPUTS=$digest")
  build_image "images/$part.Dockerfile" "$tag" "${options[@]}" > "$OUT/$part.log" 2>&1 ||
    fail "$tag could not be built: $(grep -v '^$' "$OUT/$part.log" | tail -n 2 | tr '\n' ' ') (log: $OUT/$part.log)"
  save_image "$tag" "$OUT/$part.tar"
  python3 images/archive.py "$OUT/$part.tar" sbom "$OUT/$part.spdx.json"
  say "$tag: $OUT/$part.tar, $(($(stat -c %s "$OUT/$part.tar") / 1000000)) MB, $((SECONDS - began)) s"
  [ -z "${SIZES:-}" ] || say "$tag: $(python3 images/archive.py "$OUT/$part.tar" size)"
  echo "$tag $digest" > "$OUT/$part.stamp"
  push "$tag"
}

[ $# -gt 0 ] || set -- operator runtime exporter
mkdir -p "$OUT"
WORK=$(mktemp -d)
trap 'rm -rf "$WORK" build/images/prebuilt' EXIT
SECRETS=()
secrets
find_base
for part in "$@"; do
  [ -f "images/$part.Dockerfile" ] || fail "no image is called $part; there are operator, runtime, runtime-cuda, exporter"
  build "$part"
done
