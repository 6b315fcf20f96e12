"""The objects that the documents show: each fits the CRD's schema, and the operator would act on it."""

import os
import pathlib
import re
import subprocess

import pytest
import yaml
from conftest import ROOT
from structural import problems

FILES = sorted([*(ROOT / "examples").glob("*.yaml"), *(ROOT / "docs/gke").glob("*.yaml")])
FILES = [file for file in FILES if not file.name.startswith("values-")]
OPERATOR = pathlib.Path(os.environ.get("ECHELON_BIN", ROOT / "build/bin")) / "echelon-operator"


def documents(file):
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def deployments(file):
    return [d for d in documents(file) if d["kind"] == "PipelineDeployment"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_object_in_the_documents_fits_the_schema(file, schema):
    for document in documents(file):
        assert {"apiVersion", "kind", "metadata"} <= set(document)
        if document["kind"] == "PipelineDeployment":
            assert document["apiVersion"] == "echelon.dev/v1alpha1" and problems(document, schema) == []


def test_the_check_sees_what_is_wrong(schema):
    (good,) = deployments(ROOT / "examples/net.yaml")
    for change, complaint in [
        ({"replica": 2}, ".spec.replica: there is no such field"),
        ({"replicas": "2"}, ".spec.replicas: '2' is no integer"),
        ({"replicas": -1}, ".spec.replicas: -1 is out of bounds"),
        ({"parallelism": {"policy": "fair"}}, ".spec.parallelism.policy: 'fair' is none of ['balanced', 'equal-size']"),
        ({"overrides": [{"name": "a"}]}, ".spec.overrides[0].firstRank: missing"),
    ]:
        assert problems(good | {"spec": good["spec"] | change}, schema) == [complaint]


@pytest.mark.skipif(not OPERATOR.exists(), reason=f"there is no {OPERATOR}; run make build")
@pytest.mark.parametrize("file", [f for f in FILES if deployments(f)], ids=lambda file: file.name)
def test_the_operator_would_make_pods_of_it(file):
    done = subprocess.run([OPERATOR, "plan", "-f", file], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "apply StatefulSet" in done.stdout or "apply Job" in done.stdout  # a directory is exported first


def test_every_yaml_block_in_the_documents_is_yaml(schema):
    for page in sorted((ROOT / "docs").glob("*.md")):
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S):
            for document in yaml.safe_load_all(block):
                if isinstance(document, dict) and document.get("kind") == "PipelineDeployment":
                    assert problems(document, schema) == [], page


def test_every_reason_of_the_operator_is_explained():
    sources = [
        (ROOT / "operator/reconcile/reasons.h").read_text(),
        (ROOT / "operator/api/deployment.h").read_text(),
    ]
    reasons = {r for text in sources for r in re.findall(r'constexpr char k\w+\[\] =\s*"([A-Z][A-Za-z]+)"', text)}
    reasons -= {"PipelineDeployment"}
    page = (ROOT / "docs/troubleshooting.md").read_text()
    titles = re.findall(r"^##+ .*$|^\| .*? \||^Reasons of .*$", page, re.M)
    explained = {name for line in titles for name in re.findall(r"\w+", line)}
    assert len(reasons) > 20 and reasons - explained == set()
