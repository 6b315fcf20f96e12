"""Requests that cannot be served, and bytes that are no request: refused, and the pipeline goes on."""

import json
import os
import re
import socket
import struct
import urllib.error
import urllib.request

import numpy as np
import pytest
from clients import Case, Client, Refused, assert_equal
from pipeline import listening_ports, read_metrics, wait_until

KINDS = ("grpc", "http")
WRONG = {"grpc": "INVALID_ARGUMENT", "http": "400"}
OUTSIDE = {"grpc": "OUT_OF_RANGE", "http": "400"}
UNKNOWN = {"grpc": "NOT_FOUND", "http": "404"}


@pytest.fixture(scope="module")
def running(start_shared):
    case = Case("net")
    run = start_shared.run(case.model, 2, "--max-request-bytes=16MiB", name="net").wait_ready()
    before = run.pids(), run.status()["epoch"]
    yield run
    assert (run.pids(), run.status()["epoch"]) == before  # nothing below ended a process or an epoch
    assert run.stop() == 0


@pytest.fixture(autouse=True)
def still_serves(running, net):
    yield
    inputs, outputs = net.runs[0]
    for kind in KINDS:
        with Client(kind, running) as client:
            assert_equal(client.infer(inputs), outputs, 1e-5)


# ---- Requests ----------------------------------------------------------------------------------------


def rows(count, width=128, dtype=np.float32):
    return np.zeros((count, width), dtype)


REQUESTS = {
    "name": ({"y": rows(4)}, r"input 'y'.*unknown|input 'x'.*missing"),
    "dtype": ({"x": rows(4, dtype=np.float64)}, r"input 'x'.*f64.*takes f32"),
    "width": ({"x": rows(4, 64)}, r"input 'x'.*dimension 1 is 64, must be 128"),
    "dimensions": ({"x": np.zeros(128, np.float32)}, r"input 'x'.*has 1 dimensions"),
    "batch_too_large": ({"x": rows(65)}, r"input 'x'.*dimension 0 is 65.*1\.\.64"),
    "batch_empty": ({"x": rows(0)}, r"input 'x'.*dimension 0 is 0.*1\.\.64"),
    "missing": ({}, r"input 'x'.*missing|no inputs"),
    "one_too_many": ({"x": rows(4), "z": rows(4)}, r"input 'z'.*unknown"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", REQUESTS)
def test_a_request_that_does_not_fit_the_model(running, what, kind):
    inputs, fragment = REQUESTS[what]
    with Client(kind, running) as client, pytest.raises(Refused, match=fragment) as refused:
        client.answer(inputs, ["output"])
    assert refused.value.code == (OUTSIDE if what.startswith("batch") else WRONG)[kind]
    assert "\n" not in refused.value.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_not_served(running, kind):
    with Client(kind, running, name="other") as client:
        with pytest.raises(Refused, match=r"model 'other'.*serves 'net'") as refused:
            client.answer({"x": rows(4)}, ["output"])
    assert refused.value.code == UNKNOWN[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_that_the_model_does_not_have(running, kind):
    with Client(kind, running) as client, pytest.raises(Refused, match=r"no output 'z'") as refused:
        client.answer({"x": rows(4)}, ["z"])
    assert refused.value.code == WRONG[kind]


@pytest.mark.parametrize("kind, code", [("grpc", "RESOURCE_EXHAUSTED"), ("http", "413")])
def test_a_request_beyond_the_limit(running, kind, code):
    with Client(kind, running) as client, pytest.raises(Refused) as refused:
        client.answer({"x": rows(20 << 20 >> 9)}, ["output"])  # 20 MiB
    assert refused.value.code in (code, "CONNECTION")


def post(running, body, **headers):
    url = f"http://{running.http}/v2/models/net/infer"
    request = urllib.request.Request(url, data=body, headers=headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    return refused.value.code, json.loads(refused.value.read())["error"]


def tensor(**changes):
    described = {"name": "x", "shape": [1, 128], "datatype": "FP32", "data": [0.0] * 128}
    return json.dumps({"inputs": [described | changes]}).encode()


@pytest.mark.parametrize(
    "body, fragment",
    [
        (b"", ""),
        (b"{", ""),
        (b"[" * 100_000, ""),
        (b"\xff\xfe\x00", ""),
        (tensor(shape=[1 << 40, 128]), "x"),
        (tensor(shape=[1 << 62, 1 << 62]), "x"),
        (tensor(shape=[-1, 128]), "x"),
        (tensor(shape=[1.5, 128]), ""),
        (tensor(datatype="FP33"), "FP33"),
        (tensor(data=[0.0] * 127), "x"),
        (tensor(data=["a"] * 128), "x"),
    ],
    ids=str,
)
def test_a_body_that_is_no_request(running, body, fragment):
    code, text = post(running, body)
    assert code == 400
    assert fragment in text and "\n" not in text


def talk(port, data, patience_s=0.3, limit=1 << 20):
    """What comes back until the server closes or has been silent for a moment."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=patience_s) as peer:
        try:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while len(answer) < limit and (some := peer.recv(65536)):
                answer += some
        except OSError:  # closed under us, or silent: both are fine
            pass
        return answer


def port_of(address):
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize("length", ["1000000000000000", "99999999999999999999999", "-1", "ten"])
def test_a_claimed_length_that_is_absurd(running, length):
    head = f"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{}}"
    answer = talk(port_of(running.http), head.encode(), patience_s=10)
    assert re.match(rb"HTTP/1\.1 4(00|13) ", answer), answer[:200]


# ---- Garbage -----------------------------------------------------------------------------------------

H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HUGE_FRAME = struct.pack("<IHHQQIIIIQQ", 0x46484345, 1, 1, 1, 1, 0, 0, 1, 0, 1 << 62, 0)
GARBAGE = {
    "random": np.random.default_rng(0).bytes(65536),
    "zeros": bytes(65536),
    "ones": b"\xff" * 65536,
    "lines": b"\r\n" * 4096,
    "http": b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "http_endless_header": b"GET / HTTP/1.1\r\nX: " + b"a" * (1 << 20),
    "tls": bytes.fromhex("160301020001fc0303") + bytes(512),
    "http2": H2_PREFACE + np.random.default_rng(1).bytes(4096),
    "http2_huge_frame": H2_PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(4096),
    "link_huge_frame": HUGE_FRAME + bytes(4096),
    "nothing": b"",
}


def doors(running):
    """Every port that every stage listens on."""
    ports = {rank: listening_ports(pid) for rank, pid in running.pids().items()}
    assert len(ports[0]) == 5  # joins, link, HTTP, gRPC, metrics
    assert len(ports[1]) == 4  # joins are the head's
    return [port for rank in sorted(ports) for port in sorted(ports[rank])]


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_on_every_port(running, what):
    for port in doors(running):
        talk(port, GARBAGE[what])


def test_silent_connections_to_every_port_hold_up_nobody(running, net):
    inputs, outputs = net.runs[0]
    peers = [socket.create_connection(("127.0.0.1", p)) for p in doors(running) for _ in range(20)]
    try:
        for kind in KINDS:
            with Client(kind, running, timeout_s=10) as client:
                assert_equal(client.infer(inputs), outputs, 1e-5)
        assert all(read_metrics(address)["echelon_ready"] == 1 for address in running.metrics)
    finally:
        for peer in peers:
            peer.close()


def test_garbage_leaves_no_descriptor_behind(running):
    def descriptors():
        return [len(os.listdir(f"/proc/{pid}/fd")) for _, pid in sorted(running.pids().items())]

    def is_back():
        return all(now <= then + 2 for now, then in zip(descriptors(), before, strict=True))

    before = descriptors()
    for port in doors(running):
        for _ in range(50):
            talk(port, GARBAGE["random"], patience_s=0.01)
    wait_until(is_back, f"descriptors are back at {before}")
