"""`echelon generate` and the text door with SmolLM2's real weights, over real processes."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from pipeline import BIN, ROOT, hangups, wait_until
from ports import free_port

CONVERT = ROOT / "examples/smollm2/convert.py"
ANSWER = "The capital of France is Paris."
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    folder = pathlib.Path(os.environ.get("ECHELON_BUILD", ROOT / "build")) / "smollm2"
    subprocess.run([sys.executable, CONVERT, "-o", folder], check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    exporter = pathlib.Path(sys.executable).with_name("echelon-export")
    return os.environ | {"ECHELON_CACHE": str(tmp_path_factory.mktemp("cache")), "ECHELON_EXPORT": str(exporter)}


def generate(target, prompt, *flags, env):
    exporting = ["--dtype=f32", "--max-model-len=2048"] if pathlib.Path(target).is_dir() else []
    words = [BIN / "echelon", "generate", target, prompt, *exporting, *flags]
    return subprocess.run(words, capture_output=True, text=True, timeout=150, env=env)


def alive_in(mark):
    """The processes whose words hold it."""
    found = subprocess.run(["ps", "-eww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if mark in line]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_question_is_answered_over_stages(smollm2, environment, stages):
    done = generate(smollm2, QUESTION, f"--stages={stages}", env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ANSWER
    last = done.stderr.splitlines()[-1]  # nothing is said after what was asked for
    assert re.match(r"37 prompt tokens; first token after .* s; 8 tokens", last), done.stderr
    # Though the checkpoint is bf16, half as large, each rank names one total: its own.
    told = set(re.findall(r"^rank (\d): loaded \S+ \S+ of (.+)$", done.stderr, re.MULTILINE))
    assert len(told) == len({rank for rank, _ in told}) == stages, told


@pytest.fixture(scope="module")
def served(smollm2, environment, tmp_path_factory):
    endpoints = tmp_path_factory.mktemp("served") / "endpoints.json"
    words = [BIN / "echelon", "run", smollm2, "--stages=2", "--dtype=f32", "--max-model-len=2048", "--restarts=1"]
    words += ["--http-port=0", "--grpc-port=0", "--metrics-port=0", f"--json-endpoints={endpoints}"]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 120
    while not endpoints.exists():
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline, "not ready within 120 s"
        try:
            child.wait(0.05)
        except subprocess.TimeoutExpired:
            pass
    yield json.loads(endpoints.read_text())
    child.terminate()
    assert child.wait(30) == 0
    child.stderr.close()


def test_json_lines_tell_tokens_and_usage(served, environment):
    done = generate(served["grpc"], QUESTION, "--json", "--logprobs=2", env=environment)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert "".join(line["text"] for line in lines) == ANSWER
    assert lines[-1]["finish_reason"] == "stop"
    assert lines[-1]["usage"] == {"prompt_tokens": 37, "completion_tokens": 8}
    assert sum(len(line["token_ids"]) for line in lines) == 8
    first = lines[0]["logprobs"][0]
    assert first["top"][0]["token"] == first["token"] and len(first["top"]) == 2
    assert first["top"][0]["token_id"] == first["token_id"] == lines[0]["token_ids"][0]


def test_users_at_once_get_what_each_gets_alone(served, environment):
    prompts = [QUESTION, "Write a short poem about the sea.", "Name three colours.", QUESTION]

    def start(prompt):
        words = [BIN / "echelon", "generate", served["grpc"], prompt, "--max-tokens=24"]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    alone = [start(prompt).communicate(timeout=120)[0] for prompt in prompts]
    together = [child.communicate(timeout=120)[0] for child in [start(prompt) for prompt in prompts]]
    assert together == alone
    assert alone[0].strip() == ANSWER


def test_a_seed_repeats_a_text_and_another_does_not(served, environment):
    flags = ("--temperature=1.0", "--max-tokens=24")
    first, again, other = (
        generate(served["grpc"], "Tell me a story.", *flags, f"--seed={seed}", env=environment).stdout
        for seed in (7, 7, 8)
    )
    assert first == again != other


def test_a_stop_string_ends_the_answer_and_is_not_shown(served, environment):
    done = generate(served["grpc"], QUESTION, "--stop= is", "--json", env=environment)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert "".join(line["text"] for line in lines) == "The capital of France"
    assert lines[-1]["finish_reason"] == "stop"


def test_a_lost_stage_fails_the_request_and_the_group_serves_again(served, environment):
    words = [BIN / "echelon", "generate", served["grpc"], "Count.", "--ignore-eos", "--max-tokens=1500"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert child.stdout.read(1)  # it is under way
    os.kill(served["pids"][1], signal.SIGKILL)
    _, error = child.communicate(timeout=30)
    assert child.returncode == 1 and error.count("\n") == 1, error
    deadline = time.monotonic() + 60
    while (done := generate(served["grpc"], QUESTION, env=environment)).returncode != 0:
        assert time.monotonic() < deadline, done.stderr
    assert done.stdout.strip() == ANSWER


def test_a_stage_that_dies_is_named_with_its_reason(smollm2, environment, tmp_path):
    words = [BIN / "echelon", "generate", smollm2, "Count.", "--dtype=f32", "--max-model-len=2048", "--ignore-eos"]
    words += ["--max-tokens=0", "--stages=2"]
    mark = str(tmp_path)
    child = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment | {"TMPDIR": mark}
    )
    assert child.stdout.read(1)
    runner = int(alive_in(mark)[0].split()[0])
    stages = pathlib.Path(f"/proc/{runner}/task/{runner}/children").read_text().split()
    victim = next(pid for pid in stages if b"--rank=1\0" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(int(victim), signal.SIGKILL)
    _, error = child.communicate(timeout=30)
    assert child.returncode == 1
    assert f"rank 1 (pid {victim}) was killed by signal 9" in error, error
    assert not alive_in(mark)


def test_ctrl_c_while_exporting_ends_the_exporter(smollm2, environment, tmp_path):
    cache = str(tmp_path / "cache")
    words = [BIN / "echelon", "generate", smollm2, "Count.", "--dtype=f32", "--max-model-len=1024"]
    child = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment | {"ECHELON_CACHE": cache}
    )
    wait_until(lambda: alive_in(f"--cache {cache}"), "the exporter")
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert child.returncode == 130
    wait_until(lambda: not alive_in(f"--cache {cache}"), "the exporter's end", within_s=20)


def start_generating(smollm2, environment, mark, tokens):
    """It, as its first words have come. Its `echelon run` is told of a file in `mark`."""
    words = [BIN / "echelon", "generate", smollm2, "Count.", "--dtype=f32", "--max-model-len=2048", "--ignore-eos"]
    words += [f"--max-tokens={tokens}", "--stages=2"]
    child = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment | {"TMPDIR": mark}
    )
    assert child.stdout.read(1)
    assert alive_in(mark), "echelon run should be there"
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing(smollm2, environment, tmp_path, number):
    with hangups(signal.SIG_DFL):
        child = start_generating(smollm2, environment, str(tmp_path), tokens=0)
    child.send_signal(number)
    child.communicate(timeout=30)
    assert child.returncode == 130
    assert not alive_in(str(tmp_path))


def test_a_hangup_is_nothing_to_it_when_started_by_nohup(smollm2, environment, tmp_path):
    with hangups(signal.SIG_IGN):
        child = start_generating(smollm2, environment, str(tmp_path), tokens=64)
    run = int(alive_in(str(tmp_path))[0].split()[0])
    for pid in (run, child.pid):
        os.kill(pid, signal.SIGHUP)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 0 and " 64 tokens, " in said, said


@pytest.mark.parametrize(
    "flags, said",
    [
        (("--top-p=2",), "top_p"),
        (("--temperature=-1",), "temperature"),
        (("--max-tokens=-1",), "max_tokens"),
        (("--max-tokens=99999",), "max_tokens"),
    ],
)
def test_bad_options_are_named(served, environment, flags, said):
    done = generate(served["grpc"], QUESTION, *flags, env=environment)
    assert done.returncode == 1
    assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_words_that_are_no_text_are_refused(served, environment):
    done = generate(served["grpc"], b"\xff\xfe", env=environment)
    assert done.returncode == 1 and done.stderr == "echelon generate: the prompt is not UTF-8 text\n"


def test_a_server_that_is_not_there_is_named(environment):
    port = free_port()
    done = generate(f"127.0.0.1:{port}", QUESTION, env=environment)
    assert done.returncode == 1
    assert f"cannot reach 127.0.0.1:{port}" in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("command", ["run", "plan"])
def test_flags_of_an_export_are_refused_for_a_file(command, environment):
    words = [BIN / "echelon", command, "model.pt2", "--dtype=f32"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, env=environment)
    assert done.returncode == 1
    assert "--dtype: model.pt2 is exported already" in done.stderr and done.stderr.count("\n") == 1


def test_a_length_below_one_is_refused(smollm2, environment):
    words = [BIN / "echelon", "plan", smollm2, "--max-model-len=-5"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, env=environment)
    assert done.returncode == 1
    assert done.stderr == "echelon plan: --max-model-len -5 is no number of tokens above 0\n"


def test_memory_that_the_stages_lack_together_is_told_before_they_load(smollm2, environment):
    words = [BIN / "echelon", "run", smollm2, "--stages=2", "--dtype=f32", "--max-model-len=2048", "--kv-memory=20TiB"]
    words += ["--http-port=0", "--grpc-port=0", "--metrics-port=0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=150, env=environment)
    assert done.returncode == 1
    said = r"echelon run: the stages together need 0\.\d+ GiB for weights and \d+\.\d+ GiB for KV cache, and \S+ GiB"
    assert re.search(said, done.stderr), done.stderr
    assert "loaded" not in done.stderr


def test_flags_of_stages_are_refused_for_a_server(served, environment):
    done = generate(served["grpc"], QUESTION, "--stages=2", env=environment)
    assert done.returncode == 1 and done.stderr.startswith("echelon generate: --stages: "), done.stderr


def test_what_is_no_model_is_named(environment, tmp_path):
    done = generate(tmp_path, QUESTION, env=environment)
    assert done.returncode == 1 and "config.json" in done.stderr, done.stderr
    done = generate("nowhere", QUESTION, env=environment)
    assert "neither a model's directory nor HOST:PORT" in done.stderr


def test_a_text_under_way_is_finished_when_all_its_ranks_are_told_to_stop(smollm2, environment, start, tmp_path):
    """As when a StatefulSet is deleted: every pod gets its signal at once."""
    graph = tmp_path / "smollm2.pt2"
    export = [environment["ECHELON_EXPORT"], smollm2, "-o", graph, "--dtype=f32", "--max-model-len=2048"]
    subprocess.run(export, check=True, capture_output=True, timeout=150, env=environment)
    port, flags = free_port(), (f"--weights={smollm2}", "--drain-seconds=120", "--threads=1")
    ranks = [start.stage(graph, rank, 2, port, *flags, f"--health-port={free_port()}") for rank in range(2)]
    for rank in ranks:
        rank.wait_ready()
    words = [BIN / "echelon", "generate", ranks[0].address("grpc"), "Count.", "--ignore-eos", "--max-tokens=30", "--json"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    first = json.loads(child.stdout.readline())  # it is under way
    for rank in reversed(ranks):
        rank.signal(signal.SIGTERM)
    rest, error = child.communicate(timeout=150)
    assert child.returncode == 0, error
    lines = [first, *map(json.loads, rest.splitlines())]
    assert sum(len(line["token_ids"]) for line in lines) == 30
    assert lines[-1]["finish_reason"] == "length"
    assert [rank.wait(10) for rank in ranks] == [0, 0]
