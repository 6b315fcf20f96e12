"""What is promised first: apply an object, get a pipeline that answers as PyTorch does."""

import json
import time

import models
import numpy as np
import pytest
from kube import ROOT, condition, name_of
from pipelines import NAMESPACE, manifest, nodes

QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."


def example(cluster, name):
    """examples/NAME.yaml with the tests' folder of models, as an object."""
    text = (ROOT / "examples" / name).read_text().replace("path: /models", f"path: {models.FOLDER}")
    made = json.loads(cluster.kubectl("create", "--dry-run=client", "-o", "json", "-n", NAMESPACE, "-f", "-", given=text))
    made["metadata"]["namespace"] = NAMESPACE
    return made


@pytest.mark.short
def test_net_of_the_examples_over_two_ranks_answers_as_eager_pytorch(pipelines, cluster, figures):
    began = time.monotonic()
    net = pipelines(example(cluster, "net.yaml"))
    figures.add("examples/net.yaml, 2 ranks: from kubectl apply to Available", time.monotonic() - began)
    x = models.net_input()
    for kind in ("grpc", "http"):
        got = net.ask({"x": x}, ["output"], kind)["output"]
        np.testing.assert_allclose(got, models.net_answer("v1/net.pt2", x), rtol=1e-5, atol=1e-5)


@pytest.mark.short
def test_kubectl_get_tells_the_truth(pipelines, cluster):
    net = pipelines(manifest("columns"))
    columns = cluster.kubectl("get", "pld", "columns", "-n", net.namespace, "--no-headers").split()
    assert columns[1:4] == ["2/2", "2", "v1/net.pt2"], columns
    head = net.status()
    with net.watch() as own:
        _, item = own.first(
            lambda o: o["status"]["groups"][0].get("epoch") == head["epoch"], "the group's epoch is the head's", 20
        )
    status = item["status"]
    assert status["endpoint"] == "columns.e2e.svc:8001"
    assert [group["ready"] for group in status["groups"]] == ["2/2"]
    assert [(rank["rank"], rank["phase"]) for rank in status["ranks"]] == [(0, "Ready"), (1, "Ready")]
    assert {rank["pod"]: rank["node"] for rank in status["ranks"]} == {
        name_of(pod): pod["spec"]["nodeName"] for pod in net.pods()
    }
    assert head["formed"]
    assert [rank["incarnation"] for rank in head["ranks"]] == [pod["metadata"]["uid"] for pod in net.pods()]


def test_minilm_on_a_volume_over_three_ranks_on_both_nodes(pipelines, figures):
    inputs, embedding = models.make_minilm()
    began = time.monotonic()
    minilm = pipelines(manifest("minilm", path="minilm.pt2", stages=3), within_s=180)
    figures.add("MiniLM (real weights, 91 MB) over 3 ranks: from kubectl apply to Available", time.monotonic() - began)
    assert len(nodes(minilm.pods())) == 2, "ranks are on one node alone"
    got = minilm.ask(inputs, ["embedding"])["embedding"]
    difference = float(np.abs(got - embedding).max())
    figures.add("MiniLM: largest difference from eager PyTorch", difference * 1e6, unit="e-6")
    np.testing.assert_allclose(got, embedding, rtol=1e-5, atol=1e-5)
    with minilm.watch() as own:
        _, item = own.first(
            lambda o: all(rank.get("loadedBytes") for rank in o["status"]["ranks"]), "the bytes of each rank are told", 20
        )
    loaded = [rank["loadedBytes"] for rank in item["status"]["ranks"]]
    total = (models.FOLDER / "minilm.pt2").stat().st_size
    assert max(loaded) < 0.7 * total, f"a rank loads its own part, not {loaded} of {total}"


@pytest.fixture(scope="module")
def smollm2(shared_pipelines, figures):
    models.make_smollm2()
    began = time.monotonic()
    model = {"dtype": "f32", "maxModelLen": 2048}
    made = shared_pipelines(
        manifest("smollm2", path="smollm2", stages=2, model=model, rollout={"drainSeconds": 90}), within_s=400
    )
    figures.add("SmolLM2 from a Hugging Face directory, export Job included, to Available", time.monotonic() - began)
    return made


def test_smollm2_is_exported_by_a_job_and_answers(smollm2):
    jobs = smollm2.listed("jobs")
    assert [condition(job, "Complete") for job in jobs] == ["True"]
    child = smollm2.generate(QUESTION)
    said, error = child.communicate(timeout=60)
    assert child.returncode == 0, error
    assert said.strip() == ANSWER


def test_a_request_of_20_s_outlives_its_statefulset(smollm2, figures):
    began = time.monotonic()
    child = smollm2.generate("Count from one to one thousand in words.", "--ignore-eos", "--max-tokens=32", "--json")
    child.communicate(timeout=120)
    tokens = max(64, int(32 / (time.monotonic() - began) * 21))

    before = smollm2.pods()
    began = time.monotonic()
    child = smollm2.generate("Count from one to one thousand in words.", "--ignore-eos", f"--max-tokens={tokens}", "--json")
    assert child.stdout.readline(), child.stderr.read()  # it is under way
    sets = [name_of(item) for item in smollm2.listed("statefulsets")]
    with smollm2.watch("pods") as pods:
        smollm2.cluster.kubectl("delete", "statefulset", *sets, "-n", smollm2.namespace, "--wait=false")
        old = {pod["metadata"]["uid"] for pod in before}
        for pod in before:
            pods.first(
                lambda item, u=pod["metadata"]["uid"]: item["metadata"]["uid"] == u
                and "deletionTimestamp" in item["metadata"],
                f"{name_of(pod)} is told to end",
                30,
            )
        said, error = child.communicate(timeout=240)
        took = time.monotonic() - began
        assert child.returncode == 0, error
        lines = [json.loads(line) for line in said.splitlines()]
        assert sum(len(line["token_ids"]) for line in lines) + 1 >= tokens, "tokens are missing"
        assert lines[-1]["usage"]["completion_tokens"] == tokens
        figures.add("request under way while its StatefulSet was deleted, completed after", took)
        assert took > 15, f"the request was over before much could happen: {took:.1f} s"
        pods.until(
            lambda there: there and not old & {pod["metadata"]["uid"] for pod in there.values()}, "the old pods are gone", 60
        )
    smollm2.wait_available(180)
    child = smollm2.generate(QUESTION)
    assert child.communicate(timeout=60)[0].strip() == ANSWER
