"""Pipelines of processes answer as eager PyTorch does, through every door."""

import concurrent.futures
import json
import subprocess
import urllib.error

import grpc
import numpy as np
import pytest
from clients import Case, Client, assert_equal
from pipeline import BIN, fetch, read_metrics
from ports import free_port

KINDS = ("grpc", "http")
ONE_THREAD = "--threads=1"  # as the answers were made: sums of several threads have another order


def tolerance(case):
    return 0.0 if json.loads((case.model.parent / "case.json").read_text())["exact"] else 1e-5


# ---- The article's exercise --------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1], ids=["head-first", "worker-first"])
def test_the_same_program_in_two_shells_equals_eager(start, net, first):
    port = free_port()
    stages = {}
    for rank in (first, 1 - first):
        flags = ("--policy=equal-size", "--name=net", ONE_THREAD, "--exact")
        stages[rank] = start.stage(net.model, rank, 2, port, *flags)
    for stage in stages.values():
        stage.wait_ready()
    head = stages[0]
    assert "relu" not in head.stdout() and "relu" in stages[1].stdout()
    head.grpc, head.http, head.name = head.address("grpc"), head.address("http"), "net"
    for kind in KINDS:
        with Client(kind, head) as client:
            for inputs, outputs in net.runs:
                assert_equal(client.infer(inputs), outputs)
    assert stages[1].stop() == 0
    assert head.stop() == 0


def test_stages_meet_at_an_ipv6_address(start, net):
    run = start.run(net.model, 2, "--bind=::1", ONE_THREAD, name="net").wait_ready()
    for kind in KINDS:
        with Client(kind, run) as client:
            inputs, outputs = net.runs[0]
            assert_equal(client.infer(inputs), outputs, 1e-5)


# ---- tritonclient as it is ---------------------------------------------------------------------


@pytest.fixture(scope="module", params=["net", "dictionaries", "minilm"])
def served(request, start_shared):
    case = Case(request.param)
    run = start_shared.run(case.model, 2, ONE_THREAD, "--exact", name=case.name).wait_ready()
    yield case, run
    assert run.stop() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_tritonclient_finds_the_model_ready_and_described(served, kind):
    case, run = served
    with Client(kind, run) as client:
        triton, options = client.client, {} if kind == "http" else {"as_json": True}
        assert triton.is_server_live() and triton.is_server_ready()
        assert triton.is_model_ready(case.name)
        assert triton.get_server_metadata(**options)["name"] == "echelon"
        described = triton.get_model_metadata(case.name, **options)
    inputs, outputs = case.runs[0]
    assert {i["name"] for i in described["inputs"]} == set(inputs)
    assert {o["name"] for o in described["outputs"]} == set(outputs)
    for tensor in described["inputs"]:
        shape = [int(size) for size in tensor["shape"]]
        assert shape[0] == -1 and len(shape) == inputs[tensor["name"]].ndim


@pytest.mark.parametrize("kind, binary", [("grpc", True), ("http", True), ("http", False)])
def test_answers_equal_eager(served, kind, binary):
    case, run = served
    with Client(kind, run, binary=binary) as client:
        for inputs, outputs in case.runs:
            got = client.infer(inputs)
            assert_equal(got, outputs, tolerance(case) if binary else 1e-5)


def test_one_output_may_be_asked_for(served):
    case, run = served
    inputs, outputs = case.runs[0]
    name = sorted(outputs)[0]
    with Client("grpc", run) as client:
        assert_equal(client.infer(inputs, [name]), {name: outputs[name]}, 1e-5)


# ---- Many at once ------------------------------------------------------------------------------


def rows_of(run, seed):
    """Some rows of a run in some order: a request of its own, with its own right answer."""
    inputs, outputs = run
    generator = np.random.default_rng(seed)
    rows = len(next(iter(inputs.values())))
    some = generator.permutation(rows)[: generator.integers(1, rows + 1)]
    pick = lambda tensors: {k: np.ascontiguousarray(v[some]) for k, v in tensors.items()}  # noqa: E731
    return pick(inputs), pick(outputs)


@pytest.mark.parametrize("chunks", [1, 3])
def test_concurrent_requests_get_their_own_answers(start, net, chunks):
    run = start.run(net.model, 2, f"--chunks={chunks}", name="net").wait_ready()

    def ask(thread):
        with Client(KINDS[thread % 2], run) as client:
            for request in range(20):
                inputs, outputs = rows_of(net.largest(), seed=100 * thread + request)
                assert_equal(client.infer(inputs, ["output"]), outputs, 1e-5)

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        list(pool.map(ask, range(32), timeout=120))
    assert read_metrics(run.metrics[0])["echelon_requests_total{code=OK}"] >= 640


@pytest.mark.parametrize("stages", [1, 3])
def test_chunks_need_not_divide_the_batch(start, stages):
    case = Case("mlp_skip2")
    run = start.run(case.model, stages, "--chunks=5", name="mlp").wait_ready()
    chunks = 0
    with Client("grpc", run) as client:
        for inputs, outputs in case.runs:
            chunks += min(5, len(next(iter(inputs.values()))))
            assert_equal(client.infer(inputs), outputs, 1e-5)
    for metrics in run.metrics:
        assert read_metrics(metrics)["echelon_micro_batches_total"] == chunks


# ---- The command line --------------------------------------------------------------------------


def test_infer_takes_and_writes_npy_files(served, tmp_path):
    case, run = served
    inputs, outputs = case.runs[0]
    flags = []
    for name, array in inputs.items():
        np.save(tmp_path / f"{name}.npy", array)
        flags.append(f"--input={name}={tmp_path}/{name}.npy")
    words = [BIN / "echelon", "infer", f"--server={run.grpc}", f"--output-dir={tmp_path}/out"]
    done = subprocess.run([*words, *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    got = {name: np.load(tmp_path / "out" / f"{name}.npy") for name in outputs}
    assert_equal(got, outputs, tolerance(case))
    assert all(name in done.stdout for name in outputs)


def test_infer_makes_up_inputs(served):
    _, run = served
    words = [BIN / "echelon", "infer", f"--server={run.grpc}", "--json", "--repeat=3"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["repeat"] == 3


# ---- What a running pipeline says of itself ----------------------------------------------------


def test_metrics_count_what_each_rank_did(start):
    case = Case("bench_mlp")
    run = start.run(case.model, 3, "--chunks=2", name="mlp").wait_ready()
    inputs, _ = case.runs[0]
    with Client("http", run) as client:
        for _ in range(10):
            client.infer(inputs, ["output"])
    ranks = [read_metrics(address) for address in run.metrics]
    words = [BIN / "echelon", "plan", case.model, "--stages=3", "--json"]
    plan = json.loads(subprocess.run(words, capture_output=True, timeout=60, check=True).stdout)
    for stage, metrics in zip(plan["stages"], ranks, strict=True):
        assert metrics["echelon_micro_batches_total"] == 20
        assert metrics["echelon_compute_seconds_count"] == 20
        assert metrics["echelon_weights_bytes"] == stage["weight_bytes"]
        assert metrics["echelon_weights_loaded_bytes"] == stage["weight_bytes"]
        assert metrics["echelon_resident_bytes"] > stage["weight_bytes"]
        assert metrics["echelon_ready"] == 1 and metrics["echelon_epoch"] > 0
    for rank, metrics in enumerate(ranks):
        following = ranks[(rank + 1) % 3]
        sent = metrics["echelon_link_sent_bytes_total"]
        assert sent == following["echelon_link_received_bytes_total"]
        assert 10 * 16384 <= sent < 10 * 16384 * 1.1  # 4 x 1024 f32 a request, and frame headers
    assert len({metrics["echelon_epoch"] for metrics in ranks}) == 1
    assert ranks[0]["echelon_requests_total{code=OK}"] == 10
    assert ranks[0]["echelon_queue_requests"] == 0


def test_every_rank_has_health_reflection_and_status(start, net):
    port = free_port()
    stages = [start.stage(net.model, rank, 2, port, "--name=net") for rank in range(2)]
    for stage in stages:
        stage.wait_ready()
    for rank, stage in enumerate(stages):
        with grpc.insecure_channel(stage.address("grpc")) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            for service in (b"", b"\x0a\x03net"):  # HealthCheckRequest.service
                assert check(service, timeout=10) == b"\x08\x01"  # SERVING
            listing = channel.stream_stream(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            )
            services = next(iter(listing(iter([b"\x3a\x00"]), timeout=10)))  # list_services
            assert b"grpc.health.v1.Health" in services
            assert (b"inference.GRPCInferenceService" in services) == (rank == 0)
        assert fetch(stage.address("http"), "/readyz") == "ok\n"
        status = json.loads(fetch(stage.address("http"), "/status"))
        assert (status["rank"], status["world"], status["formed"]) == (rank, 2, True)
        assert status["model"] == "net" and status["epoch"] > 0
    ranks = json.loads(fetch(stages[0].address("http"), "/status"))["ranks"]
    assert [(r["rank"], r["phase"], r["joins"]) for r in ranks] == [(0, "ready", 1), (1, "ready", 1)]
    assert all(r["loadedBytes"] == r["totalBytes"] > 0 for r in ranks)


def test_a_worker_sends_who_asks_it_to_rank_0(start, net):
    port = free_port()
    stages = [start.stage(net.model, rank, 2, port, "--name=net") for rank in range(2)]
    for stage in stages:
        stage.wait_ready()
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(stages[1].address("http"), "/v2/models/net")
    assert refused.value.code == 404
    assert "this is rank 1 of 2; ask rank 0" in refused.value.read().decode()
