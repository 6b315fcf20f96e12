"""The cluster as tests see it: kubectl as users run it, and watches that say when something became true."""

import http.client
import json
import os
import pathlib
import ssl
import subprocess
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("ECHELON_BUILD", ROOT / "build"))
DEPS = pathlib.Path(os.environ.get("ECHELON_DEPS", ROOT / ".deps"))
SCRIPTS = ROOT / "tests/cluster"
GROUP = "/apis/echelon.dev/v1alpha1"
PATHS = {  # where the kinds that tests read are served
    "pods": "/api/v1",
    "services": "/api/v1",
    "events": "/api/v1",
    "persistentvolumeclaims": "/api/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "endpointslices": "/apis/discovery.k8s.io/v1",
    "jobs": "/apis/batch/v1",
    "statefulsets": "/apis/apps/v1",
    "deployments": "/apis/apps/v1",
    "controllerrevisions": "/apis/apps/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "pipelinedeployments": GROUP,
}


class Cluster:
    """The one of tests/cluster/. Not for several threads at once, watches aside."""

    def __init__(self, state=BUILD / "cluster", bin_dir=DEPS / "kube", **settings):
        self.state, self.bin = pathlib.Path(state), pathlib.Path(bin_dir)
        self.env = os.environ | {"KONE_STATE": str(state), "KONE_BIN": str(bin_dir)} | settings
        self.env["KUBECONFIG"] = str(self.state / "conf/admin.kubeconfig")

    def script(self, name, *words, within_s=240):
        run([SCRIPTS / name, *words], env=self.env, within_s=within_s)

    def up(self):
        self.script("up.sh", within_s=300)

    def down(self):
        self.script("down.sh")

    def crash(self, node):
        self.script("node.sh", "crash", node)

    def restore(self, node):
        self.script("node.sh", "up", node)
        with self.watch("nodes") as nodes:
            nodes.first(lambda o: name_of(o) == node and condition(o, "Ready") == "True", f"node {node} is Ready", 90)

    def kubectl(self, *words, given=None, within_s=120):
        """What it prints; fails with its error."""
        return run([self.bin / "kubectl", *words], env=self.env, given=given, within_s=within_s)

    def refusal(self, *words, given=None):
        """The error of a kubectl that must fail."""
        done = subprocess.run(
            [self.bin / "kubectl", *words], env=self.env, input=given, capture_output=True, text=True, timeout=60
        )
        assert done.returncode != 0, f"kubectl {' '.join(words)} was to be refused, but: {done.stdout}"
        return done.stderr.strip()

    def helm(self, *words, within_s=180):
        return run([self.bin / "helm", *words], env=self.env, within_s=within_s)

    def apply(self, *objects):
        self.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def read(self, path):
        """The JSON at this path of the API; None where there is nothing."""
        connection = self.connect(timeout_s=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status == 404:
            return None
        assert answer.status == 200, f"GET {path}: {answer.status} {body[:300]!r}"
        return json.loads(body)

    def get(self, kind, name, namespace):
        return self.read(f"{PATHS[kind]}/namespaces/{namespace}/{kind}/{name}")

    def list(self, kind, namespace, selector=""):
        return self.read(path_of(kind, namespace) + "?" + query(selector))["items"]

    def watch(self, kind, namespace=None, selector=""):
        return Watch(self, path_of(kind, namespace), selector)

    def connect(self, timeout_s):
        pki = self.state / "pki"
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        server = next(
            line.split('server: "')[1].split('"')[0]
            for line in pathlib.Path(self.env["KUBECONFIG"]).read_text().splitlines()
            if "server:" in line
        )
        where = urllib.parse.urlparse(server)
        return http.client.HTTPSConnection(where.hostname, where.port, context=context, timeout=timeout_s)

    def kill_container(self, pod, signal="SIGKILL"):
        """From outside, since process 1 of a container ignores what comes from inside."""
        identity = pod["status"]["containerStatuses"][0]["containerID"].split("//")[1]
        socket = self.state / "node" / pod["spec"]["nodeName"] / "containerd.sock"
        run(["ctr", "-a", socket, "-n", "k8s.io", "task", "kill", "-s", signal, identity], within_s=20)


class Watch:
    """Everything that happens to the objects of one kind from now on, with its moment.

    with cluster.watch("pods", "e2e") as pods: ... pods.first(is_ready, "a pod is ready", within_s=30)
    """

    def __init__(self, cluster, path, selector):
        self.cluster, self.path, self.selector = cluster, path, selector
        self.seen, self.failure, self.ending = [], None, False  # seen: (moment, type, object)
        self.news = threading.Condition()

    def __enter__(self):
        listed = self.cluster.read(f"{self.path}?{query(self.selector)}")
        now = time.monotonic()
        self.seen = [(now, "ADDED", item) for item in listed["items"]]
        self.connection = self.cluster.connect(timeout_s=900)
        more = {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"]}
        self.connection.request("GET", f"{self.path}?{query(self.selector, **more)}")
        self.answer = self.connection.getresponse()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending = True
        self.connection.sock.shutdown(2) if self.connection.sock else self.answer.close()
        self.thread.join(timeout=10)

    def _follow(self):
        try:
            for line in self.answer:
                event = json.loads(line)
                with self.news:
                    self.seen.append((time.monotonic(), event["type"], event["object"]))
                    self.news.notify_all()
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            self.failure = error
        with self.news:
            self.failure = self.failure or EOFError("the watch ended")
            self.news.notify_all()

    def first(self, is_it, what, within_s, since=None, types=("ADDED", "MODIFIED")):
        """The moment and the object of the first event, not before `since`, that fulfils the predicate."""
        deadline, at = time.monotonic() + within_s, 0
        with self.news:
            while True:
                while at < len(self.seen):
                    moment, kind, item = self.seen[at]
                    at += 1
                    if (since is None or moment >= since) and kind in types and is_it(item):
                        return moment, item
                left = deadline - time.monotonic()
                assert left > 0, f"not within {within_s:.0f} s: {what}; the last seen of {self.path}: {self._last()}"
                assert self.failure is None, f"waiting for {what}: {self.failure!r}"
                self.news.wait(left)

    def now(self):
        """{name: object} of what is there, as far as the watch has told."""
        there = {}
        with self.news:
            for _, kind, item in self.seen:
                if kind == "DELETED":
                    there.pop(name_of(item), None)
                elif kind != "BOOKMARK":
                    there[name_of(item)] = item
        return there

    def until(self, is_it, what, within_s):
        """Waits until the objects that are there, {name: object}, fulfil the predicate; the moment it was seen."""
        deadline = time.monotonic() + within_s
        while True:
            with self.news:
                count = len(self.seen)
            there = self.now()
            if is_it(there):
                return time.monotonic()
            with self.news:
                left = deadline - time.monotonic()
                assert left > 0, f"not within {within_s:.0f} s: {what}; there are {sorted(there)}; {self._last()}"
                assert self.failure is None, f"waiting for {what}: {self.failure!r}"
                if len(self.seen) == count:
                    self.news.wait(left)

    def _last(self):
        if not self.seen:
            return "nothing"
        _, kind, item = self.seen[-1]
        return f"{kind} {name_of(item)} {json.dumps(item.get('status', {}))[:1500]}"


def run(words, env=None, given=None, within_s=120):
    """Its standard output; fails with what it said."""
    done = subprocess.run([str(w) for w in words], env=env, input=given, capture_output=True, text=True, timeout=within_s)
    said = (done.stderr or done.stdout).strip()[-2000:]
    assert done.returncode == 0, f"{' '.join(str(w) for w in words)[:300]}: status {done.returncode}: {said}"
    return done.stdout


def path_of(kind, namespace):
    base = PATHS.get(kind, "/api/v1")
    return f"{base}/namespaces/{namespace}/{kind}" if namespace else f"{base}/{kind}"


def query(selector, **more):
    return urllib.parse.urlencode(({"labelSelector": selector} if selector else {}) | more)


def name_of(item):
    return item.get("metadata", {}).get("name", "")


def condition(item, kind):
    """True, False, Unknown, or None where there is no such condition."""
    found = condition_of(item, kind)
    return found["status"] if found else None


def condition_of(item, kind):
    return next((c for c in item.get("status", {}).get("conditions", []) if c["type"] == kind), None)


def wait_until(is_it, what, within_s, every_s=0.05):
    """The condition's first true value; for what no watch tells."""
    deadline, pause = time.monotonic() + within_s, threading.Event()
    while not (value := is_it()):
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        pause.wait(every_s)
    return value
