#!/usr/bin/env bash
# up.sh - start the cluster (does nothing to what already runs).
#   KONE_NODES=""       etcd + kube-apiserver on loopback only (like envtest)
#   KONE_NODES="n1 n2"  the whole cluster, every node in its own network namespace
set -euo pipefail
source "$(dirname "$0")/lib.sh"

[[ -x $KONE_BIN/kone ]] || die "$KONE_BIN/kone is not there; run: make deps-cluster"
if [[ -n $KONE_NODES ]]; then
  [[ $(id -u) == 0 ]] || die "nodes need root (network namespaces, containerd); KONE_NODES=\"\" starts the API server alone"
  for p in containerd runc ctr nsenter iptables conntrack; do
    command -v "$p" >/dev/null || die "$p is not there; run: make deps-cluster"
  done
  [[ -s $KONE_IMAGES/pause.tar ]] || "$HERE/image.sh" pause
fi
mkdir -p "$PKI" "$CONF" "$LOG" "$PID"
# kubelet sets these for the whole machine; down.sh puts them back
[[ -s $KONE_STATE/sysctl ]] || sysctl -e kernel.panic kernel.panic_on_oops vm.overcommit_memory \
  vm.panic_on_oom kernel.keys.root_maxkeys kernel.keys.root_maxbytes >"$KONE_STATE/sysctl"

# --- certificates -----------------------------------------------------------
if [[ ! -s $PKI/ca.crt ]]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -subj /CN=kone-ca -keyout "$PKI/ca.key" -out "$PKI/ca.crt" 2>/dev/null
fi
[[ -s $PKI/sa.key ]] || openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/sa.key"
cert apiserver /CN=kube-apiserver \
  "IP:127.0.0.1,IP:$HOST,IP:$SVCNET.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
cert admin /O=system:masters/CN=admin
cert kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
cert controller-manager /CN=system:kube-controller-manager
cert scheduler /CN=system:kube-scheduler
cert proxy /CN=system:kube-proxy
cert coredns /CN=system:coredns
for c in admin controller-manager scheduler proxy coredns; do kubeconfig "$c"; done

# --- the node network's host end (nothing when there are no nodes) ----------
if [[ -n $KONE_NODES && ! -e /sys/class/net/$BRIDGE ]]; then
  ip link add "$BRIDGE" type bridge
  ip addr add "$HOST/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
fi

# --- control plane ----------------------------------------------------------
start etcd "$KONE_BIN/etcd" --data-dir="$KONE_STATE/etcd" --unsafe-no-fsync --log-level=warn \
  --listen-client-urls="http://127.0.0.1:$ETCD_PORT" --advertise-client-urls="http://127.0.0.1:$ETCD_PORT" \
  --listen-peer-urls="http://127.0.0.1:$((ETCD_PORT + 1))" \
  --initial-advertise-peer-urls="http://127.0.0.1:$((ETCD_PORT + 1))" \
  --initial-cluster="default=http://127.0.0.1:$((ETCD_PORT + 1))"

start apiserver "$KONE_BIN/kube-apiserver" \
  --etcd-servers="http://127.0.0.1:$ETCD_PORT" \
  --bind-address="$HOST" --advertise-address="$HOST" --secure-port="$PORT" \
  --endpoint-reconciler-type="$([[ -n $KONE_NODES ]] && echo lease || echo none)" \
  --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
  --client-ca-file="$PKI/ca.crt" --authorization-mode=Node,RBAC \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --service-account-key-file="$PKI/sa.key" --service-account-signing-key-file="$PKI/sa.key" \
  --kubelet-client-certificate="$PKI/kubelet-client.crt" --kubelet-client-key="$PKI/kubelet-client.key" \
  --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
  --service-cluster-ip-range="$SVCNET.0/20" --allow-privileged=true \
  --default-not-ready-toleration-seconds="$KONE_EVICT" \
  --default-unreachable-toleration-seconds="$KONE_EVICT" \
  --max-requests-inflight=0 --max-mutating-requests-inflight=0 --enable-priority-and-fairness=false
until_ok 60 k get --raw /readyz || { tail -5 "$LOG/apiserver.log" >&2; exit 1; }
say "apiserver ready at $SERVER"

if [[ -z $KONE_NODES && -z $KONE_FAKE ]]; then exit 0; fi

start controller-manager "$KONE_BIN/kube-controller-manager" --kubeconfig="$CONF/controller-manager.kubeconfig" \
  --bind-address=127.0.0.1 --leader-elect=false --use-service-account-credentials \
  --root-ca-file="$PKI/ca.crt" --service-account-private-key-file="$PKI/sa.key" \
  --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
  --node-monitor-grace-period="${KONE_GRACE}s" --node-monitor-period=2s \
  --enable-hostpath-provisioner --kube-api-qps=500 --kube-api-burst=1000 \
  --concurrent-statefulset-syncs=20 ${KONE_KCM_FLAGS:-}
start scheduler "$KONE_BIN/kube-scheduler" --kubeconfig="$CONF/scheduler.kubeconfig" \
  --bind-address=127.0.0.1 --leader-elect=false --kube-api-qps=500 --kube-api-burst=1000
k apply -f "$HERE/cluster.yaml" >/dev/null

if [[ -n $KONE_FAKE ]]; then
  start kwok "$KONE_BIN/kwok" --kubeconfig="$CONF/admin.kubeconfig" \
    --manage-nodes-with-label-selector=type=kwok --node-lease-duration-seconds=40
fi

# --- DNS and nodes ----------------------------------------------------------
if [[ -n $KONE_NODES ]]; then
  cat >"$CONF/Corefile" <<COREFILE
.:53 {
    bind $HOST
    errors
    ready $HOST:8181
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $CONF/coredns.kubeconfig kone
        pods insecure
        ttl 1
    }
}
COREFILE
  start coredns "$KONE_BIN/coredns" -conf "$CONF/Corefile"
  pids=()
  for n in $KONE_NODES; do "$HERE/node.sh" up "$n" & pids+=($!); done
  for p in "${pids[@]}"; do wait "$p" || die "a node did not come up; its logs: $LOG"; done
  for n in $KONE_NODES; do until_ok 90 k wait --for=condition=Ready "node/$n" --timeout=1s; done
  say "nodes ready: $KONE_NODES"
fi
say "KUBECONFIG=$KUBECONFIG"
