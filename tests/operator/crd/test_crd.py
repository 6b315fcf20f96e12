"""The CRD as a real API server reads it: what it takes, what it fills in, what it refuses and with which words."""

import copy
import json
import time

import pytest

LONG = "a" * 38


def net(name="net", **spec):
    model = {"source": {"type": "PVC", "pvc": {"claimName": "models"}}, "path": "zoo/net.pt2"}
    return {
        "apiVersion": "echelon.dev/v1alpha1",
        "kind": "PipelineDeployment",
        "metadata": {"name": name, "namespace": "demo"},
        "spec": {"model": model, "parallelism": {"stages": 4}} | spec,
    }


def with_model(source=None, **fields):
    changed = net()
    changed["spec"]["model"] |= fields | ({"source": source} if source else {})
    return changed


def override(name, first, count=1):
    return {"name": name, "firstRank": first, "count": count}


@pytest.fixture
def applied(kubectl):
    """net, as it is stored; gone afterwards."""
    kubectl("apply", "-f", "-", given=net())
    yield kubectl("get", "pld", "-n", "demo", "net", "-o", "name").strip()
    kubectl("delete", "-n", "demo", "pld", "--all")


REFUSED = {
    "a long name": (net(LONG), "metadata.name: at most 37 characters"),
    "a name of another's Service": (net("net-ranks"), "metadata.name: must not end with '-ranks'"),
    "a name that is no Service's": (net("9lives"), "metadata.name: lower-case letters, digits and '-'"),
    "too many stages": (net(parallelism={"stages": 513}), "spec.parallelism.stages"),
    "an override beyond the ranks": (
        net(overrides=[override("a", 3, 2)]),
        "overrides: firstRank + count must be at most parallelism.stages",
    ),
    "overrides that overlap": (
        net(overrides=[override("a", 0, 2), override("b", 1)]),
        "overrides: two of them cover the same rank",
    ),
    "an absolute path": (with_model(path="/net.pt2"), "leave out the leading '/'"),
    "a path that climbs": (with_model(path="a/../net.pt2"), "must not contain '.' or '..' as a part"),
    "a path with blanks": (with_model(path="a b.pt2"), "parts of letters, digits and ._@+=~-"),
    "a source without its block": (with_model({"type": "PVC"}), "source.pvc goes with type PVC"),
    "a source with two blocks": (
        with_model({"type": "PVC", "pvc": {"claimName": "m"}, "image": {"reference": "i"}}),
        "source.image goes with type Image",
    ),
    "a host path without its block": (with_model({"type": "HostPath"}), "source.hostPath goes with type HostPath"),
    "a host path that climbs": (
        with_model({"type": "HostPath", "hostPath": {"path": "/a/../b"}}),
        "hostPath.path must not contain '..'",
    ),
    "a download without its block": (with_model({"type": "HTTPS"}), "source.https goes with type HTTPS"),
    "a dtype for a file": (with_model(dtype="f32"), "dtype and maxModelLen belong to Hugging Face directories"),
    "an unknown dtype": (with_model(path="llama", dtype="f16"), 'supported values: "bf16", "f32"'),
    "a rollout that cannot move": (
        net(rollout={"maxSurge": 0}),
        "maxSurge or maxUnavailable must be at least 1",
    ),
    "two doors on one port": (
        net(service={"ports": [{"name": "http", "port": 1}, {"name": "grpc", "port": 1}]}),
        "http and grpc need different ports",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses(kubectl, case):
    wanted, words = REFUSED[case]
    assert words in kubectl.refusal("apply", "--dry-run=server", "-f", "-", given=wanted)


TAKEN = {
    "a download": with_model({"type": "HTTPS", "https": {"url": "https://{host}/net.pt2"}}),
    "gang scheduling": net(scheduling={"gang": "Workload"}),
    "spares": net(failurePolicy={"spares": 1}),
    "several ranks in a pod": net(parallelism={"stages": 4, "ranksPerPod": 2}),
    "automatic stages": net(parallelism={"stages": 0}),
    "a monitor of its own": net(observability={"podMonitor": True}),
}


@pytest.mark.parametrize("case", TAKEN)
def test_it_takes_what_the_operator_refuses_for_now(kubectl, case):
    kubectl("apply", "--dry-run=server", "-f", "-", given=TAKEN[case])


def test_it_takes_the_longest_name_and_the_most_overrides(kubectl):
    most = net("a" * 37, overrides=[override(f"o{i}", i) for i in range(32)])
    most["spec"]["parallelism"]["stages"] = 512
    kubectl("apply", "--dry-run=server", "-f", "-", given=most)


def test_an_unknown_field_is_named(kubectl):
    assert 'unknown field "spec.replica"' in kubectl.refusal("apply", "-f", "-", given=net(replica=1))


def test_a_template_goes_through_both_kinds_of_apply(kubectl, applied):
    template = {"spec": {"containers": [{"name": "stage", "env": [{"name": "A", "value": "b"}]}]}}
    changed = net(template=template)
    kubectl("apply", "-f", "-", given=changed)
    other = copy.deepcopy(changed)
    other["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "c"
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", given=other)
    stored = kubectl("get", "-n", "demo", applied, "-o", "jsonpath={.spec.template.spec.containers[0].env[0].value}")
    assert stored == "c"


def test_it_scales(kubectl, applied):
    kubectl("scale", "-n", "demo", applied, "--replicas=3")
    assert kubectl("get", "-n", "demo", applied, "-o", "jsonpath={.spec.replicas}") == "3"
    status = {"status": {"replicas": 2, "selector": "echelon.dev/deployment=net"}}
    path = "/apis/echelon.dev/v1alpha1/namespaces/demo/pipelinedeployments/net"
    kubectl("patch", "-n", "demo", applied, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    scale = json.loads(kubectl("get", "--raw", f"{path}/scale"))
    assert scale["status"] == {"replicas": 2, "selector": "echelon.dev/deployment=net"}


def test_its_columns_answer_what_one_asks(kubectl, applied):
    status = '{"status": {"ready": "3/4", "reason": "RankLoading"}}'
    kubectl("patch", "-n", "demo", applied, "--subresource=status", "--type=merge", "-p", status)
    head, row = kubectl("get", "pld", "-n", "demo").splitlines()
    assert head.split() == ["NAME", "READY", "STAGES", "MODEL", "REASON", "AGE"]
    assert row.split()[:5] == ["net", "3/4", "4", "zoo/net.pt2", "RankLoading"]


@pytest.mark.parametrize("field", ["spec", "spec.model.source", "spec.rollout.drainSeconds", "status.ranks"])
def test_explain_documents_it(kubectl, field):
    deadline = time.monotonic() + 30  # the server publishes a new kind's schema a moment later
    while (told := kubectl.try_("explain", f"pld.{field}")).returncode != 0 and time.monotonic() < deadline:
        pass
    assert told.returncode == 0, told.stderr
    assert "<no description>" not in told.stdout
