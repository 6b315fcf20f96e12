"""What users change: how many, which model, whether at all."""

import time

import models
from kube import condition, condition_of, name_of, wait_until
from pipelines import is_current, is_settled, manifest
from traffic import Traffic


def heads(pipeline):
    """Addresses behind the Service."""
    slices = pipeline.cluster.list("endpointslices", pipeline.namespace, f"kubernetes.io/service-name={pipeline.name}")
    return {
        address
        for part in slices
        for endpoint in part["endpoints"]
        if endpoint["conditions"].get("ready")
        for address in endpoint["addresses"]
    }


def test_scale_from_one_to_three_and_back_under_load(pipelines, cluster, figures):
    net, x = pipelines(manifest("scaled")), models.net_input()
    first = {name_of(pod): pod["metadata"]["uid"] for pod in net.pods()}
    with Traffic(net, {"x": x}, {"v1": models.net_answer("v1/net.pt2", x)}) as traffic, net.watch() as own:
        for wanted, within_s in ((3, 120), (1, 120)):
            began = time.monotonic()
            cluster.kubectl("scale", "pld/scaled", "-n", net.namespace, f"--replicas={wanted}")
            moment, _ = own.first(
                lambda o, n=wanted: o["spec"]["replicas"] == n and is_settled(o), f"{wanted} replicas serve", within_s, since=began
            )
            figures.add(f"scale to {wanted} until all is so", moment - began)
            wait_until(lambda n=wanted: len(heads(net)) == n, f"{wanted} heads are behind the Service", 10)
            assert cluster.read(f"/apis/echelon.dev/v1alpha1/namespaces/{net.namespace}/pipelinedeployments/scaled/scale")[
                "status"
            ]["replicas"] == wanted
    traffic.check()
    left = {name_of(pod): pod["metadata"]["uid"] for pod in net.pods() if "deletionTimestamp" not in pod["metadata"]}
    assert left == first, "the first group was to stay"


def test_the_model_changes_under_load_without_an_error(pipelines, figures):
    net, x = pipelines(manifest("changed")), models.net_input()
    answers = {path[:2]: models.net_answer(path, x) for path in models.NETS}
    old = net.read()["status"]["currentRevision"]
    with Traffic(net, {"x": x}, answers) as traffic, net.watch() as own:
        began = time.monotonic()
        net.patch({"model": {"path": "v2/net.pt2"}})
        moment, item = own.first(
            lambda o: o["spec"]["model"]["path"] == "v2/net.pt2" and is_settled(o), "the new model serves", 120, since=began
        )
        figures.add("new model at replicas 1 by surge, until the old one's StatefulSet is gone", moment - began)
        wait_until(lambda: traffic.names[-1] == "v2", "requests go to the new model", 20)
    traffic.check()
    figures.add("longest request during it", traffic.longest_s)
    assert traffic.names[0] == "v1"
    assert item["status"]["currentRevision"] != old
    assert [name_of(s).startswith(f"changed-{item['status']['currentRevision'][:6]}-") for s in net.listed("statefulsets")] == [True]


def test_a_model_that_is_not_there_leaves_the_old_one_serving(pipelines):
    net, x = pipelines(manifest("kept")), models.net_input()
    with Traffic(net, {"x": x}, {"v1": models.net_answer("v1/net.pt2", x)}) as traffic, net.watch() as own:
        net.patch({"model": {"path": "v3/net.pt2"}})
        _, item = own.first(
            lambda o: is_current(o) and any("v3/net.pt2" in c.get("message", "") for c in o["status"].get("conditions", []))
            or any("v3/net.pt2" in r.get("lastError", "") for r in o["status"].get("ranks", [])),
            "the status names the file",
            60,
        )  # fmt: skip
        assert condition(item, "Available") == "True"
        net.patch({"model": {"path": "v1/net.pt2"}})
        own.first(lambda o: o["spec"]["model"]["path"] == "v1/net.pt2" and is_settled(o), "it is as before", 120)
    traffic.check()


def test_suspend_and_resume(pipelines, figures):
    net, x = pipelines(manifest("paused")), models.net_input()
    with net.watch("pods") as pods, net.watch() as own:
        began = time.monotonic()
        net.patch({"suspend": True})
        gone = pods.until(lambda there: not there, "all pods are gone", 90)
        figures.add("suspend until no pod is left", gone - began)
        _, item = own.first(
            lambda o: is_current(o) and o["spec"].get("suspend") and condition(o, "Available") == "False", "it is not available", 30
        )
        assert condition_of(item, "Available")["reason"] == "Suspended"
        began = time.monotonic()
        net.patch({"suspend": False})
        moment, _ = own.first(lambda o: not o["spec"].get("suspend") and is_settled(o), "it is available", 90, since=began)
        figures.add("resume until Available", moment - began)
    got = net.ask({"x": x}, ["output"])["output"]
    assert abs(got - models.net_answer("v1/net.pt2", x)).max() < 1e-5
