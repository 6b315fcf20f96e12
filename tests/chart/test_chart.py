"""The chart: what it renders, compared with files one can read; what it refuses; what rights it asks for.

UPDATE=1 writes the files anew.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from conftest import CHART, CRD, ROOT, needed

HERE = pathlib.Path(__file__).resolve().parent
VALUES = [
    None,
    *sorted((HERE / "values").glob("*.yaml")),
    *sorted((ROOT / "docs/gke").glob("values-*.yaml")),
]


def name_of(values):
    return "default" if values is None else values.stem.replace("values-", "gke-")


def options(values):
    return () if values is None else ("--values", values)


@pytest.mark.parametrize("values", VALUES, ids=name_of)
def test_renders_what_it_rendered_before(render, values):
    text = render(*options(values), *(("--skip-tests",)))
    text = re.sub(r"(?s)  echelon\.json: \|-\n.*?(?=\n---|\Z)", "  echelon.json: (files/dashboard.json)", text)
    golden = HERE / "golden" / f"{name_of(values)}.yaml"
    if os.environ.get("UPDATE"):
        golden.write_text(text)
    assert text == golden.read_text(), f"{golden} differs; if it should, run UPDATE=1 pytest tests/chart"


def test_helm_has_nothing_to_complain_about(helm):
    status, out, err = helm("lint", "--strict", "--kube-version", "1.34.0", CHART)
    assert status == 0, out + err


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("replica=3", "replica"),
        ("replicas=0", "replicas"),
        ("replicas=many", "replicas"),
        ("images.registry=Not A Registry", "images.registry"),
        ("images.operater=x:1", "operater"),
        ("images.pullPolicy=Sometimes", "images.pullPolicy"),
        ("watch.namespace=Two Words", "watch.namespace"),
        ("watch.namespaces={a,b}", "namespaces"),
        ("lease.seconds=1", "lease.seconds"),
        ("podMonitor.interval=often", "podMonitor.interval"),
        ("extraArgs={verbose}", "extraArgs"),
        ("extraArgs={--lease-seconds=5}", "extraArgs"),
        (r"podLabels.app\.kubernetes\.io/name=mine", "podLabels"),
        ("resources.limit.memory=1Gi", "limit"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_name(helm, values, complaint):
    status, _, err = helm("template", "echelon", CHART, "--kube-version", "1.34.0", "--set", values)
    lines = [line for line in err.splitlines() if line.strip().startswith("- ") or "at '" in line]
    assert status != 0 and any(complaint in line.replace("/", ".") for line in lines), err
    assert len(lines) == 1, err


def test_a_service_account_of_ones_own_needs_a_name(helm):
    status, _, err = helm("template", "echelon", CHART, "--kube-version", "1.34.0", "--set", "serviceAccount.create=false")
    assert status != 0 and "serviceAccount.name is needed where serviceAccount.create is false" in err


def test_every_value_is_described_by_the_schema_and_has_a_default():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def names(node, path=""):
        for name, inner in (node.get("properties") or {}).items():
            yield f"{path}{name}"
            yield from names(inner, f"{path}{name}.")
        if node.get("type") == "object" and "properties" in node:
            assert node["additionalProperties"] is False, f"{path} takes anything"

    def has(path):
        node = values
        for part in path.split("."):
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    absent = [path for path in names(schema) if not has(path)]
    assert absent == ["resources.claims", "global"]


READ = {"get", "list", "watch"}
STAND, MAKE = READ | {"create", "patch"}, READ | {"create", "patch", "delete"}
RIGHTS = {
    ("echelon.dev", "pipelinedeployments"): READ,
    ("echelon.dev", "pipelinedeployments/status"): {"patch"},
    ("apps", "statefulsets"): MAKE,
    ("apps", "controllerrevisions"): MAKE - {"patch"},
    ("", "services"): STAND,
    ("policy", "poddisruptionbudgets"): STAND,
    ("networking.k8s.io", "networkpolicies"): STAND,
    ("batch", "jobs"): MAKE - {"patch"},
    ("", "pods"): {"list", "watch", "delete"},
    ("", "persistentvolumeclaims"): {"list", "watch"},
    ("", "events"): {"list", "watch"},
    ("events.k8s.io", "events"): {"create"},
}
DEFINITION = {("apiextensions.k8s.io", "customresourcedefinitions"): {"get"}}


def rights(role):
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def of_kind(found, kind, suffix=""):
    return [o for o in found if o["kind"] == kind and o["metadata"]["name"] == f"echelon-operator{suffix}"]


def test_the_operator_may_do_what_it_does_and_nothing_else(objects):
    found = objects()
    (role,) = of_kind(found, "ClusterRole")
    assert rights(role) == RIGHTS | DEFINITION
    (lease,) = of_kind(found, "Role", "-lease")
    assert lease["metadata"]["namespace"] == "echelon-system"
    assert [(r["verbs"], r.get("resourceNames")) for r in lease["rules"]] == [
        (["get", "update"], ["echelon-operator"]),
        (["create"], None),
    ]


def test_in_one_namespace_it_has_no_right_beyond_it(objects):
    found = objects("--set", "watch.namespace=models")
    assert not [o for o in found if o["kind"].startswith("ClusterRole")]
    (role,) = of_kind(found, "Role")
    assert role["metadata"]["namespace"] == "models" and rights(role) == RIGHTS
    (binding,) = of_kind(found, "RoleBinding")
    assert binding["metadata"]["namespace"] == "models"
    assert binding["subjects"][0]["namespace"] == "echelon-system"


def test_view_edit_and_admin_know_pipeline_deployments(objects):
    found = objects()
    view, edit = of_kind(found, "ClusterRole", "-view")[0], of_kind(found, "ClusterRole", "-edit")[0]
    key = "rbac.authorization.k8s.io/aggregate-to-"
    assert all(view["metadata"]["labels"][key + role] == "true" for role in ("view", "edit", "admin"))
    assert key + "view" not in edit["metadata"]["labels"]
    assert set().union(*rights(view).values()) == READ
    assert ("echelon.dev", "pipelinedeployments/status") not in rights(edit)


@pytest.mark.parametrize(("replicas", "budgets"), [(1, 0), (2, 1)])
def test_a_budget_is_for_more_than_one_replica(objects, replicas, budgets):
    assert len(of_kind(objects("--set", f"replicas={replicas}"), "PodDisruptionBudget")) == budgets


def test_the_operators_pods_meet_the_restricted_profile(objects):
    pod = of_kind(objects(), "Deployment")[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_the_operator_and_what_it_makes_are_told_apart_by_labels(objects):
    pod = of_kind(objects(), "Deployment")[0]["spec"]["template"]
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "echelon-operator"  # what a NetworkPolicy lets in
    assert all(o["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm" for o in objects())


def test_the_charts_crd_is_the_crd():
    assert (CHART / "crds" / CRD.name).read_bytes() == CRD.read_bytes(), "run make chart"


def test_the_api_reference_is_made_from_the_crd():
    made = subprocess.run(
        [sys.executable, ROOT / "tools/crd_docs.py", CRD], capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs/api.md").read_text() == made, "run make chart"


def test_the_chart_has_the_projects_version():
    version = re.search(r'kVersion\[\] = "([\d.]+)"', (ROOT / "runtime/version.h").read_text())[1]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version
    assert f'version = "{version}"' in (ROOT / "export/pyproject.toml").read_text()


def metrics_of(folder):
    """Names that the sources give to metrics, with the suffixes that Prometheus' text form adds."""
    text = "".join(p.read_text() for p in sorted((ROOT / folder).rglob("*.cc")))
    names = set(re.findall(r'"(echelon_[a-z_]+)"', text))
    return names | {f"{name}_{end}" for name in names for end in ("bucket", "sum", "count")}


def test_alerts_and_dashboard_speak_of_metrics_that_exist():
    known = metrics_of("runtime") | metrics_of("operator")
    expressions = re.findall(r'"expr": "(.*)"', (CHART / "files/dashboard.json").read_text())
    expressions += re.findall(r"expr: (.*)", (CHART / "files/alerts.yaml").read_text())
    asked = {name for text in expressions for name in re.findall(r"\bechelon_[a-z_]+", text)}
    assert len(expressions) > 20 and asked - known == set()


def test_promtool_takes_the_alerts(objects, tmp_path):
    promtool = needed("promtool")
    found = objects("--set", "prometheusRule.enabled=true")
    (rule,) = of_kind(found, "PrometheusRule")
    file = tmp_path / "alerts.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "cases.yaml").write_text((HERE / "alerts_test.yaml").read_text())
    done = subprocess.run([promtool, "test", "rules", tmp_path / "cases.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
