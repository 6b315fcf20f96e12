"""What the text tests share: the probe process, and a model's directory for each family."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
os.environ["HF_HUB_OFFLINE"] = "1"

import families  # noqa: E402
from corpus import TEXTS  # noqa: E402


class Probe:
    """echelon-text-probe: runtime/text behind JSON lines."""

    def __init__(self, program: pathlib.Path):
        self.child = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")

    def __call__(self, **request):
        self.child.stdin.write(json.dumps(request) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        assert line, f"the probe ended with {self.child.wait(timeout=10)} at {str(request)[:300]}"
        return json.loads(line)

    def close(self):
        self.child.stdin.close()
        self.child.wait(timeout=10)


@pytest.fixture(scope="session")
def probe():
    program = pathlib.Path(os.environ.get("ECHELON_BIN", ROOT / "build" / "bin")) / "echelon-text-probe"
    assert program.exists(), f"{program} is not there; run `make test PARTS=text`"
    probe = Probe(program)
    yield probe
    probe.close()


def smollm2() -> pathlib.Path:
    """The demo's model: a real vocabulary. Converted where the demo looks for it."""
    spec = importlib.util.spec_from_file_location("convert", ROOT / "examples" / "smollm2" / "convert.py")
    convert = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(convert)
    directory = pathlib.Path(os.environ.get("ECHELON_BUILD", ROOT / "build")) / "smollm2"
    convert.convert(directory)
    return directory


@pytest.fixture(scope="session", params=[*families.FAMILIES, "SmolLM2"])
def model(request, probe, tmp_path_factory):
    """transformers' tokenizer of a family; the probe has the same files."""
    from transformers import AutoTokenizer

    if request.param == "SmolLM2":
        directory = smollm2()
    else:
        directory = tmp_path_factory.mktemp("models") / request.param
        families.write(request.param, directory)
    answer = probe(dir=str(directory))
    assert "error" not in answer, answer
    return AutoTokenizer.from_pretrained(directory)


@pytest.fixture(params=TEXTS)
def text(request):
    return TEXTS[request.param]
