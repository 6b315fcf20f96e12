"""One cluster, one release of the chart, for all tests of the session; each test has a PipelineDeployment of its own.

Where a test fails, build/test/e2e/TEST.txt says what the cluster looked like. The times that were measured are printed at
the end and lie in build/test/e2e/figures.json. ECHELON_E2E_KEEP=1 leaves the cluster running.
"""

import json
import os
import pathlib
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import models  # noqa: E402
from kube import BUILD, Cluster, name_of  # noqa: E402
from pipelines import NAMESPACE, Pipeline, folder  # noqa: E402
from release import Release, images  # noqa: E402

ORDER = ["test_serving", "test_refusals", "test_changes", "test_failures", "test_operator", "test_removal"]


def pytest_configure(config):
    config.addinivalue_line("markers", "short: part of the short form, which CI always runs")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.index(item.module.__name__))


class Figures:
    """What was measured, against what was promised."""

    def __init__(self):
        self.rows = []

    def add(self, what, value, bar=None, unit="s"):
        self.rows.append({"what": what, "value": round(value, 2), "bar": bar, "unit": unit})
        if bar is not None:
            assert value <= bar, f"{what}: {value:.2f} {unit}, promised {bar:.2f}"

    def table(self):
        for row in self.rows:
            bar = "" if row["bar"] is None else f"at most {row['bar']:.1f}"
            yield f"  {row['what']:84} {row['value']:8.2f} {row['unit']:4} {bar}"


FIGURES = Figures()


@pytest.fixture(scope="session")
def figures():
    return FIGURES


def pytest_sessionfinish(session):
    if FIGURES.rows:
        (folder() / "figures.json").write_text(json.dumps(FIGURES.rows, indent=1))


def pytest_terminal_summary(terminalreporter):
    if FIGURES.rows:
        terminalreporter.write_line("measured:")
        for line in FIGURES.table():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def cluster(request):
    made = Cluster()
    request.config.echelon_cluster = made
    assert images(), f"no images in {BUILD / 'images'}; run: make images"
    began = time.monotonic()
    try:
        made.up()
        FIGURES.add("cluster up, images loaded on both nodes", time.monotonic() - began)
        yield made
    finally:
        if not os.environ.get("ECHELON_E2E_KEEP"):
            made.down()


@pytest.fixture(scope="session")
def before(cluster):
    """What is there before anything of ours is."""
    return cluster_objects(cluster)


def cluster_objects(cluster):
    """kind/namespace/name of all that can be listed, but for what Kubernetes itself makes and forgets."""
    passing = ("events", "events.events.k8s.io", "endpointslices.discovery.k8s.io", "leases.coordination.k8s.io/kube-node-lease")
    kinds = cluster.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    listed = cluster.kubectl(
        "get", ",".join(k for k in kinds if k not in passing), "-A", "--ignore-not-found", "-o",
        'jsonpath={range .items[*]}{.kind}{"/"}{.metadata.namespace}{"/"}{.metadata.name}{"\\n"}{end}',
    )  # fmt: skip
    return {line for line in listed.splitlines() if line and "kube-node-lease" not in line}


@pytest.fixture(scope="session")
def release(cluster, before):
    """helm install, once."""
    installed = Release(cluster)
    began = time.monotonic()
    installed.install()
    FIGURES.add("helm install until both operators are ready", time.monotonic() - began)
    return installed


@pytest.fixture(scope="session")
def volume(cluster):
    """The folder of models as a claim that many pods may mount."""
    models.make_nets()
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "models"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "claimRef": {"namespace": NAMESPACE, "name": "models"},
                "hostPath": {"path": str(models.FOLDER), "type": "Directory"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models", "namespace": NAMESPACE},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "volumeName": "models",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    )
    return models.FOLDER


def make_pipelines(cluster):
    """make(manifest) applies it and waits until it is available; all that were made go at the end."""
    made = []

    def make(manifest, within_s=120, wait=True):
        name, path = manifest["metadata"]["name"], manifest["spec"]["model"]["path"]
        pipeline = Pipeline(cluster, name, pathlib.PurePath(path).name.removesuffix(".pt2"))
        made.append(pipeline)
        cluster.apply(manifest)
        if wait:
            pipeline.wait_available(within_s)
        return pipeline

    yield make
    for pipeline in made:
        pipeline.delete()
    for pipeline in made:
        pipeline.wait_gone()


@pytest.fixture(scope="module")
def shared_pipelines(cluster, release, volume):
    """For the tests of one file."""
    yield from make_pipelines(cluster)


@pytest.fixture
def pipelines(cluster, release, volume):
    """For one test."""
    yield from make_pipelines(cluster)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    found = getattr(item.config, "echelon_cluster", None)
    if report.failed and found is not None and pathlib.Path(found.env["KUBECONFIG"]).exists():
        where = folder() / f"{item.name}.{report.when}.txt".replace("/", "_")
        where.write_text(f"{report.longreprtext}\n\n{picture(found)}")
        report.sections.append(("cluster", f"what the cluster looked like: {where}"))


def picture(cluster):
    """For a reader who was not there."""
    parts = []
    for words in (
        ["get", "pipelinedeployments,pods,statefulsets,services,jobs,leases,nodes", "-A", "-o", "wide"],
        ["get", "pipelinedeployments", "-A", "-o", "yaml"],
        ["get", "events", "-A", "--sort-by=.lastTimestamp"],
        ["describe", "pods", "-n", NAMESPACE],
    ):
        parts.append(f"$ kubectl {' '.join(words)}\n{attempt(cluster, words)}")
    for namespace in (NAMESPACE, "echelon-system"):
        for pod in json.loads(attempt(cluster, ["get", "pods", "-n", namespace, "-o", "json"]) or '{"items": []}')["items"]:
            for more in ([], ["--previous"]):
                words = ["logs", "-n", namespace, name_of(pod), "--tail=120", "--all-containers", *more]
                if not more or any(s.get("restartCount") for s in pod["status"].get("containerStatuses", [])):
                    parts.append(f"$ kubectl {' '.join(words)}\n{attempt(cluster, words)}")
    return "\n\n".join(parts)


def attempt(cluster, words):
    try:
        return cluster.kubectl(*words, within_s=30)
    except Exception as error:  # noqa: BLE001 - the picture is of what there is
        return "" if words[0] == "get" and words[-1] == "json" else str(error)
