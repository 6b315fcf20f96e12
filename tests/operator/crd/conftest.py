"""An API server of one's own: the one of $ECHELON_TEST_KUBECONFIG, or a fresh one out of $ECHELON_KUBE_BIN (a folder
with etcd, kube-apiserver and kubectl; otherwise the one that `make deps-cluster` makes). Skipped without both."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "tests"))

from ports import free_port  # noqa: E402

CRD = ROOT / "crds/pipelinedeployments.yaml"
DEPS = pathlib.Path(os.environ.get("ECHELON_DEPS", ROOT / ".deps"))
BIN = pathlib.Path(os.environ.get("ECHELON_KUBE_BIN", DEPS / "kube"))


class Kubectl:
    def __init__(self, program, kubeconfig):
        self.words = [str(program), "--kubeconfig", str(kubeconfig)]

    def try_(self, *words, given=None):
        text = given if given is None or isinstance(given, str) else json.dumps(given)
        return subprocess.run([*self.words, *words], input=text, capture_output=True, text=True, timeout=60)

    def __call__(self, *words, given=None):
        done = self.try_(*words, given=given)
        assert done.returncode == 0, f"kubectl {' '.join(map(str, words))}: {done.stderr}"
        return done.stdout

    def refusal(self, *words, given=None):
        done = self.try_(*words, given=given)
        assert done.returncode != 0, f"kubectl {' '.join(map(str, words))} was to be refused: {done.stdout}"
        return done.stderr

    def get(self, kind, name):
        return json.loads(self("get", kind, name, "-o", "json"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    program = BIN / "kubectl" if (BIN / "kubectl").exists() else shutil.which("kubectl")
    if given := os.environ.get("ECHELON_TEST_KUBECONFIG"):
        if program is None:
            pytest.skip("there is no kubectl; set ECHELON_KUBE_BIN")
        yield Kubectl(program, given)
        return
    if not (BIN / "kube-apiserver").exists():
        pytest.skip(f"{BIN} has no kube-apiserver; run: make deps-cluster, or set ECHELON_KUBE_BIN")
    state = tmp_path_factory.mktemp("apiserver")
    settings = {"KONE_NODES": "", "KONE_FAKE": "", "KONE_STATE": str(state), "KONE_BIN": str(BIN)}
    env = os.environ | settings | {"KONE_PORT": str(free_port()), "KONE_ETCD_PORT": str(free_port(2))}
    scripts = ROOT / "tests/cluster"
    try:
        subprocess.run([scripts / "up.sh"], env=env, check=True, timeout=120, stdout=subprocess.DEVNULL)
        yield Kubectl(program, state / "conf/admin.kubeconfig")
    finally:
        subprocess.run([scripts / "down.sh"], env=env, timeout=60, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def kubectl(server):
    """With our kind, and a namespace where pod security is enforced."""
    server("apply", "--server-side", "--force-conflicts", "-f", CRD)
    server("wait", "--for=condition=Established", "--timeout=30s", "crd/pipelinedeployments.echelon.dev")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo", "labels": labels}}]
    for account in ("default", "model-reader"):  # where no controller makes the first
        made.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": "demo"}})
    for thing in made:
        server("apply", "--server-side", "--force-conflicts", "-f", "-", given=thing)
    return server
