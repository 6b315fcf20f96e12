"""The chart on a real API server: its objects are taken, its rights are those that it asks for, an upgrade of the
definition goes as docs/kubernetes.md says, and nothing is left after it."""

import json
import os
import shutil
import subprocess

import pytest
from conftest import BIN, CRD, ROOT

CHART = ROOT / "charts/echelon"
SYSTEM = "echelon-system"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:echelon-operator"


@pytest.fixture(scope="module")
def helm(server):
    program = os.environ.get("HELM") or shutil.which("helm", path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("there is no helm; run: make deps-cluster, or name it by HELM")
    kubeconfig = server.words[server.words.index("--kubeconfig") + 1]

    def run(*words):
        done = subprocess.run([program, "--kubeconfig", kubeconfig, *map(str, words)], capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, f"helm {' '.join(map(str, words))}: {done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def release(server, helm):
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    server("apply", "-f", "-", given={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels}})
    notes = helm("install", "echelon", CHART, "-n", SYSTEM, "--set", "networkPolicy.enabled=true")
    yield notes
    helm("uninstall", "echelon", "-n", SYSTEM)
    server("delete", "namespace", SYSTEM, "--wait=false")


def test_the_notes_show_a_first_object_that_the_server_takes(kubectl, release):
    example = release.partition("<<YAML\n")[2].partition("  YAML")[0]
    text = "\n".join(line.removeprefix("  ") for line in example.splitlines())
    assert "created (server dry run)" in kubectl("create", "--dry-run=server", "-n", "demo", "-f", "-", given=text)


def test_the_operators_pod_is_taken_where_restricted_is_enforced(server, release):
    deployment = json.loads(server("get", "deployment", "echelon-operator", "-n", SYSTEM, "-o", "json"))
    template = deployment["spec"]["template"]
    metadata = {**template["metadata"], "name": "try", "namespace": SYSTEM}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    said = server.try_("create", "--dry-run=server", "-f", "-", given=pod)
    assert "PodSecurity" not in said.stderr and (said.returncode == 0 or "serviceaccount" in said.stderr), said.stderr


@pytest.mark.parametrize(
    ("may", "words"),
    [
        ("yes", "list pipelinedeployments.echelon.dev -A"),
        ("yes", "patch pipelinedeployments.echelon.dev/net --subresource=status -n demo"),
        ("no", "patch pipelinedeployments.echelon.dev/net -n demo"),
        ("yes", "create statefulsets.apps -n demo"),
        ("yes", "delete pods -n demo"),
        ("no", "create pods -n demo"),
        ("no", "get secrets -A"),
        ("no", "get configmaps -n demo"),
        ("no", "list nodes"),
        ("yes", "create events.events.k8s.io -n demo"),
        ("yes", f"update leases.coordination.k8s.io/echelon-operator -n {SYSTEM}"),
        ("no", f"update leases.coordination.k8s.io/other -n {SYSTEM}"),
        ("no", "create leases.coordination.k8s.io -n demo"),
        ("yes", "get customresourcedefinitions.apiextensions.k8s.io/pipelinedeployments.echelon.dev"),
        ("no", "get customresourcedefinitions.apiextensions.k8s.io/others.example.dev"),
        ("no", "escalate clusterroles.rbac.authorization.k8s.io"),
    ],
)
def test_the_operator_may(kubectl, release, may, words):
    assert kubectl.try_("auth", "can-i", *words.split(), f"--as={ACCOUNT}").stdout.strip() == may


def test_an_older_definition_is_brought_up_to_date_under_living_objects(kubectl, release):
    net = {
        "apiVersion": "echelon.dev/v1alpha1",
        "kind": "PipelineDeployment",
        "metadata": {"name": "kept", "namespace": "demo"},
        "spec": {"model": {"source": {"type": "PVC", "pvc": {"claimName": "models"}}, "path": "net.pt2"}},
    }
    kubectl("apply", "-f", "-", given=net)
    before = json.loads(kubectl("get", "pld", "kept", "-n", "demo", "-o", "json"))
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/suspend"
    kubectl("patch", "crd", "pipelinedeployments.echelon.dev", "--type=json", "-p", json.dumps([{"op": "remove", "path": path}]))
    kubectl("apply", "--server-side", "--force-conflicts", "-f", CHART / "crds")
    crd = kubectl.get("crd", "pipelinedeployments.echelon.dev")
    assert "suspend" in crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    after = json.loads(kubectl("get", "pld", "kept", "-n", "demo", "-o", "json"))
    assert after["metadata"]["uid"] == before["metadata"]["uid"] and after["spec"] == before["spec"]
    kubectl("delete", "pld", "kept", "-n", "demo")


def test_an_upgrade_changes_the_objects_in_place(server, release, helm):
    before = json.loads(server("get", "deployment", "echelon-operator", "-n", SYSTEM, "-o", "json"))
    helm("upgrade", "echelon", CHART, "-n", SYSTEM, "--reset-then-reuse-values", "--set", "replicas=3")
    after = json.loads(server("get", "deployment", "echelon-operator", "-n", SYSTEM, "-o", "json"))
    assert after["metadata"]["uid"] == before["metadata"]["uid"] and after["spec"]["replicas"] == 3
    assert server("get", "networkpolicy", "echelon-operator", "-n", SYSTEM, "-o", "name")  # its value was kept


def test_after_uninstall_only_the_definition_is_left(server, helm):
    labels = "app.kubernetes.io/instance=other"
    kinds = "deployments,serviceaccounts,clusterroles,clusterrolebindings,roles,rolebindings,poddisruptionbudgets"
    server("apply", "-f", "-", given={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    helm("install", "other", CHART, "-n", "other", "--set", "watch.namespace=other")
    assert server("get", kinds, "-n", "other", "-l", labels, "-o", "name").strip()
    assert not server("get", "clusterroles,clusterrolebindings", "-l", labels, "-o", "name").strip()
    helm("uninstall", "other", "-n", "other")
    assert not server("get", kinds, "-n", "other", "-l", labels, "-o", "name").strip()
    assert server("get", "crd", CRD.stem + ".echelon.dev", "-o", "name")
