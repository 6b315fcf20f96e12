"""What breaks: a pod, a container, a node."""

import time

import models
import numpy as np
from kube import condition, name_of
from pipelines import container_ids, is_ready, is_settled, manifest, nodes, uids

SLACK_S = 5  # promised: Available within this, plus termination and load


def assert_answers(pipeline):
    x = models.net_input()
    got = pipeline.ask({"x": x}, ["output"])["output"]
    np.testing.assert_allclose(got, models.net_answer("v1/net.pt2", x), rtol=1e-5, atol=1e-5)


def test_a_deleted_pod_comes_back_and_the_others_stay(pipelines, cluster, figures):
    net = pipelines(manifest("bereft", stages=3))
    before, victim = net.pods(), net.pods()[1]
    with net.watch() as own, net.watch("pods") as pods:
        began = time.monotonic()
        cluster.kubectl("delete", "pod", name_of(victim), "-n", net.namespace, "--wait=false")
        degraded, _ = own.first(lambda o: condition(o, "Degraded") == "True", "it is Degraded", 20, since=began)
        gone, _ = pods.first(
            lambda o: o["metadata"]["uid"] == victim["metadata"]["uid"], "the old pod is gone", 60, types=("DELETED",)
        )
        back, _ = own.first(is_settled, "it is available again", 60, since=degraded)
        ready, _ = pods.first(
            lambda o: name_of(o) == name_of(victim) and o["metadata"]["uid"] != victim["metadata"]["uid"] and is_ready(o),
            "the new pod is ready", 60,
        )  # fmt: skip
    figures.add("a pod is deleted: Degraded after", degraded - began, bar=2)
    figures.add("  its termination took", gone - began)
    figures.add("  Available again, counted from its end", back - gone, bar=SLACK_S)
    after = container_ids(net.pods())
    for name, identity in container_ids(before).items():
        assert (after[name] == identity) == (name != name_of(victim)), f"{name} was not to be touched"
    assert_answers(net)


def test_a_killed_container_restarts_and_the_others_stay(pipelines, cluster, figures):
    net = pipelines(manifest("struck"))
    before, victim = net.pods(), net.pods()[1]
    with net.watch() as own:
        began = time.monotonic()
        cluster.kill_container(victim)
        degraded, _ = own.first(lambda o: condition(o, "Degraded") == "True", "it is Degraded", 20, since=began)
        back, item = own.first(is_settled, "it is available again", 60, since=degraded)
        told = lambda o: o["status"]["groups"][0].get("epoch", 0) > 1  # noqa: E731
        own.first(told, "the head tells its next epoch", 20, since=degraded)
    figures.add("a container is killed: Degraded after", degraded - began, bar=2)
    figures.add("  Available again after", back - began, bar=10)
    assert container_ids(net.pods())[name_of(before[0])] == container_ids(before)[name_of(before[0])]
    assert [rank.get("restarts", 0) for rank in item["status"]["ranks"]] == [0, 1]
    assert_answers(net)


def test_a_lost_head_comes_back(pipelines, cluster, figures):
    net = pipelines(manifest("headless"))
    worker = net.pods()[1]
    with net.watch() as own:
        began = time.monotonic()
        cluster.kill_container(net.pods()[0])
        lost, _ = own.first(lambda o: condition(o, "Available") == "False", "it is not available", 20, since=began)
        back, _ = own.first(is_settled, "it is available again", 60, since=lost)
    figures.add("the head's container is killed: Available again after", back - began, bar=10)
    assert container_ids(net.pods())[name_of(worker)] == container_ids([worker])[name_of(worker)]
    assert_answers(net)


def test_the_ranks_of_a_lost_node_serve_again(pipelines, cluster, figures):
    net = pipelines(manifest("stranded", stages=3))
    before = net.pods()
    assert nodes(before) == {"n1", "n2"}, "ranks are on one node alone"
    lost_ones = [pod for pod in before if pod["spec"]["nodeName"] == "n2"]
    with cluster.watch("nodes") as watched, net.watch() as own, net.watch("pods") as pods:
        cluster.crash("n2")
        try:
            declared, _ = watched.first(
                lambda o: name_of(o) == "n2" and condition(o, "Ready") == "Unknown", "n2 is declared lost", 60
            )
            for pod in lost_ones:
                pods.first(
                    lambda o, p=pod: name_of(o) == name_of(p) and o["metadata"]["uid"] != p["metadata"]["uid"] and is_ready(o),
                    f"{name_of(pod)} serves on another node",
                    120,
                )
            back, _ = own.first(is_settled, "it is available again", 120, since=declared)
            figures.add("a node is lost: its ranks serve again, counted from when it was declared lost", back - declared, bar=20)
            assert nodes(net.pods()) == {"n1"}
            kept = {n: u for n, u in uids(before).items() if n not in {name_of(p) for p in lost_ones}}
            assert kept.items() <= uids(net.pods()).items(), "pods of the other node were not to be touched"
            assert_answers(net)
        finally:
            cluster.restore("n2")
