"""What a kubelet asks a rank, and how one ends that cannot go on."""

import contextlib
import os
import signal

import grpc
import pytest
from pipeline import fetch, listening_ports, wait_until
from ports import free_port

SERVING, NOT_SERVING = 1, 2
PROBES = {"startup": SERVING, "live": SERVING, "ready": SERVING, "": SERVING}
WAITING = PROBES | {"ready": NOT_SERVING, "": NOT_SERVING}


def probe(port, service):
    """grpc.health.v1's answer; None when there is no server."""
    request = bytes([10, len(service)]) + service.encode() if service else b""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = check(request, timeout=5)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                return None
            raise
    return answer[1] if answer else 0


def probes(port):
    return {service: probe(port, service) for service in PROBES}


@pytest.fixture
def probed(start, net):
    """start(rank, *flags): a rank of two with its health port."""
    group_port = free_port()

    def start_rank(rank, *flags, model=net.model):
        stage = start.stage(model, rank, 2, group_port, f"--health-port={free_port()}", *flags)
        stage.health = int(next(w for w in stage.words if w.startswith("--health-port=")).split("=")[1])
        return stage

    return start_rank


def test_probes_tell_a_rank_that_waits_from_one_that_serves(probed):
    head = probed(0)
    wait_until(lambda: probe(head.health, "startup") == SERVING, "the head's health server is there")
    wait_until(lambda: '"loaded"' in fetch(head.address("http"), "/status"), "the head has loaded")
    assert probes(head.health) == WAITING
    worker = probed(1)
    for stage in (head, worker):
        wait_until(lambda s=stage: probes(s.health) == PROBES, "all serve")
    worker.destroy()
    wait_until(lambda: probes(head.health) == WAITING, "the head is not ready any more", 2)


def test_an_unknown_probe_is_an_error_not_a_yes(probed):
    head = probed(0)
    head.ports()
    with pytest.raises(grpc.RpcError) as error:
        probe(head.health, "lively")
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_health_port_that_is_taken_is_named(start, net):
    port = free_port()
    first = start.stage(net.model, 0, 2, free_port(), f"--health-port={port}")
    first.ports()
    second = start.stage(net.model, 0, 2, free_port(), f"--health-port={port}")
    assert second.wait() == 1
    assert f"port {port} is taken; choose another with --health-port" in second.stderr()


def test_a_rank_without_a_health_port_opens_none(start, net):
    head = start.stage(net.model, 0, 1, free_port()).wait_ready()
    assert listening_ports(head.pid) == set(head.ports().values()) - {"ports"}
    assert head.stop() == 0


@contextlib.contextmanager
def stalled(path):
    """A file whose reader waits: nobody writes to it."""
    os.mkfifo(path)
    yield path
    with contextlib.suppress(OSError):  # lets a reader that still waits go
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def test_a_file_that_cannot_be_read_ends_the_rank_by_name(probed, tmp_path):
    said = tmp_path / "termination-log"
    with stalled(tmp_path / "stalled.pt2") as model:
        flags = ("--no-progress-seconds=1", f"--report-termination={said}")
        rank = probed(1, *flags, model=model)
        wait_until(lambda: probe(rank.health, "live") == SERVING, "it lives while it reads")
        assert rank.wait(20) == 1
    line = f"rank 1: no progress for 1 s while {model} was opened; see whether {model} can be read"
    assert rank.stderr().splitlines()[-1] == f"echelon-stage: {line}"
    assert said.read_text() == line


def test_waiting_for_others_is_no_lack_of_progress(probed):
    ranks = [probed(0, "--no-progress-seconds=0.3", "--join-timeout=0")]
    wait_until(lambda: '"loaded"' in fetch(ranks[0].address("http"), "/status"), "it has loaded")
    with pytest.raises(AssertionError, match="not ended within"):
        ranks[0].wait(2)
    assert probes(ranks[0].health) == WAITING
    ranks.append(probed(1, "--no-progress-seconds=0.3", "--join-timeout=0"))
    for rank in ranks:
        rank.wait_ready()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_fatal_error_is_left_for_whoever_looks_at_the_container(probed, tmp_path, rank):
    said = tmp_path / "termination-log"
    stage = probed(rank, f"--report-termination={said}", model=tmp_path / "missing.pt2")
    assert stage.wait() == 1
    assert stage.stderr().splitlines()[-1] == f"echelon-stage: {said.read_text()}"
    assert said.read_text().startswith(f"rank {rank}: ")


def test_a_termination_file_that_cannot_be_written_changes_nothing(probed, tmp_path):
    stage = probed(0, f"--report-termination={tmp_path}/no/such/folder", model=tmp_path / "missing.pt2")
    assert stage.wait() == 1
    assert "missing.pt2" in stage.stderr()


def test_a_rank_that_reads_ends_at_once_when_told(probed, tmp_path):
    with stalled(tmp_path / "stalled.pt2") as model:
        rank = probed(1, model=model)
        wait_until(lambda: probe(rank.health, "live") == SERVING, "it lives while it reads")
        rank.signal(signal.SIGTERM)
        assert rank.wait(5) == 0


def test_the_head_listens_where_it_is_told_and_is_dialled_by_name(start, net):
    """A pod's own name may not resolve yet when its head starts."""
    port = free_port()
    head = start.stage(net.model, 0, 2, port, "--host=not-yet.invalid", "--bind=127.0.0.1")
    worker = start.stage(net.model, 1, 2, port)
    for stage in (head, worker):
        stage.wait_ready()
