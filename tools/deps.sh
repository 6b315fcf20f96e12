#!/usr/bin/env bash
# Installs what Echelon is built from and tested with, and nothing twice: tools/deps.sh PART...
#   debian        packages of a build               (tools/pins/debian.txt)
#   debian-test   packages of the tests             (tools/pins/debian-test.txt)
#   debian-cluster  packages of the test cluster    (tools/pins/debian-cluster.txt)
#   promtool      Prometheus' checker of rules and metrics, out of Debian's package of the server
#   kube          Kubernetes, KWOK and Helm for tests/cluster/, unpacked from ECHELON_KUBE_CACHE or built by Go
#   rust          cargo and rustc                   (tools/pins/rust.txt), and the crates of runtime/text/capi/Cargo.lock
#   libtorch      the C++ library, out of the wheel (tools/pins/libtorch.txt), 0.7 GB
#   python        export, oracle, demo, tests       (tools/pins/python.txt), 5 GB
# ECHELON_DEPS names another folder than .deps for what is no package. A part that was cut off is done again.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
PINS=$ROOT/tools/pins
DEPS=${ECHELON_DEPS:-$ROOT/.deps}
PYTHON=${ECHELON_PYTHON:-python3}

say() { echo "deps: $*"; }
fail() {
  echo "deps: $*" >&2
  exit 1
}
names() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$PINS/$1.txt"; }

# ---- Debian -------------------------------------------------------------------------------------

missing_packages() {
  comm -23 <(names "$1" | sort) \
    <(dpkg-query -W -f='${binary:Package} ${db:Status-Status}\n' | sed -n 's/\(:[a-z0-9]*\)\? installed$//p' | sort -u)
}

debian() {
  command -v dpkg-query > /dev/null && command -v apt-get > /dev/null ||
    fail "this system has no apt-get; install what $PINS/$1.txt names by hand (Debian 12's versions)"
  local wanted as_root=() codename
  mapfile -t wanted < <(missing_packages "$1")
  [ ${#wanted[@]} -eq 0 ] && return
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")
  [ "$codename" = bookworm ] || say "this is $codename, not Debian 12 (bookworm): other versions may not build"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo > /dev/null || fail "packages are missing and need root; run: apt-get install ${wanted[*]}"
    as_root=(sudo)
  fi
  say "installing ${#wanted[@]} Debian packages: ${wanted[*]}"
  "${as_root[@]}" apt-get update -qq > "$LOG" 2>&1 || fail "apt-get update failed: $(tail -n 1 "$LOG") (log: $LOG)"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >> "$LOG" 2>&1 ||
    fail "apt-get install failed: $(grep -m 1 '^E:' "$LOG" || tail -n 1 "$LOG") (log: $LOG)"
}

# The checker alone: the package would start a server.
promtool() {
  local to=$DEPS/kube/promtool work
  [ -x "$to" ] && return
  work=$(mktemp -d)
  (cd "$work" && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; }) > "$LOG" 2>&1 ||
    fail "apt-get download prometheus failed: $(tail -n 1 "$LOG") (log: $LOG)"
  mkdir -p "$DEPS/kube"
  dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -O ./usr/bin/promtool > "$to.part"
  chmod +x "$to.part" && mv "$to.part" "$to"
  rm -r "$work"
}

# ---- Rust ---------------------------------------------------------------------------------------

RUST_MINOR=87 # rustc 1.87: rust-version in runtime/text/capi/Cargo.toml

has_rust() {
  command -v cargo > /dev/null && command -v rustc > /dev/null &&
    [ "$(rustc --version 2> /dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')" -ge $RUST_MINOR ] 2> /dev/null
}

# The crates' sources come now, so that a build needs no network.
rust() {
  local capi=$ROOT/runtime/text/capi wanted
  PATH=$PATH:$HOME/.cargo/bin
  has_rust || debian rust
  has_rust || fail "there is no rustc of at least 1.$RUST_MINOR ($(rustc --version 2>&1 | head -n 1)); remove the old one, or install Rust by rustup"
  wanted=$( (rustc --version && cat "$capi/Cargo.lock" && echo "${CARGO_HOME:-$HOME/.cargo}") | sha256sum | cut -d' ' -f1)
  [ "$(cat "$DEPS/rust.stamp" 2> /dev/null)" = "$wanted" ] && return
  cargo fetch --quiet --locked --manifest-path "$capi/Cargo.toml" > "$LOG" 2>&1 ||
    fail "cargo could not fetch the crates: $(grep -m 1 '^error' "$LOG" || tail -n 1 "$LOG") (log: $LOG; is the crate registry reachable?)"
  echo "$wanted" > "$DEPS/rust.stamp"
}

# ---- Python wheels ------------------------------------------------------------------------------

# A stamp holds what was installed: the pins, the interpreter and where it lies.
digest() { { names "$1"; "$PYTHON" --version; echo "$DEPS/$1"; } | sha256sum | cut -d' ' -f1; }
is_done() { [ "$(cat "$DEPS/$1.stamp" 2> /dev/null)" = "$(digest "$1")" ] && [ -x "$DEPS/$1/bin/python" ]; }

# What is installed, as pins; our own package, which is editable, aside. An install that was cut off lacks names.
installed() {
  "$DEPS/$1/bin/python" - << 'PY'
import importlib.metadata as metadata
for package in metadata.distributions():
    print(f"{package.metadata['Name']}=={package.version}")
PY
}
normal() { tr 'A-Z_.' 'a-z--' | sort -u; }
has_pins() {
  [ -x "$DEPS/$1/bin/python" ] && [ -z "$(comm -23 <(names "$1" | normal) <(installed "$1" | normal))" ]
}

wheels() {
  local part=$1 size_gb=$2 began=$SECONDS
  is_done "$part" && return
  rm -f "$DEPS/$part.stamp"
  if ! has_pins "$part"; then
    "$PYTHON" -c 'import venv, ensurepip' 2> /dev/null ||
      fail "$PYTHON has no venv module; install python3-venv, or name another Python by ECHELON_PYTHON"
    local free_gb=$(($(df --output=avail -B 1G "$DEPS" | tail -n 1)))
    [ "$free_gb" -ge $((2 * size_gb)) ] ||
      fail "$DEPS has $free_gb GB free and $part needs $((2 * size_gb)); free some, or name another folder by ECHELON_DEPS"
    say "installing $part ($(names "$part" | wc -l) wheels, $size_gb GB) into $DEPS/$part"
    rm -rf "${DEPS:?}/$part"
    "$PYTHON" -m venv "$DEPS/$part" > "$LOG" 2>&1 || fail "cannot make $DEPS/$part: $(tail -n 1 "$LOG")"
    "$DEPS/$part/bin/pip" install --disable-pip-version-check --no-input --no-deps --no-compile \
      --only-binary=:all: -r "$PINS/$part.txt" > "$LOG" 2>&1 ||
      fail "pip could not install $part: $(grep -m 1 '^ERROR' "$LOG" || tail -n 1 "$LOG") (log: $LOG; is a package index reachable?)"
  fi
  "after_$part"
  digest "$part" > "$DEPS/$part.stamp"
  say "$part is there ($((SECONDS - began)) s)"
}

# Nothing links what needs CUDA or an interpreter, and together it is most of the wheel.
after_libtorch() {
  local lib
  lib=$(echo "$DEPS"/libtorch/lib/python3.*/site-packages/torch/lib)
  rm -f "$lib"/libtorch_cuda*.so "$lib"/libtorch_python.so "$lib"/libtorch_nvshmem.so "$lib"/libc10_cuda.so
  [ -f "$lib/libtorch_cpu.so" ] || fail "$lib has no libtorch_cpu.so; remove $DEPS/libtorch and try again"
}

after_python() {
  "$DEPS/python/bin/python" -c 'import torch, numpy' 2> "$LOG" ||
    fail "$DEPS/python is broken ($(tail -n 1 "$LOG")); remove it and try again"
}

# Our own package, editable: `echelon-export` runs from the checkout. The environment may be new, may be shared between
# checkouts, or the checkout may have moved.
link_export() {
  local wanted
  wanted=$( (echo "$ROOT" && cat "$ROOT/export/pyproject.toml" "$DEPS/python.stamp") | sha256sum | cut -d' ' -f1)
  [ "$(cat "$DEPS/export.stamp" 2> /dev/null)" = "$wanted" ] && return
  "$DEPS/python/bin/pip" install --disable-pip-version-check --no-input --no-deps --no-build-isolation \
    --quiet -e "$ROOT/export" > "$LOG" 2>&1 || fail "pip could not install export/: $(tail -n 1 "$LOG") (log: $LOG)"
  echo "$wanted" > "$DEPS/export.stamp"
}

PARTS="debian, debian-test, debian-cluster, promtool, kube, rust, libtorch, python"
[ $# -gt 0 ] || fail "name what to install: $PARTS"
mkdir -p "$DEPS"
DEPS=$(cd "$DEPS" && pwd)
LOG=$DEPS/install.log
exec 9> "$DEPS/.lock"
flock -n 9 || { say "another install is under way; waiting for it" && flock 9; }
for part in "$@"; do
  case $part in
    debian | debian-test | debian-cluster) debian "$part" ;;
    promtool) promtool ;;
    kube) KONE_BIN=$DEPS/kube "$ROOT/tests/cluster/build.sh" ;;
    rust) rust ;;
    libtorch) wheels libtorch 1 ;;
    python)
      wheels python 6
      link_export
      ;;
    *) fail "no part is called $part; there are $PARTS" ;;
  esac
done
