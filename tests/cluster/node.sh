#!/usr/bin/env bash
# node.sh up|down|crash NODE - one node: containerd, kubelet, kube-proxy in the
# network namespace kone-NODE. "crash" ends it the hard way (link down, SIGKILL,
# containers included) so that the cluster sees a lost node; "up" brings it back.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
[[ $# == 2 ]] || die "usage: node.sh up|down|crash NODE"
n=$2 ns=kone-$2 d=$KONE_STATE/node/$2
ip=$(node_ip "$n"); cidr=$(node_pods "$n"); veth=kv-$n
CGROOT=kone-$n

cgroups() { # make (or list) the node's own cgroup in every mounted hierarchy
  local h
  for h in /sys/fs/cgroup/*/; do
    [[ -e $h/cgroup.procs ]] && mountpoint -q "$h" && echo "$h$CGROOT"
  done
  [[ -e /sys/fs/cgroup/cgroup.controllers ]] && echo "/sys/fs/cgroup/$CGROOT"
  return 0
}

kill_shims() { # the node's containers: kill what runs in its cgroups, then its shims
  local g p
  for g in $(cgroups); do
    [[ -d $g ]] || continue
    find "$g" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | xargs -r kill -KILL 2>/dev/null || true
  done
  for p in $(pgrep -f "containerd-shim.*$d/containerd\.sock"); do # shims name this node's socket
    kill -KILL "$p" 2>/dev/null || true
  done
}

unmount_all() { # mounts below the node's directory, deepest first
  awk -v d="$d/" 'index($5, d) == 1 {print $5}' /proc/self/mountinfo | sort -r |
    while read -r m; do umount -l "$m" 2>/dev/null || true; done
}

node_up() {
  mkdir -p "$d"/{containerd,run,cni,cni-state,kubelet,pods,manifests}
  # network: namespace, cable to the host's bridge, routes to every other node's pods
  if [[ ! -e /run/netns/$ns ]]; then
    ip link del "$veth" 2>/dev/null || true   # a dead namespace's sockets can keep its cable for a while
    ip netns add "$ns"
    ip link add "$veth" type veth peer name eth0 netns "$ns"
    ip link set "$veth" master "$BRIDGE"
    in_node "$n" ip link set lo up
    in_node "$n" ip addr add "$ip/24" dev eth0
    in_node "$n" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward
      echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || true'
  fi
  ip link set "$veth" up
  in_node "$n" ip link set eth0 up
  in_node "$n" ip route replace default via "$HOST"
  local o
  for o in $KONE_NODES; do
    if [[ $o != "$n" ]]; then in_node "$n" ip route replace "$(node_pods "$o")" via "$(node_ip "$o")"; fi
  done
  ip route replace "$cidr" via "$ip"                 # the host reaches pods ...
  if [[ $(number "$n") == 1 ]]; then ip route replace "$SVCNET.0/20" via "$ip"; fi # ... and ClusterIPs

  # containerd
  cat >"$d/cni/10-bridge.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
   "ipam": {"type": "host-local", "dataDir": "$d/cni-state", "ranges": [[{"subnet": "$cidr"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  cat >"$d/containerd.toml" <<TOML
version = 2
root = "$d/containerd"
state = "$d/run"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "$d/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  stream_server_address = "127.0.0.1"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true   # this machine's root lacks CAP_SYS_RESOURCE
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$KONE_CNI_BIN"
    conf_dir = "$d/cni"
TOML
  start "$n-containerd" nsenter --net="/run/netns/$ns" containerd --config "$d/containerd.toml"
  until_ok 20 ctr -a "$d/containerd.sock" version
  local img
  for img in "$KONE_IMAGES"/*.tar; do
    [[ $d/images/${img##*/} -nt $img ]] && continue
    ctr -a "$d/containerd.sock" -n k8s.io images import "$img" >/dev/null
    mkdir -p "$d/images" && touch "$d/images/${img##*/}"
  done

  # kubelet
  local g
  for g in $(cgroups); do
    mkdir -p "$g"
    if [[ -e $g/cpuset.cpus && -z $(cat "$g/cpuset.cpus") ]]; then
      cat "$g/../cpuset.cpus" >"$g/cpuset.cpus"; cat "$g/../cpuset.mems" >"$g/cpuset.mems"
    fi
    # A node counts as much as several busy processes of this machine's other users, not as one.
    if [[ -e $g/cpu.shares ]]; then echo 4096 >"$g/cpu.shares"; fi
    if [[ -e $g/cpu.weight ]]; then echo 400 >"$g/cpu.weight"; fi
  done
  cert "kubelet-$n" "/O=system:nodes/CN=system:node:$n" "DNS:$n,IP:$ip"
  kubeconfig "kubelet-$n"
  [[ -s $d/resolv.conf ]] || : >"$d/resolv.conf"
  cat >"$d/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $ip
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet-$n.crt
tlsPrivateKeyFile: $PKI/kubelet-$n.key
containerRuntimeEndpoint: unix://$d/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CGROOT
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [$HOST]
resolvConf: $d/resolv.conf
podLogsDir: $d/pods
staticPodPath: $d/manifests
volumePluginDir: $d/kubelet/volumeplugins
healthzBindAddress: 127.0.0.1
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 64Mi}
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
syncFrequency: 10s
fileCheckFrequency: 2s
maxPods: 200
serializeImagePulls: false
shutdownGracePeriod: 0s
YAML
  start "$n-kubelet" nsenter --net="/run/netns/$ns" "$KONE_BIN/kubelet" --config="$d/kubelet.yaml" \
    --kubeconfig="$CONF/kubelet-$n.kubeconfig" --root-dir="$d/kubelet" --cert-dir="$d/kubelet/pki" \
    --hostname-override="$n" --node-ip="$ip"

  # kube-proxy (conntrack limits are machine-wide: leave them alone)
  cat >"$d/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $CONF/proxy.kubeconfig}
hostnameOverride: $n
mode: ${KONE_PROXY_MODE:-iptables}
clusterCIDR: $PODNET.0.0/16
bindAddress: $ip
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 0.1s, syncPeriod: 30s}
YAML
  start "$n-proxy" nsenter --net="/run/netns/$ns" "$KONE_BIN/kube-proxy" --config="$d/proxy.yaml"
}

node_crash() {
  ip link set "$veth" down 2>/dev/null || true
  stop "$n-kubelet" KILL; stop "$n-proxy" KILL; stop "$n-containerd" KILL
  kill_shims
}

node_down() {
  stop "$n-kubelet" KILL; stop "$n-proxy" KILL
  kill_shims
  stop "$n-containerd" KILL
  sleep 0.2
  unmount_all
  ip route del "$cidr" 2>/dev/null || true
  ip link del "$veth" 2>/dev/null || true
  ip netns del "$ns" 2>/dev/null || true              # takes cni0 and all rules with it
  local g
  for g in $(cgroups); do
    if [[ -d $g ]]; then find "$g" -depth -type d -exec rmdir {} + 2>/dev/null || true; fi
  done
  find /var/log/containers -lname "$d/*" -delete 2>/dev/null || true   # kubelet's fixed place for links
  rm -rf --one-file-system "$d"
}

case $1 in up | down | crash) "node_$1" ;; *) die "unknown verb $1" ;; esac
