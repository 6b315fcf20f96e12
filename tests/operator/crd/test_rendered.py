"""What operator/render makes of a deployment, shown to a real API server: strictly valid, and allowed where the
restricted pod security standard is enforced."""

import copy
import json

import pytest
from conftest import ROOT

RENDER = ROOT / "tests/operator/render"
CASES = sorted(file.stem for file in (RENDER / "golden").glob("*.json"))


def rendered(case):
    return json.loads((RENDER / f"golden/{case}.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_the_deployment_itself_is_taken(kubectl, case):
    kubectl("create", "--dry-run=server", "--validate=strict", "-f", RENDER / f"cases/{case}.yaml")


@pytest.mark.parametrize("case", CASES)
def test_its_objects_are_strictly_valid(kubectl, case):
    done = kubectl.try_(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "--field-manager=echelon-operator", "-f", "-",
        given=rendered(case),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # A namespace that enforces the standard warns of workloads whose pods it would refuse.
    assert "would violate PodSecurity" not in done.stderr


@pytest.mark.parametrize("case", CASES)
def test_its_pods_are_allowed_where_security_is_restricted(kubectl, case):
    for workload in rendered(case)["items"]:
        if "template" not in workload.get("spec", {}):
            continue
        template = copy.deepcopy(workload["spec"]["template"])
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] |= {"name": "pod", "namespace": "demo"}
        kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", given=pod)


def test_a_pod_that_breaks_the_standard_would_be_noticed(kubectl):
    template = copy.deepcopy(rendered("net")["items"][-1]["spec"]["template"])
    template["spec"]["containers"][0].pop("securityContext")
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] |= {"name": "pod", "namespace": "demo"}
    assert 'violates PodSecurity "restricted' in kubectl.refusal("create", "--dry-run=server", "-f", "-", given=pod)
