"""Ranks killed and stopped, idle and under load: what is in flight fails soon, survivors go on."""

import os
import signal
import time

import pytest
from clients import UNAVAILABLE, Case, Client, Refused, assert_equal
from load import Load
from pipeline import fetch, hangups, is_running, loads, read_bytes, read_metrics, wait_until
from ports import free_port

DETECTED_S = 1.0  # from the signal until a request in flight has failed
KINDS = ("grpc", "http")
RANKS = [(stages, rank) for stages in (2, 3) for rank in range(stages)]
WORKERS = [(stages, rank) for stages, rank in RANKS if rank > 0]


@pytest.fixture(scope="module")
def mlp():
    return Case("bench_mlp")


@pytest.fixture(scope="module")
def pipelines(start_shared, mlp):
    """A pipeline of so many stages that starts dead ones again, shared by the tests of this file."""
    runs = {}

    def get(stages):
        if stages not in runs:
            flags = ("--restarts=1000", "--threads=1", "--verbose")
            runs[stages] = start_shared.run(mlp.model, stages, *flags, name="mlp")
        return runs[stages].wait_ready()

    yield get
    for run in runs.values():
        assert run.stop() == 0


@pytest.fixture
def in_flight(mlp):
    """A request that takes a stage some tens of milliseconds."""
    return mlp.largest()[0]


def serves(run, case):
    inputs, outputs = case.runs[0]
    for kind in KINDS:
        with Client(kind, run) as client:
            assert_equal(client.infer(inputs), outputs, 1e-5)


class Before:
    """The pipeline before a rank fails: its epoch, and each rank's pid, bytes read and joins."""

    def __init__(self, run, victim):
        self.run, self.victim, self.pids = run, victim, run.pids()
        self.epoch, self.joins = run.status()["epoch"], self.joins_now()
        self.read = {rank: read_bytes(pid) for rank, pid in self.pids.items()}
        self.loads = self.loads_now()

    def joins_now(self):
        return {rank["rank"]: rank["joins"] for rank in self.run.status()["ranks"]}

    def loads_now(self):
        return {rank: len(loads(self.run.stderr(), rank)) for rank in self.pids}

    def signal(self, number):
        """When it was sent."""
        os.kill(self.pids[self.victim], number)
        return time.monotonic()

    def formed_again(self):
        try:
            if not self.run.status()["formed"] or len(self.run.pids()) != len(self.run.metrics):
                return False
            ranks = [read_metrics(address) for address in self.run.metrics]
        except OSError:
            return False
        epochs = {metrics["echelon_epoch"] for metrics in ranks}
        is_ready = all(metrics["echelon_ready"] == 1 for metrics in ranks)
        return is_ready and len(epochs) == 1 and epochs.pop() > self.epoch

    def survivors_go_on(self):
        """A later epoch forms, of the same survivors with the weights they had."""
        wait_until(self.formed_again, "a later epoch forms")
        pids, loads_now = self.run.pids(), self.loads_now()
        for rank, metrics in enumerate(map(read_metrics, self.run.metrics)):
            weights = metrics["echelon_weights_bytes"]
            assert metrics["echelon_weights_loaded_bytes"] == weights > 1 << 20
            if rank != self.victim:
                assert pids[rank] == self.pids[rank]
                assert loads_now[rank] == self.loads[rank]
                assert read_bytes(pids[rank]) - self.read[rank] < weights / 10
        if self.victim > 0:  # a new head counts anew
            expected = {r: times + (r == self.victim) for r, times in self.joins.items()}
            assert self.joins_now() == expected


def fail_within_a_second(requests, signalled):
    """Each was answered or failed in time, and at least one of each door's failed."""
    for request in requests:
        assert request.code in ("OK", UNAVAILABLE[request.kind]), request
        assert request.ended - signalled < DETECTED_S, request
    failed = [request for request in requests if request.code != "OK"]
    assert failed
    ms = sorted(1000 * (request.ended - signalled) for request in failed)
    print(f"{len(failed)} of {len(requests)} in flight failed, {ms[0]:.0f} to {ms[-1]:.0f} ms later")


# ---- Workers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages, rank", WORKERS)
def test_a_killed_worker_under_load(pipelines, mlp, in_flight, stages, rank):
    run = pipelines(stages)
    with Load(run, in_flight) as load:
        before = Before(run, rank)
        killed = before.signal(signal.SIGKILL)
        fail_within_a_second(load.in_flight_at(killed), killed)
        before.survivors_go_on()
    serves(run, mlp)


@pytest.mark.parametrize("stages, rank", WORKERS)
def test_a_stopped_worker_under_load(pipelines, mlp, in_flight, stages, rank):
    run = pipelines(stages)
    with Load(run, in_flight) as load:
        before = Before(run, rank)
        stopped = before.signal(signal.SIGSTOP)
        try:
            fail_within_a_second(load.in_flight_at(stopped), stopped)
        finally:
            before.signal(signal.SIGCONT)
        before.survivors_go_on()
        assert run.pids() == before.pids
    serves(run, mlp)


@pytest.mark.parametrize("stages, rank", WORKERS)
def test_a_stopped_worker_of_an_idle_pipeline(pipelines, mlp, stages, rank):
    run = pipelines(stages)
    serves(run, mlp)
    before = Before(run, rank)
    stopped = before.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: not run.status()["formed"], "the epoch ends", DETECTED_S)
        print(f"the epoch ended {1000 * (time.monotonic() - stopped):.0f} ms later")
        for kind in KINDS:  # said at once, with the rank's name
            with Client(kind, run) as client, pytest.raises(Refused, match=f"rank {rank}") as refused:
                client.answer(mlp.runs[0][0], ["output"])
            assert refused.value.code == UNAVAILABLE[kind]
    finally:
        before.signal(signal.SIGCONT)
    before.survivors_go_on()
    serves(run, mlp)


@pytest.mark.parametrize("stages, rank", RANKS)
def test_a_killed_rank_of_an_idle_pipeline(pipelines, mlp, stages, rank):
    run = pipelines(stages)
    serves(run, mlp)
    before = Before(run, rank)
    before.signal(signal.SIGKILL)
    before.survivors_go_on()
    assert run.pids()[rank] != before.pids[rank]
    serves(run, mlp)


# ---- The head -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [2, 3])
def test_the_head_killed_under_load(pipelines, mlp, in_flight, stages):
    run = pipelines(stages)
    with Load(run, in_flight) as load:
        before = Before(run, 0)
        killed = before.signal(signal.SIGKILL)
        for request in load.in_flight_at(killed):  # no HTTP server is left to say 503
            assert request.code in ("OK", "UNAVAILABLE", "CONNECTION"), request
            assert request.ended - killed < DETECTED_S, request
        before.survivors_go_on()
    serves(run, mlp)


@pytest.mark.parametrize("stages", [2, 3])
def test_the_head_stopped_under_load(pipelines, mlp, in_flight, stages):
    """It can answer nobody then: workers leave the epoch, and its requests fail once it goes on."""
    run = pipelines(stages)
    workers = run.metrics[1:]
    with Load(run, in_flight) as load:
        before = Before(run, 0)
        before.signal(signal.SIGSTOP)
        try:
            for address in workers:
                left = lambda a=address: read_metrics(a)["echelon_ready"] == 0  # noqa: E731
                wait_until(left, f"the worker of {address} leaves the epoch", DETECTED_S)
        finally:
            going_on = before.signal(signal.SIGCONT)
        for request in load.in_flight_at(going_on):
            assert request.code in ("OK", UNAVAILABLE[request.kind]), request
            assert request.ended - going_on < DETECTED_S, request
        wait_until(before.formed_again, "a later epoch forms")
        assert run.pids() == before.pids
    serves(run, mlp)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_client_of_a_stopped_head_keeps_its_own_deadline(pipelines, mlp, number):
    run = pipelines(2)
    before = Before(run, 0)
    before.signal(number)
    try:
        with Client("grpc", run, timeout_s=1) as client, pytest.raises(Refused) as refused:
            asked = time.monotonic()
            client.answer(mlp.runs[0][0], ["output"])
        assert refused.value.code in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
        assert time.monotonic() - asked < 5
    finally:
        if number == signal.SIGSTOP:
            before.signal(signal.SIGCONT)
    wait_until(before.formed_again, "a later epoch forms")
    serves(run, mlp)


# ---- Ranks by hand, and echelon run itself -------------------------------------------------------


def test_a_rank_started_again_by_hand_joins_the_survivors(start, net):
    port = free_port()
    stages = [start.stage(net.model, rank, 3, port, "--name=net") for rank in range(3)]
    for stage in stages:
        stage.wait_ready()
    head = stages[0]
    head.http, head.grpc, head.name = head.address("http"), head.address("grpc"), "net"
    for victim in (1, 2):
        stages[victim].destroy()
        wait_until(lambda: not head.is_ready(), "the epoch ends", DETECTED_S)
        stages[victim] = start.stage(net.model, victim, 3, port, "--name=net")
        for stage in stages:
            stage.wait_ready()
        serves(head, net)
    assert len(head.events("ready")) == 3
    for stage in stages:
        assert stage.stderr().count("of weights, read") == 1
        assert stage.stop() == 0


def test_a_head_that_is_back_finds_its_workers(start, net):
    port = free_port()
    head, worker = (start.stage(net.model, rank, 2, port, "--name=net") for rank in range(2))
    for stage in (head, worker):
        stage.wait_ready()
    head.destroy()
    wait_until(lambda: not worker.is_ready(), "the epoch ends", DETECTED_S)
    head = start.stage(net.model, 0, 2, port, "--name=net").wait_ready()
    worker.wait_ready()
    head.http, head.grpc, head.name = head.address("http"), head.address("grpc"), "net"
    serves(head, net)
    assert worker.stderr().count("of weights, read") == 1


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_run_says_which_stage_failed_and_leaves_no_orphan(start, net, rank):
    run = start.run(net.model, 3).wait_ready()
    pid = run.pids()[rank]
    os.kill(pid, signal.SIGKILL)
    assert run.wait(20) == 1
    run.no_orphans()
    last = run.stderr().splitlines()[-1]
    assert last == f"echelon run: rank {rank} (pid {pid}) was killed by signal 9 (Killed)"


def test_no_stage_outlives_a_killed_run(start, net):
    run = start.run(net.model, 3).wait_ready()
    os.kill(run.pids()[1], signal.SIGSTOP)  # not even one that is stopped
    run.signal(signal.SIGKILL)
    run.wait(5)
    run.no_orphans()
    assert not any(map(is_running, run.seen))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_run_stops_cleanly(start, net, number):
    with hangups(signal.SIG_DFL):
        run = start.run(net.model, 2).wait_ready()
    began = time.monotonic()
    assert run.stop(number) == 0
    assert time.monotonic() - began < 5
    assert run.stderr().splitlines()[-1] == "stopping"


def test_run_goes_on_after_a_hangup_when_started_by_nohup(start, net):
    with hangups(signal.SIG_IGN):
        run = start.run(net.model, 2).wait_ready()
    for pid in (run.pid, *run.pids().values()):
        os.kill(pid, signal.SIGHUP)
    serves(run, net)
    assert "stopping" not in run.stderr()
    assert run.stop() == 0


def test_run_stops_while_a_stage_is_stopped(start, net):
    run = start.run(net.model, 2).wait_ready()
    os.kill(run.pids()[1], signal.SIGSTOP)
    assert run.stop() == 0


def test_requests_in_flight_are_answered_when_run_stops(start, mlp, in_flight):
    run = start.run(mlp.model, 2, "--threads=1", name="mlp").wait_ready()
    with Load(run, in_flight, timeout_s=10) as load:
        told = time.monotonic()
        run.signal(signal.SIGTERM)
        requests = load.in_flight_at(told)
        load.stopping.set()
        assert run.wait(20) == 0
    assert {request.code for request in requests} <= {"OK", "UNAVAILABLE", "503"}
    assert any(request.code == "OK" for request in requests)
    run.no_orphans()


def test_a_worker_keeps_its_doors_while_the_head_is_gone(start, net):
    port = free_port()
    head, worker = (start.stage(net.model, rank, 2, port) for rank in range(2))
    for stage in (head, worker):
        stage.wait_ready()
    head.destroy()
    wait_until(lambda: not worker.is_ready(), "the epoch ends", DETECTED_S)
    assert fetch(worker.address("http"), "/healthz") == "ok\n"
    assert read_metrics(worker.address("metrics"))["echelon_ready"] == 0
    assert worker.stop() == 0
