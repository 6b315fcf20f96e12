"""The chart as users install it, and the operators that it starts."""

import json
import tarfile
import time

from kube import BUILD, ROOT, condition, name_of

CHART = ROOT / "charts/echelon"
SYSTEM = "echelon-system"
LEASE = "echelon-operator"


def images():
    """{role: image} of the docker archives that the nodes have loaded."""
    found = {}
    for archive in sorted((BUILD / "images").glob("*.tar")):
        with tarfile.open(archive) as files:
            tags = json.load(files.extractfile("manifest.json"))[0]["RepoTags"]
        for role in ("operator", "runtime", "exporter"):
            if role in archive.name and "cuda" not in archive.name:
                found[role] = tags[0]
    return found


class Release:
    def __init__(self, cluster):
        self.cluster = cluster

    def values(self, **more):
        wanted = images() | more
        return [word for role, image in wanted.items() for word in ("--set-string", f"images.{role}={image}")]

    def install(self):
        self.cluster.helm(
            "install", "echelon", CHART, "-n", SYSTEM, "--create-namespace", "--wait", "--timeout=120s", *self.values()
        )

    def upgrade(self, **other_images):
        """A new release of the chart: new operator pods, and perhaps another image for what they make."""
        turn = ["--set-string", f"podAnnotations.example\\.dev/turn={time.monotonic()}"]
        self.cluster.helm(
            "upgrade", "echelon", CHART, "-n", SYSTEM, "--wait", "--timeout=120s", *self.values(**other_images), *turn
        )

    def uninstall(self):
        self.cluster.helm("uninstall", "echelon", "-n", SYSTEM, "--wait", "--timeout=120s")

    def operators(self):
        return self.cluster.list("pods", SYSTEM, "app.kubernetes.io/name=echelon-operator")

    def holder(self):
        """Who holds the lease: UID of the pod and a random part; empty when nobody does."""
        lease = self.cluster.get("leases", LEASE, SYSTEM)
        return (lease or {}).get("spec", {}).get("holderIdentity") or ""

    def leader(self):
        holder = self.holder()
        found = [pod for pod in self.operators() if pod["metadata"]["uid"] in holder]
        assert found, f"the lease's holder {holder!r} is none of {[name_of(p) for p in self.operators()]}"
        return found[0]

    def leads(self):
        """One of the pods that are there holds the lease."""
        return any(pod["metadata"]["uid"] in self.holder() for pod in self.operators())

    def all_ready(self):
        return all(condition(pod, "Ready") == "True" for pod in self.operators())
