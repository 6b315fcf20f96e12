"""What is wrong with a command is said in one line that names it, soon, with an exit status."""

import re
import socket

import broken
import pytest
from clients import Case
from pipeline import BIN, Process
from ports import free_port

SOON_S = 20  # machines are loaded; a process starts in under a second on an idle one
LOG_LINE = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} rank \d+ (info|warning): ")
PROGRESS = re.compile(r"^rank \d+: loaded |^stopping$|^  ")


def complaint(process, within_s=SOON_S):
    """The one line that a process ended with."""
    status = process.wait(within_s)
    assert status in (1, 2), f"status {status}: {process.stderr()}"
    lines = process.stderr().splitlines()
    rest = [x for x in lines if not LOG_LINE.match(x) and not PROGRESS.match(x)]
    assert len(rest) == 1, process.stderr()
    assert rest[0].startswith(("echelon-stage: ", "echelon run: ", "echelon plan: "))
    return rest[0]


def expect(process, *fragments, within_s=SOON_S):
    line = complaint(process, within_s)
    print(line)
    for fragment in fragments:
        assert re.search(str(fragment), line), line


@pytest.fixture(scope="module")
def mlp():
    return Case("bench_mlp")


# ---- The model file ------------------------------------------------------------------------------

FILES = {
    "truncated": (broken.truncated, r"truncated one: no zip directory"),
    "no_zip": (lambda _, target: target.write_text("hello " * 100), r"damaged|no zip|not a"),
    "empty": (lambda _, target: target.write_bytes(b""), r"damaged|empty"),
    "absent": (lambda *_: None, r"cannot be opened|No such file"),
    "folder": (lambda _, target: target.mkdir(), r"cannot be opened|directory|folder"),
    "corrupted_directory": (
        lambda source, target: broken.flipped_at(source, target, b"PK\x01\x02"),
        r"damaged or truncated archive",
    ),
    "corrupted_header": (
        lambda source, target: broken.flipped_at(source, target, b"PK\x03\x04"),
        r"damaged or truncated archive",
    ),
    "corrupted_json": (
        lambda source, target: broken.flipped_at(source, target, b'"graph_module"'),
        r"models/model\.json",
    ),
    "compressed": (broken.compressed, r"compressed"),
    "schema": (broken.wrong_schema, r"schema.*99"),
    "operator": (broken.unknown_operator, r"mylib[.:]+gelu3"),
    "record": (broken.missing_record, r"net2\.weight.*weight_2.* missing"),
    "tensor": (broken.missing_tensor, r"net2\.weight.*neither weights nor constants"),
    "shape": (broken.wrong_shape, r"net2\.weight.*8x4096"),
    "short_record": (broken.short_record, r"net2\.weight.*needs 4096 bytes.*1000"),
    "damaged_weights": (
        broken.damaged_weights,
        r"tensor \"net2\.weight\" is damaged: its CRC-32 is [0-9a-f]{8}, the archive says [0-9a-f]{8}; copy",
    ),
    "pickled": (broken.pickled, r"net2\.weight.*pickled"),
}


SOME_FILES = ["truncated", "operator", "shape"]  # a program more would only repeat the reader's tests


@pytest.mark.parametrize(
    "what, program",
    [(what, "stage") for what in FILES]
    + [(what, program) for what in SOME_FILES for program in ("run", "plan")],
)
def test_a_bad_model_file(start, net, tmp_path, what, program):
    spoil, fragment = FILES[what]
    file = tmp_path / f"{what}.pt2"
    spoil(net.model, file)
    if program == "stage":
        process = start.stage(file, 0, 1, 0)
    elif program == "run":
        process = start.run(file, 2)
    else:
        process = start(Process, [BIN / "echelon", "plan", file, "--stages", 2])
    expect(process, re.escape(file.name), fragment)


def test_weights_are_taken_as_they_are_where_that_is_asked_for(start, net, tmp_path):
    file = broken.damaged_weights(net.model, tmp_path / "damaged.pt2")
    start.stage(file, 0, 1, 0, "--no-verify-weights").wait_ready()


# ---- The plan ------------------------------------------------------------------------------------

PLANS = {
    "stages": (["--stages=40"], r"40 stages need 39 cuts, but the graph has \d+ .*use at most"),
    "memory": (["--stages=2", "--stage-memory=1KiB"], r"stage \d needs .*--stage-memory"),
    "memory_count": (["--stages=2", "--stage-memory=1GiB,1GiB,1GiB"], r"3 entries for 2 stages"),
    "memory_word": (["--stages=2", "--stage-memory=lots"], r"--stage-memory.*'lots' is no size"),
    "memory_negative": (["--stages=2", "--stage-memory=-1GiB"], r"--stage-memory.*is no size"),
    "speed": (["--stages=2", "--stage-speed=1,0"], r"--stage-speed.*no positive number"),
    "policy": (["--stages=2", "--policy=best"], r"policy 'best' is not known; use balanced"),
    "threshold": (["--stages=2", "--policy=threshold"], r"needs --threshold"),
    "threshold_word": (["--stages=2", "--policy=threshold", "--threshold=x"], r"--threshold.*'x'"),
    "point": (["--stages=2", "--policy=points", "--split-points=net9"], r"module 'net9'"),
    "points": (["--stages=2", "--policy=points"], r"one module fewer than stages"),
    "times": (["--stages=2", "--policy=measured", "--times=no.json"], r"--times no\.json"),
}


@pytest.mark.parametrize(
    "what, program",
    [(what, "plan") for what in PLANS] + [(what, "run") for what in ("stages", "memory", "policy")],
)
def test_a_plan_that_cannot_be(start, net, what, program):
    flags, fragment = PLANS[what]
    if program == "run":
        process = start.run(net.model, flags[0].removeprefix("--stages="), *flags[1:])
    else:
        process = start(Process, [BIN / "echelon", "plan", net.model, *flags])
    expect(process, fragment)
    assert "loaded" not in process.stderr()


# ---- Flags and the environment ---------------------------------------------------------------------

FLAGS = {
    "rank_beyond_world": ({"RANK": 2, "WORLD": 2}, [], r"RANK=2 is outside WORLD=2.*0 to 1"),
    "rank_negative": ({"RANK": -1, "WORLD": 2}, [], r"RANK=-1 is outside WORLD=2"),
    "rank_word": ({"RANK": "first"}, [], r"RANK=first is no number"),
    "flag_word": ({}, ["--http-port=many"], r"--http-port=many is no number"),
    "flag_twice": ({}, ["--chunks=1", "--chunks=2"], r"--chunks is given more than once; give it once"),
    "world_zero": ({"RANK": 0, "WORLD": 0}, [], r"WORLD=0"),
    "port_of_a_worker": ({"RANK": 1, "WORLD": 2, "PORT": 0}, [], r"PORT=0: only rank 0"),
    "port_range": ({"PORT": 70000}, [], r"PORT.*70000"),
    "http_port": ({}, ["--http-port=-5"], r"--http-port.*-5"),
    "chunks": ({}, ["--chunks=0"], r"--chunks"),
    "request_bytes": ({}, ["--max-request-bytes=much"], r"--max-request-bytes.*'much'"),
    "bind": ({}, ["--bind=300.1.1.1"], r"300\.1\.1\.1"),
    "unknown": ({}, ["--stagse=2"], r"--stagse"),
}


@pytest.mark.parametrize("what", FLAGS)
def test_a_flag_that_is_wrong(start, net, what):
    env, flags, fragment = FLAGS[what]
    rank, world, port = env.get("RANK", 0), env.get("WORLD", 1), env.get("PORT", 0)
    expect(start.stage(net.model, rank, world, port, *flags), fragment)


def test_chunks_of_a_model_whose_batch_cannot_be_split(start):
    model = Case("batchnorm_training").model
    expect(start.stage(model, 0, 1, 0, "--chunks=2"), r"--chunks 2.*cannot be split")


# ---- Ports -------------------------------------------------------------------------------------------


@pytest.fixture
def taken():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.mark.parametrize("flag", ["--http-port", "--grpc-port", "--metrics-port", "--link-port"])
def test_a_port_of_a_stage_that_is_taken(start, net, taken, flag):
    stage = start.stage(net.model, 0, 2, 0, f"{flag}={taken}")
    expect(stage, rf"port {taken}( of 127\.0\.0\.1)? is taken", flag)
    assert "loaded" not in stage.stderr()


def test_the_port_where_ranks_join_that_is_taken(start, net, taken):
    expect(start.stage(net.model, 0, 2, taken), rf"port {taken} is taken", r"--port or PORT")


@pytest.mark.parametrize("flag", ["--http-port", "--grpc-port", "--metrics-port"])
def test_a_port_of_run_that_is_taken(start, net, taken, flag):
    expect(start.run(net.model, 2, f"{flag}={taken}"), rf"port {taken} is taken", flag)


def test_a_second_head_on_the_same_port(start, net):
    port = free_port()
    start.stage(net.model, 0, 2, port).ports()
    expect(start.stage(net.model, 0, 2, port), rf"port {port} is taken")
    start.stage(net.model, 1, 2, port).wait_ready()


# ---- The group ---------------------------------------------------------------------------------------


def test_a_missing_rank_is_named(start, net):
    port = free_port()
    flags = ("--join-timeout=3",)
    head, worker = (start.stage(net.model, rank, 3, port, *flags) for rank in range(2))
    expect(head, r"rank 2", r"within 3 s")
    assert "rank 1" not in complaint(head)
    expect(worker, r"rank 1: ")


def test_a_head_that_cannot_be_reached(start, net):
    port = free_port()
    worker = start.stage(net.model, 1, 2, port, "--join-timeout=1")
    expect(worker, rf"cannot reach the head at 127\.0\.0\.1:{port} within 1 s")


def test_two_processes_with_one_rank(start, net):
    port = free_port()
    stages = [start.stage(net.model, rank, 2, port, "--name=net") for rank in range(2)]
    for stage in stages:
        stage.wait_ready()
    expect(start.stage(net.model, 1, 2, port), r"rank 1 is already taken by a process at 127\.0\.0\.1")
    assert all(stage.is_ready() and len(stage.events("ready")) == 1 for stage in stages)


@pytest.mark.parametrize(
    "what, fragments",
    {
        "world": [r"WORLD=3", r"WORLD=2"],
        "revision": [r"revision \"two\"", r"\"one\""],
        "graph": [r"model file differs", r"same file"],
        "weights": [r"model file differs", r"same file"],
    }.items(),
)
def test_a_rank_that_does_not_belong_is_refused_and_the_right_one_let_in(
    start, net, tmp_path, what, fragments
):
    port = free_port()
    head = start.stage(net.model, 0, 2, port, "--revision=one")
    model, world, revision = net.model, 2, "one"
    if what == "world":
        world = 3
    elif what == "revision":
        revision = "two"
    else:
        spoil = broken.other_graph if what == "graph" else broken.other_weights
        model = spoil(net.model, tmp_path / "other.pt2")
    expect(start.stage(model, 1, world, port, f"--revision={revision}"), r"^echelon-stage: rank 1 is refused: ", *fragments)
    start.stage(net.model, 1, 2, port, "--revision=one").wait_ready()
    head.wait_ready()


def test_a_rank_without_memory_for_its_stage(start, mlp):
    expect(start.run(mlp.model, 2, "--stage-memory=8MiB"), r"stage 0 needs", r"--stage-memory")
