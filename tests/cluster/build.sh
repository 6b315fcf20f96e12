#!/usr/bin/env bash
# build.sh [kone|kwok|helm]... - put the cluster's programs into $KONE_BIN (default: all of them).
# A program that is there in the wanted version is left alone. Otherwise $ECHELON_KUBE_CACHE/NAME.zst is unpacked where
# there is one, else Go (1.26) builds it from Go modules: on 2 cores kone takes about 10 min, 0.1 GB of modules and 3.4 GB
# of memory, kwok and helm 2 min each. Nothing but the Go module proxy (GOPROXY) has to be reached.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
KWOK=v0.7.0
HELM=v3.19.5
CACHE=${ECHELON_KUBE_CACHE:-}
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -buildvcs=false"
mkdir -p "$KONE_BIN"

wanted() { # what a program is made from
  case $1 in
    kone) cat "$HERE"/kone/{go.mod,go.sum,main.go} | sha256sum | cut -d' ' -f1 ;;
    kwok) echo "$KWOK" ;;
    helm) echo "$HELM" ;;
    *) die "no program is called $1; there are kone, kwok, helm" ;;
  esac
}

compile() {
  command -v go >/dev/null || die "$1 is not there and has to be built, which needs Go 1.26 or newer in PATH;" \
    "install it, or name a folder that holds $1.zst by ECHELON_KUBE_CACHE"
  say "building $1 from Go modules (kone: about 10 minutes on 2 cores)"
  local at; at=$(realpath "$KONE_BIN")
  case $1 in
    kone)
      local version major minor ld="-s -w" p
      version=$(cd "$HERE/kone" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
      IFS=. read -r major minor _ <<<"${version#v}"
      for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        ld+=" -X $p.gitVersion=$version -X $p.gitMajor=$major -X $p.gitMinor=$minor -X $p.gitTreeState=clean"
        ld+=" -X $p.gitCommit=kone -X $p.buildDate=1970-01-01T00:00:00Z"
      done
      (cd "$HERE/kone" && go build -trimpath -ldflags "$ld" -o "$at/kone" .) ;;
    kwok) GOBIN=$at go install -trimpath -ldflags "-s -w" "sigs.k8s.io/kwok/cmd/kwok@$KWOK" ;;
    helm) GOBIN=$at go install -trimpath -ldflags "-s -w" "helm.sh/helm/v3/cmd/helm@$HELM" ;;
  esac
}

[[ $# -gt 0 ]] || set -- kone kwok helm
for what in "$@"; do
  want=$(wanted "$what")
  [[ -x $KONE_BIN/$what && $(cat "$KONE_BIN/$what.stamp" 2>/dev/null) == "$want" ]] && continue
  if [[ -n $CACHE && -s $CACHE/$what.zst ]]; then
    zstd -d -q -f "$CACHE/$what.zst" -o "$KONE_BIN/$what.part" && chmod +x "$KONE_BIN/$what.part"
    mv "$KONE_BIN/$what.part" "$KONE_BIN/$what"
  else
    compile "$what"
  fi
  if [[ $what == kone ]]; then
    for p in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl coredns; do
      ln -sf kone "$KONE_BIN/$p"
    done
  fi
  echo "$want" >"$KONE_BIN/$what.stamp"
  say "$what is there"
done
