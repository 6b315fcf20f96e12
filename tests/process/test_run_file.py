"""`echelon run -f FILE`: a PipelineDeployment's model, stages and policy on one machine."""

import json
import subprocess

import pytest
from clients import Client, assert_equal
from pipeline import ANY_PORTS, BIN, Process, fetch, wait_until

NET = """\
apiVersion: v1
kind: Namespace
metadata: {name: models}
---
apiVersion: echelon.dev/v1alpha1
kind: PipelineDeployment
metadata: {name: net}
spec:
  replicas: 3
  model: {source: {type: PVC, pvc: {claimName: models}}, path: model.pt2}
  parallelism: {stages: 2, policy: equal-size}
  rollout: {drainSeconds: 99}
  overrides:
    - {name: small, firstRank: 1, speed: 0.5, memory: 1Gi, nodeSelector: {size: small}}
---
apiVersion: echelon.dev/v1alpha1
kind: PipelineDeployment
metadata: {name: other}
spec:
  model: {source: {type: HostPath, hostPath: {path: FOLDER}}, path: model.pt2}
  parallelism: {stages: 1}
"""


class RunFile(Process):
    """echelon run of a file, its endpoints beside it."""

    def __init__(self, folder, text, *flags):
        folder.mkdir(parents=True)
        self.file, self.endpoints = folder / "net.yaml", folder / "endpoints.json"
        self.file.write_text(text)
        words = [BIN / "echelon", "run", "-f", self.file, *ANY_PORTS, f"--json-endpoints={self.endpoints}", *flags]
        super().__init__(folder, words)

    def wait_ready(self):
        def written():
            assert self.is_running(), self.stderr()
            return self.endpoints.exists()

        wait_until(written, f"endpoints of {self.words}")
        self.http, self.grpc = (json.loads(self.endpoints.read_text())[door] for door in ("http", "grpc"))
        return self

    def status(self):
        return json.loads(fetch(self.http, "/status"))


def refusal(tmp_path, text, *flags):
    file = tmp_path / "net.yaml"
    file.write_text(text)
    done = subprocess.run([BIN / "echelon", "run", "-f", file, *flags], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip().replace(str(tmp_path), "")


def test_a_deployment_runs_as_it_would_in_a_cluster(start, net):
    run = start(RunFile, NET, f"--model-dir={net.model.parent}", "--verbose").wait_ready()
    status = run.status()
    assert (status["model"], status["world"]) == ("model", 2)
    inputs, outputs = net.runs[0]
    with Client("grpc", run, name="model") as client:
        assert_equal(client.infer(inputs), outputs, 1e-5)
    assert "net: ignored on one machine: replicas, rollout, overrides.nodeSelector" in run.stderr()
    words = json.loads(run.endpoints.read_text())["pids"]
    head = open(f"/proc/{words[0]}/cmdline").read().split("\0")
    assert "--policy=equal-size" in head and "--stage-speed=1,0.5" in head
    assert "--stage-memory=1000000000000000,1073741824" in head
    run.signal(2)
    assert run.wait(20) == 0


def test_another_deployment_of_the_file_is_chosen_by_name_and_lies_where_it_says(start, net):
    text = NET.replace("FOLDER", str(net.model.parent))
    run = start(RunFile, text, "--deployment-name=other").wait_ready()
    assert run.status()["world"] == 1
    assert "ignored" not in run.stderr()


def test_flags_beside_the_file_win(start, net):
    flags = (f"--model-dir={net.model.parent}", "--stages=1", "--name=mine")
    run = start(RunFile, NET, *flags).wait_ready()
    assert (run.status()["model"], run.status()["world"]) == ("mine", 1)


@pytest.mark.parametrize(
    "text, flags, line",
    [
        ("a: [1", (), "/net.yaml: line 1, column 1: end of sequence flow not found"),
        ("kind: Pod", (), "/net.yaml: holds no object of kind PipelineDeployment"),
        (NET, (), "/net.yaml: net: its model lies on the volume claim models; say by --model-dir where its files are here"),
        (NET, ("--model-dir=/nowhere",), "/net.yaml: net: /nowhere/model.pt2 is not there; say by --model-dir where the model's files are"),
        (NET, ("--deployment-name=x",), "/net.yaml: no PipelineDeployment 'x'; there is net, other"),
        (NET.replace("stages: 2", "stage: 2"), (), "/net.yaml: net: there is no field spec.parallelism.stage"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_in_one_line(tmp_path, text, flags, line):
    assert refusal(tmp_path, text, *flags) == f"echelon run: {line}"


def test_a_deployment_that_the_operator_would_refuse_is_refused_here(tmp_path):
    said = refusal(tmp_path, NET.replace("firstRank: 1", "firstRank: 7"), "--model-dir=/nowhere")
    assert said.startswith("echelon run: /net.yaml: net: ") and "override" in said


@pytest.mark.parametrize(
    "words, line",
    [
        ((), "give a model, or a file with a PipelineDeployment by -f"),
        (("net.pt2", "-f", "net.yaml"), "a model and --file: give one of them"),
    ],
)
def test_a_model_or_a_file_is_what_runs(words, line):
    done = subprocess.run([BIN / "echelon", "run", *words], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (2, f"echelon run: {line}; see --help\n")
