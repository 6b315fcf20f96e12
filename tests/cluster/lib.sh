# lib.sh - shared settings and helpers of the one-machine test cluster: the real Kubernetes, each node in a network
# namespace of its own. Sourced by up.sh, down.sh, node.sh, image.sh, build.sh; every path is given by a variable.
# Debian packages: tools/pins/debian-cluster.txt. Nodes need root; KONE_NODES="" (etcd and API server) does not.
# shellcheck shell=bash disable=SC2034

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
KONE_BIN=${KONE_BIN:-${ECHELON_DEPS:-$ROOT/.deps}/kube} # kone and its symbolic links, kwok, helm: build.sh
KONE_STATE=${KONE_STATE:-$ROOT/build/cluster} # everything that is written while running
KONE_NODES=${KONE_NODES-"n1 n2"}             # node names; empty: control plane only
KONE_FAKE=${KONE_FAKE:-}                     # non-empty: start the kwok controller too
KONE_IMAGES=${KONE_IMAGES:-$ROOT/build/images} # *.tar docker archives, loaded into every node
KONE_CNI_BIN=${KONE_CNI_BIN:-/usr/lib/cni}   # CNI plugins (Debian: containernetworking-plugins)
KONE_GRACE=${KONE_GRACE:-12}                 # seconds of silence until a node counts as lost
KONE_EVICT=${KONE_EVICT:-5}                  # seconds a pod stays bound to a lost node

BRIDGE=${KONE_BRIDGE:-kone0}                 # host end of the node network
NET=${KONE_NET:-10.99.0}                     # node network /24: .1 = host, .11 = first node
PODNET=${KONE_PODNET:-10.244}                # pod network /16: node i owns PODNET.i.0/24
SVCNET=${KONE_SVCNET:-10.96.0}               # ClusterIPs: SVCNET.0/20

if [[ -n $KONE_NODES ]]; then HOST=$NET.1; else HOST=127.0.0.1; fi
PORT=${KONE_PORT:-6443}
ETCD_PORT=${KONE_ETCD_PORT:-23790}
SERVER=https://$HOST:$PORT
PKI=$KONE_STATE/pki
CONF=$KONE_STATE/conf
LOG=$KONE_STATE/log
PID=$KONE_STATE/pid
export KUBECONFIG=$CONF/admin.kubeconfig

k() { "$KONE_BIN/kubectl" "$@"; }
say() { printf '%s %s\n' "$(date +%H:%M:%S.%3N)" "$*"; }
die() { say "error: $*" >&2; exit 1; }

# born PID - the process's start time; fails when it is gone or a zombie.
born() {
  local line f
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  read -ra f <<<"${line##*) }"
  [[ ${f[0]} != Z ]] && echo "${f[19]}"
}

# alive NAME - true when the process of that PID file is running and is ours
# (the start time in the file guards against a reused process id).
alive() {
  local pid start
  [[ -r $PID/$1 ]] && read -r pid start <"$PID/$1" && [[ -n $start && $(born "$pid") == "$start" ]]
}

# start NAME COMMAND... - run in the background with a log and a PID file.
start() {
  local name=$1 pid; shift
  alive "$name" && return 0
  mkdir -p "$PID" "$LOG"
  setsid "$@" >>"$LOG/$name.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid $(born "$pid" || true)" >"$PID/$name"
  sleep 0.05
  alive "$name" || die "$name ended at once: $(tail -n 2 "$LOG/$name.log")"
}

# stop NAME [SIGNAL] - end that process, wait for it, kill it after 10 s.
stop() {
  local name=$1 sig=${2:-TERM} pid i
  if alive "$name"; then
    read -r pid _ <"$PID/$name"
    kill -"$sig" "$pid" 2>/dev/null || true
    for ((i = 0; i < 500; i++)); do alive "$name" || break; sleep 0.02; done
    alive "$name" && kill -KILL "$pid" 2>/dev/null
  fi
  rm -f "$PID/$name"
}

# until_ok SECONDS COMMAND... - retry quietly until it succeeds.
until_ok() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || { say "timed out: $*" >&2; return 1; }
    sleep 0.1
  done
}

# number NODE - 1 for the first node of KONE_NODES, 2 for the second, ...
number() {
  local i=0 n
  for n in $KONE_NODES; do i=$((i + 1)); [[ $n == "$1" ]] && { echo "$i"; return; }; done
  die "no node $1 in KONE_NODES"
}
node_ip() { echo "$NET.$((10 + $(number "$1")))"; }
node_pods() { echo "$PODNET.$(number "$1").0/24"; }
in_node() { local n=$1; shift; nsenter --net="/run/netns/kone-$n" "$@"; }

# cert NAME SUBJECT [SAN] - a key and a certificate signed by the cluster's CA.
cert() {
  local at=$PKI/$1
  [[ -s $at.crt ]] && return
  openssl ecparam -name prime256v1 -genkey -noout -out "$at.key" 2>/dev/null
  openssl req -new -key "$at.key" -subj "$2" -out "$at.csr"
  openssl x509 -req -in "$at.csr" -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -set_serial "0x$(openssl rand -hex 8)" -days 3650 \
    -extfile <(printf 'keyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n%s\n' \
      "${3:+subjectAltName=$3}") -out "$at.crt" 2>/dev/null
}

# kubeconfig NAME - a kubeconfig using the certificate of that name.
kubeconfig() {
  [[ -s $CONF/$1.kubeconfig ]] && return
  cat >"$CONF/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: kone, cluster: {server: "$SERVER", certificate-authority: "$PKI/ca.crt"}}]
users: [{name: "$1", user: {client-certificate: "$PKI/$1.crt", client-key: "$PKI/$1.key"}}]
contexts: [{name: kone, context: {cluster: kone, user: "$1"}}]
current-context: kone
YAML
}
