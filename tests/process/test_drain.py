"""Ranks that are told to stop, as Kubernetes does it: what runs is finished, and everyone ends well."""

import http.client
import json
import signal
import threading
import time

import numpy as np
import pytest
from clients import Case, Client, Refused, assert_equal
from pipeline import cpu_seconds, fetch, wait_until, with_defaults
from ports import free_port
from test_probes import NOT_SERVING, SERVING, probe

LONG_ROWS = 4096  # a request of a second or more


@pytest.fixture(scope="module")
def mlp():
    return Case("bench_mlp")


class Group:
    """Ranks started by hand, as pods are."""

    def __init__(self, start, case, world, *flags):
        self.start, self.case, self.world = start, case, world
        self.port = free_port()
        self.flags = with_defaults(flags, ("--name=mlp", "--threads=1", "--drain-seconds=60"))
        self.health = [free_port() for _ in range(world)]
        self.ranks = [self.started(rank) for rank in range(world)]
        # Of all, not of the first that is not: one that has ended is named at once.
        wait_until(lambda: all([rank.is_ready() for rank in self.ranks]), lambda: f"all ready: {self.ranks}")

    def started(self, rank):
        flags = (*self.flags, f"--health-port={self.health[rank]}")
        return self.start.stage(self.case.model, rank, self.world, self.port, *flags)

    def __getattr__(self, door):  # the head's: http, grpc
        return self.ranks[0].address(door)

    name = "mlp"

    def status(self):
        return json.loads(fetch(self.http, "/status"))

    def loads(self, rank):
        return self.ranks[rank].stderr().count("of weights, read")


class Asked(threading.Thread):
    """A request that is under way."""

    def __init__(self, group, kind, rows, width=1024):
        super().__init__(daemon=True)
        self.group, self.kind, self.shape = group, kind, (rows, width)
        self.code = self.answer = self.ended = None
        self.start()

    def run(self):
        inputs = {"input": np.ones(self.shape, np.float32)}
        try:
            with Client(self.kind, self.group, timeout_s=120) as client:
                self.answer = client.answer(inputs, ["output"])["output"]
            self.code = "OK"
        except Refused as refused:
            self.code = refused.code
            print(f"refused: {refused}")
        self.ended = time.monotonic()

    def result(self, within_s=120):
        self.join(within_s)
        assert not self.is_alive(), "the request never ended"
        return self.code


class Several:
    """Requests of which the first has gone through stage 0, and the last takes seconds yet."""

    def __init__(self, group, kind="grpc", count=4, rows=LONG_ROWS, width=1024):
        before = sent_bytes(group)
        self.asked = [Asked(group, kind, rows, width) for _ in range(count)]
        over = lambda: [asked.code for asked in self.asked if asked.ended]  # noqa: E731
        wait_until(lambda: sent_bytes(group) > before or over(), "a request runs", 30)
        assert not over(), "it was over too soon"

    def results(self, within_s=120):
        return {asked.result(within_s) for asked in self.asked}


def sent_bytes(group):
    """Bytes that the head has sent to the next rank: its first stage is done with something."""
    text = fetch(group.ranks[0].address("metrics"), "/metrics")
    rows = [line for line in text.splitlines() if line.startswith("echelon_link_sent_bytes_total")]
    return float(rows[0].split()[-1])


def test_a_worker_that_is_told_to_stop_stays_until_what_runs_is_answered(start, mlp):
    group, victim = Group(start, mlp, 3), 2
    running = Several(group)
    leaver = group.ranks[victim]
    leaver.signal(signal.SIGTERM)
    assert leaver.wait(120) == 0
    assert running.results(5) == {"OK"}
    assert "closed: rank " + str(victim) + " leaves" in group.ranks[0].stderr()
    waiting = Asked(group, "grpc", 1)
    wait_until(lambda: probe(group.health[0], "ready") == NOT_SERVING, "the head is not ready", 2)
    assert waiting.ended is None, "a client waits for the next epoch"
    group.ranks[victim] = group.started(victim)
    assert waiting.result() == "OK"
    for rank in group.ranks:
        rank.wait_ready()
    assert [group.loads(rank) for rank in range(3)] == [1, 1, 1]


def test_an_idle_worker_that_is_told_to_stop_is_gone_soon(start, mlp):
    group = Group(start, mlp, 2)
    told = time.monotonic()
    group.ranks[1].signal(signal.SIGTERM)
    assert group.ranks[1].wait(10) == 0
    print(f"gone after {time.monotonic() - told:.1f} s")
    assert group.status()["ranks"][1]["lastError"] == "it was told to stop"


def test_a_worker_without_a_head_stops_at_once(start, mlp):
    group = Group(start, mlp, 2)
    group.ranks[0].destroy()
    wait_until(lambda: not group.ranks[1].is_ready(), "the epoch ends", 2)
    assert group.ranks[1].stop(within_s=3) == 0


def test_a_head_killed_while_a_worker_waits_for_its_release_keeps_nobody(start, mlp):
    group = Group(start, mlp, 2)
    running = Several(group)
    group.ranks[1].signal(signal.SIGTERM)
    wait_until(lambda: "told to stop" in group.ranks[0].stderr(), "the head knows", 5)
    group.ranks[0].destroy()
    assert group.ranks[1].wait(20) == 0  # the step that it computes is finished
    assert running.results(10) != {"OK"}


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_a_head_that_is_told_to_stop_answers_what_it_has_accepted(start, mlp, kind):
    group = Group(start, mlp, 2)
    running, queued = Several(group, kind), [Asked(group, kind, 8) for _ in range(3)]
    address = group.http
    group.ranks[0].signal(signal.SIGTERM)
    wait_until(lambda: probe(group.health[0], "ready") == NOT_SERVING, "it is not ready", 1)
    assert probe(group.health[0], "live") == SERVING
    status = json.loads(fetch(address, "/status"))
    assert status["draining"] and status["formed"]
    assert running.results() == {"OK"}
    assert [asked.result(5) for asked in queued] == ["OK"] * 3
    assert group.ranks[0].wait(10) == 0
    assert group.ranks[1].is_running(), "a worker that was not told to stop stays"
    group.ranks[0] = group.started(0).wait_ready()
    group.ranks[1].wait_ready()
    assert group.loads(1) == 1
    inputs, outputs = mlp.runs[0]
    with Client("grpc", group) as client:
        assert_equal(client.infer(inputs), outputs, 1e-5)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=["head first", "head last"])
def test_a_whole_group_told_to_stop_answers_and_ends_well(start, mlp, order):
    group = Group(start, mlp, 3)
    running, other = Several(group), [Asked(group, "http", rows) for rows in (LONG_ROWS, 8)]
    for rank in order:
        group.ranks[rank].signal(signal.SIGTERM)
    assert running.results() == {"OK"}
    assert [asked.result() for asked in other] == ["OK"] * 2
    assert [rank.wait(10) for rank in group.ranks] == [0, 0, 0]
    assert not any("is gone" in rank.stderr() for rank in group.ranks)


def test_an_idle_group_takes_requests_until_its_endpoints_have_moved(start, mlp):
    group = Group(start, mlp, 2)
    with Client("grpc", group) as client:
        client.infer(mlp.runs[0][0], ["output"])
        for rank in reversed(group.ranks):
            rank.signal(signal.SIGTERM)
        wait_until(lambda: probe(group.health[0], "ready") == NOT_SERVING, "it is not ready", 1)
        client.infer(mlp.runs[0][0], ["output"])
    assert [rank.wait(10) for rank in group.ranks] == [0, 0]


def test_keep_alive_ends_with_the_next_answer(start, mlp):
    group = Group(start, mlp, 1)
    connection = http.client.HTTPConnection(group.http, timeout=10)
    connection.request("GET", "/v2")
    first = connection.getresponse()
    assert first.read() and first.getheader("Connection") != "close"
    group.ranks[0].signal(signal.SIGTERM)
    wait_until(lambda: probe(group.health[0], "ready") == NOT_SERVING, "it is not ready", 1)
    connection.request("GET", "/v2")
    second = connection.getresponse()
    assert second.status == 200 and second.getheader("Connection") == "close"
    assert group.ranks[0].wait(10) == 0


def test_what_takes_longer_than_the_drain_fails_and_the_group_ends_well(start):
    group = Group(start, Case("big"), 2, "--drain-seconds=0.2")
    running = Several(group, count=8, rows=1024, width=4096)  # a second and more a stage, each
    for rank in group.ranks:
        rank.signal(signal.SIGTERM)
    codes = running.results(15)
    assert "UNAVAILABLE" in codes and codes <= {"OK", "UNAVAILABLE"}
    assert [rank.wait(15) for rank in group.ranks] == [0, 0]


def test_a_step_that_outlives_the_drain_is_not_waited_for(start):
    group = Group(start, Case("big"), 2, "--drain-seconds=0.2", "--chunks=1")
    asked = Asked(group, "grpc", 4096, width=4096)  # ten seconds of work a stage, in one step
    head, before = group.ranks[0], cpu_seconds(group.ranks[0].pid)
    wait_until(lambda: cpu_seconds(head.pid) > before + 2, "stage 0 computes", 60)
    for rank in group.ranks:
        rank.signal(signal.SIGTERM)
    assert [rank.wait(4) for rank in group.ranks] == [0, 0]
    assert asked.result(5) == "UNAVAILABLE"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_second_signal_ends_a_rank_at_once(start, mlp, rank):
    group = Group(start, mlp, 2)
    running = Several(group)
    for _ in range(2):
        group.ranks[rank].signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in group.ranks[rank].stderr(), "it has heard")
    assert group.ranks[rank].wait(3) == 128 + signal.SIGTERM
    assert running.results(10) <= {"OK", "UNAVAILABLE"}


def test_a_stopped_worker_does_not_hold_up_a_head(start, mlp):
    group = Group(start, mlp, 2)
    running = Several(group)
    group.ranks[1].signal(signal.SIGSTOP)
    group.ranks[0].signal(signal.SIGTERM)
    assert "UNAVAILABLE" in running.results(10)
    assert group.ranks[0].wait(10) == 0
    group.ranks[1].signal(signal.SIGCONT)
