#!/usr/bin/env bash
# image.sh - make container images without a registry.
#   image.sh pause                      images/pause.tar    localhost/pause:1   (needs gcc)
#   image.sh tree NAME:TAG DIR ENTRYPOINT...   images/NAME.tar     localhost/NAME:TAG  from a directory
set -euo pipefail
source "$(dirname "$0")/lib.sh"
mkdir -p "$KONE_IMAGES"
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT

# archive NAME:TAG DIR ENTRYPOINT... - one layer, one config, one manifest: a docker archive.
archive() {
  local ref=$1 dir=$2 w=$tmp/archive diff cfg entry; shift 2
  mkdir -p "$w"
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$dir" -cf "$w/layer.tar" .
  diff=$(sha256sum "$w/layer.tar" | cut -d' ' -f1)
  entry=$(printf '"%s",' "$@"); entry=[${entry%,}]
  printf '{"architecture":"amd64","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Env":["PATH=/bin:/usr/bin:/sbin:/usr/sbin"],"Entrypoint":%s},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"1970-01-01T00:00:00Z"}]}' \
    "$entry" "$diff" >"$w/config.json"
  cfg=$(sha256sum "$w/config.json" | cut -d' ' -f1); mv "$w/config.json" "$w/$cfg.json"
  printf '[{"Config":"%s.json","RepoTags":["localhost/%s"],"Layers":["layer.tar"]}]' "$cfg" "$ref" >"$w/manifest.json"
  tar -C "$w" -cf "$KONE_IMAGES/${ref%%:*}.tar" manifest.json "$cfg.json" layer.tar
}

case ${1:-} in
  pause)
    mkdir -p "$tmp/tree"
    cat >"$tmp/pause.c" <<'C'
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int s) { _exit(0); }
static void reap(int s) { while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) { signal(SIGTERM, end); signal(SIGINT, end); signal(SIGCHLD, reap); for (;;) pause(); }
C
    gcc -static -Os -s -o "$tmp/tree/pause" "$tmp/pause.c"
    archive pause:1 "$tmp/tree" /pause ;;
  tree) archive "$2" "$3" "${@:4}" ;;
  *) die "usage: image.sh pause | tree NAME:TAG DIR ENTRYPOINT..." ;;
esac
