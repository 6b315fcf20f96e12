"""A PipelineDeployment as a test drives it."""

import json
import pathlib
import socket
import subprocess
import sys

from kube import BUILD, ROOT, condition, condition_of, name_of, wait_until

sys.path.append(str(ROOT / "tests/process"))
from clients import Client  # noqa: E402

NAMESPACE = "e2e"
SERVICE_S = 5  # a change of a Service's endpoints reaches each node within
ECHELON = BUILD / "bin/echelon"


def manifest(name, path="v1/net.pt2", stages=2, **spec):
    """The object of the quick start, with other fields where a test needs them."""
    model = {"source": {"type": "PVC", "pvc": {"claimName": "models"}}, "path": path} | spec.pop("model", {})
    parallelism = {"stages": stages} | spec.pop("parallelism", {})
    quiet = {"name": "stage", "env": [{"name": "OMP_NUM_THREADS", "value": "1"}]}  # several ranks share two cores here
    return {
        "apiVersion": "echelon.dev/v1alpha1",
        "kind": "PipelineDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "model": model,
            "parallelism": parallelism,
            "template": {"spec": {"containers": [quiet]}},
        }
        | spec,
    }


class Endpoints:
    def __init__(self, host, name):
        self.http, self.grpc, self.name = f"{host}:8000", f"{host}:8001", name


def takes_connections(address):
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=0.5).close()
    except OSError:
        return False
    return True


class Pipeline:
    """One that was applied: `pipelines(manifest)` of the fixture makes it and removes it."""

    def __init__(self, cluster, name, model, namespace=NAMESPACE):
        self.cluster, self.name, self.model, self.namespace = cluster, name, model, namespace
        self.selector = f"echelon.dev/deployment={name}"

    def read(self):
        return self.cluster.get("pipelinedeployments", self.name, self.namespace)

    def pods(self):
        """Those of all groups, by name: of a group in the order of ranks."""
        return sorted(self.cluster.list("pods", self.namespace, self.selector), key=name_of)

    def listed(self, kind):
        return self.cluster.list(kind, self.namespace, self.selector)

    def watch(self, kind="pipelinedeployments"):
        """Of the object itself, or of what is made for it."""
        if kind == "pipelinedeployments":
            return OwnWatch(self)
        return self.cluster.watch(kind, self.namespace, self.selector)

    def patch(self, spec):
        self.cluster.kubectl(
            "patch", "pipelinedeployment", self.name, "-n", self.namespace, "--type=merge", "-p", json.dumps({"spec": spec})
        )

    def wait_available(self, within_s=120):
        with self.watch() as own:
            return own.first(is_settled, f"{self.name} is available", within_s)[1]

    def endpoints(self):
        service = self.cluster.get("services", self.name, self.namespace)
        assert service, f"there is no Service {self.name}"
        endpoints = Endpoints(service["spec"]["clusterIP"], self.model)
        # kube-proxy hears of a ready head no sooner than the operator does. A SYN that comes amid its rules is lost, and so is
        # each repetition, which takes the same way; a new connection's is not.
        wait_until(lambda: takes_connections(endpoints.grpc), f"the Service {self.name} takes connections", SERVICE_S)
        return endpoints

    def client(self, kind="grpc", timeout_s=30):
        return Client(kind, self.endpoints(), timeout_s=timeout_s)

    def ask(self, inputs, outputs=(), kind="grpc"):
        with self.client(kind) as client:
            return client.infer(inputs, outputs)

    def status(self):
        """What the head itself says."""
        import urllib.request

        with urllib.request.urlopen(f"http://{self.endpoints().http}/status", timeout=5) as answer:
            return json.loads(answer.read())

    def generate(self, prompt, *flags):
        words = [ECHELON, "generate", self.endpoints().grpc, prompt, *flags]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def delete(self):
        self.cluster.kubectl("delete", "pipelinedeployment", self.name, "-n", self.namespace, "--ignore-not-found")

    def wait_gone(self, within_s=90):
        """Object, pods and all that was made for it."""
        kinds = ("pods", "statefulsets", "services", "controllerrevisions", "poddisruptionbudgets", "networkpolicies", "jobs")
        wait_until(
            lambda: not any(self.listed(kind) for kind in kinds), f"nothing of {self.name} is left", within_s
        )


class OwnWatch:
    """A watch of one object: the others' events are left out."""

    def __init__(self, pipeline):
        self.name = pipeline.name
        self.inner = pipeline.cluster.watch("pipelinedeployments", pipeline.namespace)

    def __enter__(self):
        self.inner.__enter__()
        return self

    def __exit__(self, *what):
        self.inner.__exit__(*what)

    def first(self, is_it, what, within_s, **more):
        return self.inner.first(lambda item: name_of(item) == self.name and is_it(item), what, within_s, **more)


def is_current(item):
    """The status is that of this spec."""
    return item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"]


def is_settled(item):
    """All replicas of the current revision serve, every rank of them, and nothing of another one is left."""
    progressing = condition_of(item, "Progressing") or {}
    return (
        is_current(item)
        and progressing.get("observedGeneration") == item["metadata"]["generation"]
        and progressing.get("reason") == "Complete"
        and condition(item, "Available") == "True"
        and condition(item, "Degraded") == "False"
    )


def container_ids(pods):
    return {name_of(pod): pod["status"]["containerStatuses"][0]["containerID"] for pod in pods}


def uids(pods):
    return {name_of(pod): pod["metadata"]["uid"] for pod in pods}


def is_ready(pod):
    return condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def nodes(pods):
    return {pod["spec"].get("nodeName") for pod in pods}


def folder():
    made = pathlib.Path(BUILD) / "test/e2e"
    made.mkdir(parents=True, exist_ok=True)
    return made
