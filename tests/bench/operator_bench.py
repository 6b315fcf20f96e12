"""The operator at scale: 1,000 PipelineDeployments of 4 ranks against a real API server.

    operator_bench.py [--json FILE] [--count 1000] [--rounds 3] [--only writes fleet failover start]

writes    all objects written, against a bare client with as many requests in flight. Only etcd and the API server run.
fleet     with Kubernetes' controllers and KWOK's nodes, 4,000 pods ready: peak memory, also after the API server was
          killed and everything is listed again; CPU time of a reconcile. Heads are a responder on loopback.
failover  the leader told to stop, and killed; leases of 10 and of 2 s
start     from exec to the first reconcile with a free lease

Needs `make deps-cluster` and the programs echelon-operator and echelon-operator-writes; no root.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import figures

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/e2e")]

from kube import BUILD, DEPS, PATHS, Cluster, condition, wait_until  # noqa: E402
from ports import free_port  # noqa: E402

BIN = pathlib.Path(os.environ.get("ECHELON_BIN", BUILD / "bin"))
OBJECTS = ("services", "controllerrevisions", "poddisruptionbudgets", "networkpolicies", "statefulsets")
IN_FLIGHT = 16
RANKS = 4
AIMS = {
    "operator over bare client": 1.3,
    "peak memory at 4,000 pods, MB": 64.0,
    "CPU of a reconcile, median, ms": 1.0,
    "CPU of a reconcile, longest, ms": 50.0,
    "leader told to stop, s": 1.0,
    "leader killed, lease of 10 s, s": 11.0,
    "leader killed, lease of 2 s, s": 3.0,
    "exec to first reconcile, ms": 200.0,
}


@contextlib.contextmanager
def control_plane(fake):
    """etcd and the API server; with KWOK's nodes also Kubernetes' own controllers."""
    with tempfile.TemporaryDirectory(prefix="echelon-bench-", ignore_cleanup_errors=True) as state:
        ports = {"KONE_PORT": str(free_port()), "KONE_ETCD_PORT": str(free_port(2))}
        cluster = Cluster(state, DEPS / "kube", KONE_NODES="", KONE_FAKE="1" if fake else "", **ports)
        try:
            cluster.up()
            cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds/pipelinedeployments.yaml"))
            wait_until(lambda: cluster.read("/apis/echelon.dev/v1alpha1") is not None, "the CRD is served", 20)
            cluster.kubectl("create", "namespace", "system")
            yield cluster
        finally:
            cluster.down()


class Counter:
    """How many objects of a kind there are, by one connection and a page of one."""

    def __init__(self, cluster, namespace):
        self.connection, self.namespace = cluster.connect(timeout_s=30), namespace

    def __call__(self, kind):
        self.connection.request("GET", f"{PATHS[kind]}/namespaces/{self.namespace}/{kind}?limit=1")
        listed = json.loads(self.connection.getresponse().read())
        return len(listed["items"]) + listed["metadata"].get("remainingItemCount", 0)

    def wait(self, wanted, within_s):
        """{kind: number} are there."""
        for kind, number in wanted.items():
            wait_until(lambda k=kind, n=number: self(k) >= n, f"{number} {kind} in {self.namespace}", within_s)


class Operator:
    """One process of it; `flags` are added."""

    def __init__(self, cluster, *flags, lease_s=10):
        self.metrics_port, self.log = free_port(), tempfile.TemporaryFile("w+")
        words = [BIN / "echelon-operator", "run", "--runtime-image=localhost/runtime:1", "--exporter-image=localhost/exporter:1"]
        words += [f"--kubeconfig={cluster.env['KUBECONFIG']}", "--lease-namespace=system", f"--lease-seconds={lease_s}"]
        words += [f"--workers-in-flight={IN_FLIGHT}", f"--metrics-port={self.metrics_port}", f"--health-port={free_port()}"]
        self.began = time.monotonic()
        self.child = subprocess.Popen([*words, *flags], stdout=self.log, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end(signal.SIGKILL)

    def end(self, how):
        if self.child.poll() is None:
            self.child.send_signal(how)
        self.child.wait(timeout=30)

    def metrics(self):
        """{name and labels: value}; empty before it listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            assert self.child.poll() is None, f"the operator ended: {self.said()}"
            return {}
        return {m[1]: float(m[2]) for m in re.finditer(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)}

    def metric(self, name):
        return sum(value for key, value in self.metrics().items() if key.split("{")[0] == name)

    def created(self):
        return sum(n for key, n in self.metrics().items() if "requests_total" in key and 'verb="create"' in key and 'code="201"' in key)

    def said(self):
        self.log.seek(0)
        return self.log.read()[-2000:]

    def peak_mb(self):
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1000

    def reconciles(self):
        return self.metric("echelon_operator_reconcile_cpu_seconds_count")


def template(folder, source):
    """One PipelineDeployment for echelon-operator-writes, which gives it its name."""
    file = pathlib.Path(folder) / "deployment.json"
    spec = {"model": {"source": source, "path": "net.pt2"}, "parallelism": {"stages": RANKS}}
    file.write_text(json.dumps({"apiVersion": "echelon.dev/v1alpha1", "kind": "PipelineDeployment", "spec": spec}))
    return file


def writes(cluster, *words):
    """Runs the bare client; the seconds from exec to end."""
    began = time.monotonic()
    words = [BIN / "echelon-operator-writes", f"--kubeconfig={cluster.env['KUBECONFIG']}", f"--in-flight={IN_FLIGHT}", *words]
    subprocess.run([str(w) for w in words], check=True, stdout=subprocess.DEVNULL, timeout=600)
    return time.monotonic() - began


def make_deployments(cluster, namespace, count):
    cluster.kubectl("create", "namespace", namespace)
    file = template(cluster.state, {"type": "HostPath", "hostPath": {"path": "/models"}})
    writes(cluster, f"--namespace={namespace}", "deployments", f"--count={count}", f"--template={file}")


def all_objects(count):
    return {kind: count * (2 if kind == "services" else 1) for kind in OBJECTS}


def bench_writes(args):
    """In each round the bare client, the operator, the bare client again: the two of a kind are the noise."""
    rows, seconds = [], {"bare client": [], "operator": [], "bare client (control)": []}
    for turn in range(args.rounds):
        for variant in seconds:
            # Each has a server of its own: the more Services there are, the longer it looks for a free address.
            with control_plane(fake=False) as cluster:
                make_deployments(cluster, "fleet", args.count)
                counter = Counter(cluster, "fleet")
                if variant == "operator":
                    with Operator(cluster, "--namespace=fleet", "--status-host=127.0.0.1") as operator:
                        # By its own word, which costs the API server nothing; then by count.
                        everything = sum(all_objects(args.count).values())
                        wait_until(lambda o=operator, n=everything: o.created() >= n, "all is written", 600, every_s=0.2)
                        took = time.monotonic() - operator.began
                        counter.wait(all_objects(args.count), 10)
                        operator.end(signal.SIGTERM)
                else:
                    took = writes(cluster, "--namespace=fleet", "objects")
                    counter.wait(all_objects(args.count), 10)
            seconds[variant].append(took)
            print(f"  round {turn}, {variant}: {took:.2f} s", flush=True)
    total = sum(all_objects(args.count).values())
    for variant, took in seconds.items():
        middle = figures.median(took)
        rows.append({"part": "writes", "what": f"{variant}: {total:,} objects", "value": round(middle, 2), "unit": "s"})
    ratio = figures.median(figures.ratios(seconds["operator"], seconds["bare client"]))
    noise = figures.noise(figures.ratios(seconds["bare client (control)"], seconds["bare client"])) if args.rounds > 1 else 0
    return rows, [aim("operator over bare client", ratio, noise)]


class Responder:
    """Answers every GET as the head of a formed group of 4 does, on loopback."""

    BODY = json.dumps(
        {
            "model": "net", "rank": 0, "world": RANKS, "revision": "", "digest": "", "epoch": 1, "formed": True, "draining": False,
            "ranks": [
                {"rank": r, "phase": "ready", "address": "", "incarnation": "", "loadedBytes": 1000, "totalBytes": 1000, "joins": 1,
                 "lastError": ""}
                for r in range(RANKS)
            ],
        }
    )  # fmt: skip

    def __enter__(self):
        import asyncio

        answer = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(self.BODY)}\r\n\r\n{self.BODY}"
        self.count, started = 0, threading.Event()

        async def serve(reader, writer):
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    asked = await reader.readuntil(b"\r\n\r\n")
                    self.count += 1
                    writer.write(answer.encode())
                    await writer.drain()
                    if b"connection: close" in asked.lower():
                        break
            writer.close()

        async def listen():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await server.serve_forever()

        threading.Thread(target=lambda: asyncio.run(listen()), daemon=True).start()
        started.wait(10)
        return self

    def __exit__(self, *_):
        pass


def make_nodes(cluster, count):
    room = {"cpu": "64", "memory": "256Gi", "pods": "250"}
    node = {"apiVersion": "v1", "kind": "Node", "status": {"allocatable": room, "capacity": room}}
    cluster.apply(
        *(
            node | {"metadata": {
                "name": f"fake-{i}", "labels": {"type": "kwok", "kubernetes.io/hostname": f"fake-{i}"},
                "annotations": {"kwok.x-k8s.io/node": "fake"},
            }}
            for i in range(count)
        )
    )  # fmt: skip


def bench_fleet(args):
    rows, namespace = [], "fleet"
    with control_plane(fake=True) as cluster, Responder() as responder:
        make_nodes(cluster, 20)
        make_deployments(cluster, namespace, args.count)
        flags = ("--status-host=127.0.0.1", f"--status-port={responder.port}")
        with Operator(cluster, *flags) as operator:
            everything_is_available(cluster, namespace, args.count, operator)
            rows.append(row("fleet", f"{args.count:,} PipelineDeployments, {args.count * RANKS:,} pods: all Available", time.monotonic() - operator.began, "s"))
            settle(operator)
            rows.append(row("fleet", "peak memory then", operator.peak_mb(), "MB"))
            watches = operator.metric("echelon_operator_watches_opened")
            pid = int((cluster.state / "pid/apiserver").read_text().split()[0])
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists(), "the API server is gone", 10)
            cluster.up()
            settle(operator)
            rows.append(row("fleet", "watches opened anew after the API server was killed", operator.metric("echelon_operator_watches_opened") - watches, ""))
            peak = operator.peak_mb()
            metrics = operator.metrics()
            median_ms, longest_ms = reconcile_cpu_ms(metrics)
            rows.append(row("fleet", "reconciles", operator.reconciles(), ""))
            rows.append(row("fleet", "polls answered by the responder", responder.count, ""))
            operator.end(signal.SIGTERM)
        with Operator(cluster, *flags) as operator:
            settle(operator)
            rows.append(row("fleet", "peak memory of one that is started anew", operator.peak_mb(), "MB"))
            peak = max(peak, operator.peak_mb())
    return rows, [
        aim("peak memory at 4,000 pods, MB", peak),
        aim("CPU of a reconcile, median, ms", median_ms),
        aim("CPU of a reconcile, longest, ms", longest_ms),
    ]


def everything_is_available(cluster, namespace, count, operator):
    def number():
        listed = cluster.read(f"/apis/echelon.dev/v1alpha1/namespaces/{namespace}/pipelinedeployments?resourceVersion=0")
        assert operator.child.poll() is None, f"the operator ended: {operator.said()}"
        return sum(condition(item, "Available") == "True" for item in listed["items"])

    pause, deadline = threading.Event(), time.monotonic() + 900
    while (there := number()) < count:
        assert time.monotonic() < deadline, f"only {there} of {count} are Available; the operator says: {operator.said()}"
        pause.wait(1)


def settle(operator, quiet_s=5):
    """Until it has listed everything and written nothing for some seconds."""
    pause, last, since = threading.Event(), -1, time.monotonic()
    deadline = time.monotonic() + 300
    while time.monotonic() - since < quiet_s:
        assert time.monotonic() < deadline, f"it does not come to rest: {operator.said()}"
        pause.wait(0.5)
        now = operator.metric("echelon_operator_requests_total")
        if now != last or not operator.metric("echelon_operator_synced") or operator.metric("echelon_operator_working_objects"):
            last, since = now, time.monotonic()


def reconcile_cpu_ms(metrics):
    """Median, by the histogram's buckets (an upper bound), and the longest."""
    buckets = sorted(
        (float(m[1].replace("+Inf", "inf")), value)
        for key, value in metrics.items()
        if (m := re.search(r'reconcile_cpu_seconds_bucket\{.*le="([^"]+)"', key))
    )
    half = buckets[-1][1] / 2
    median = next(bound for bound, count in buckets if count >= half)
    longest = max(value for key, value in metrics.items() if "reconcile_cpu_max_seconds" in key)
    return median * 1000, longest * 1000


def bench_failover(args):
    bars, rows = [], []
    with control_plane(fake=False) as cluster:
        make_deployments(cluster, "few", 3)
        for what, how, lease_s in (
            ("leader told to stop, s", signal.SIGTERM, 10),
            ("leader killed, lease of 10 s, s", signal.SIGKILL, 10),
            ("leader killed, lease of 2 s, s", signal.SIGKILL, 2),
        ):
            seen = [failover(cluster, how, lease_s) for _ in range(args.failovers)]
            rows.append(row("failover", f"{what.removesuffix(', s')}: the other's first reconcile after, longest of {len(seen)}", max(seen), "s"))
            bars.append(aim(what, max(seen)))
            cluster.kubectl("delete", "lease", "--all", "-n", "system")
    return rows, bars


def failover(cluster, how, lease_s):
    with Operator(cluster, lease_s=lease_s) as first:
        wait_until(first.reconciles, "the first leads", 30)
        with Operator(cluster, lease_s=lease_s) as second:
            wait_until(lambda: second.metric("echelon_operator_synced"), "the second has listed everything", 30)
            threading.Event().wait(1.5)
            assert not second.reconciles()
            began = time.monotonic()
            first.child.send_signal(how)
            first_reconcile(second)
            took = time.monotonic() - began
            second.end(signal.SIGTERM)
    return took


def first_reconcile(operator, within_s=60):
    deadline, pause = time.monotonic() + within_s, threading.Event()
    while not operator.reconciles():
        assert time.monotonic() < deadline, f"no reconcile within {within_s} s: {operator.said()}"
        pause.wait(0.002)


def bench_start(args):
    seen = []
    with control_plane(fake=False) as cluster:
        make_deployments(cluster, "few", 3)
        for _ in range(args.starts + 1):
            with Operator(cluster) as operator:
                first_reconcile(operator)
                seen.append((time.monotonic() - operator.began) * 1000)
                operator.end(signal.SIGTERM)
    seen = seen[1:]  # the first reads the program from disk
    rows = [row("start", f"exec to first reconcile, longest of {len(seen)}", max(seen), "ms")]
    return rows, [aim("exec to first reconcile, ms", figures.median(seen))]


def row(part, what, value, unit):
    print(f"  {what}: {value:.2f} {unit}", flush=True)
    return {"part": part, "what": what, "value": round(value, 2), "unit": unit}


def aim(what, seen, noise=0.0):
    """As a ratio of which more is better, as bars.py wants it, and as it is."""
    bar = figures.Bar(f"operator: {what} (at most)", 1.0, AIMS[what] / seen, noise)
    verdict = "met" if bar.seen >= 1 else "missed"
    print(f"  {what}: {seen:.2f}, aim {AIMS[what]}: {verdict}", flush=True)
    return bar.row() | {"aim": AIMS[what], "seen": round(seen, 3), "verdict": verdict}


PARTS = {"writes": bench_writes, "fleet": bench_fleet, "failover": bench_failover, "start": bench_start}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--failovers", type=int, default=3)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    rows, bars = [], []
    for part in args.only:
        print(f"{part}:", flush=True)
        more, judged = PARTS[part](args)
        rows += more
        bars += judged
    print(figures.table(rows))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"rows": rows, "bars": bars}, indent=1) + "\n")


if __name__ == "__main__":
    main()
