#!/usr/bin/env bash
# down.sh - stop everything up.sh started and remove its state.
# KONE_KEEP=1 keeps certificates and logs.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
volumes=
if [[ -s $KUBECONFIG ]]; then
  volumes=$(timeout 5 "$KONE_BIN/kubectl" get pv -o 'jsonpath={..hostPath.path}' 2>/dev/null || true)
fi
for n in $KONE_NODES; do "$HERE/node.sh" down "$n"; done
# Killed, not asked: the state goes too, and a polite apiserver waits for its watchers.
for p in coredns kwok scheduler controller-manager apiserver etcd; do stop "$p" KILL; done
if [[ -n $KONE_NODES ]]; then              # an API server alone may run beside a cluster with nodes
  ip route del "$SVCNET.0/20" 2>/dev/null || true
  ip link del "$BRIDGE" 2>/dev/null || true
fi
for v in $volumes; do                      # made by --enable-hostpath-provisioner
  if [[ $v == /tmp/hostpath_pv/?* ]]; then rm -rf "$v"; fi
done
if [[ -s $KONE_STATE/sysctl ]]; then sysctl -q -p "$KONE_STATE/sysctl" || true; fi
rm -rf "$KONE_STATE/etcd" "$PID"
if [[ -z ${KONE_KEEP:-} ]]; then rm -rf "$KONE_STATE"; fi
