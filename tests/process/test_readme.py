"""Runs README.md from top to bottom, as a reader would: every ```sh block in a shell at the repository's root, every
```python block with the project's Python.

What a text block shows must come out of the block before it, numbers aside, line by line. Comments steer, unseen:
    <!-- stays; ready at: TEXT -->   the next block goes on running; it is ready once TEXT is in its output
    <!-- stop -->                    Ctrl-C for all that still runs, each of which must end well
    <!-- limit: 1200 s -->           for the next block, instead of LIMIT_S
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import selectors
import signal
import subprocess
import time

import pytest
from ports import is_free

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ECHELON_BIN", ROOT / "build/bin"))
PYTHON = pathlib.Path(os.environ.get("ECHELON_DEPS", ROOT / ".deps")) / "python/bin"
README = (ROOT / "README.md").read_text()
LIMIT_S = 180
PORTS = (8000, 8001, 8002, 8003, 29500)
STEP = re.compile(r"^```(sh|python|text)\n(.*?)^```$|^<!-- (stays|stop|limit)(?:; ready at)?:? ?(.*?) ?-->$", re.M | re.S)

pytestmark = pytest.mark.skipif(
    BIN != ROOT / "build/bin" or not (BIN / "echelon").exists(), reason="the README speaks of build/bin"
)


@dataclasses.dataclass
class Running:
    child: subprocess.Popen
    code: str
    output: str = ""

    def read(self, until, limit_s):
        """Reads on until `until(output)` holds; at the limit the test fails. Empty at the end of output."""
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            while not until(self.output):
                left = deadline - time.monotonic()
                assert left > 0, f"not done within {limit_s} s:\n{self.code}\n{self.output}"
                if not selector.select(left):
                    continue
                read = os.read(self.child.stdout.fileno(), 65536)
                if not read:
                    return
                self.output += read.decode(errors="replace")

    def interrupt(self):
        """What Ctrl-C does: the whole foreground group gets it."""
        os.killpg(self.child.pid, signal.SIGINT)
        self.read(lambda _: False, 30)
        assert self.child.wait(timeout=10) == 0, f"ended badly on Ctrl-C:\n{self.code}\n{self.output}"


class Reader:
    def __init__(self, stack):
        self.stack, self.running, self.last = stack, [], None
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"}
        self.environment["PATH"] = f"{BIN}:{PYTHON}:{os.environ['PATH']}"

    def start(self, language, code):
        # exec: a block that stays is the program itself, as under an interactive shell's job control.
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "sh" else ["python", "-c", code]
        child = subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.stack.callback(end, child)
        self.last = Running(child, code)
        return self.last

    def run(self, language, code, limit_s):
        block = self.start(language, code)
        block.read(lambda _: False, limit_s)
        assert block.child.wait(timeout=10) == 0, f"failed:\n{code}\n{block.output}"

    def stay(self, code, ready):
        block = self.start("sh", code)
        block.read(lambda output: ready in output, LIMIT_S)
        assert ready in block.output, f"ended before it said {ready!r}:\n{code}\n{block.output}"
        self.running.append(block)

    def stop(self):
        for block in reversed(self.running):
            block.interrupt()
        self.running.clear()

    def expect(self, shown):
        if self.last in self.running:  # its last lines may be on their way
            self.last.read(lambda output: normal(shown)[-1] in normal(output), 10)
        came = normal(self.last.output)
        missing = [line for line in normal(shown) if line not in came]
        assert not missing, f"the README shows what did not come out of\n{self.last.code}\n{self.last.output}"


def normal(text):
    """Lines without their numbers and spacing."""
    numbers = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?( [kMG]i?B?\b| B\b)?")
    return [" ".join(numbers.sub("#", line).split()) for line in text.splitlines() if line.strip()]


def end(child):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()


def test_every_command_of_the_readme_works():
    busy = [port for port in PORTS if not is_free(port)]
    assert not busy, f"the README's commands use the default ports, and {busy} are taken on this machine"
    with contextlib.ExitStack() as stack:
        reader, ready, limit_s = Reader(stack), None, LIMIT_S
        for step in STEP.finditer(README):
            language, body, verb, argument = step.groups()
            if verb == "stays":
                ready = argument
            elif verb == "limit":
                limit_s = int(argument.split()[0])
            elif verb == "stop":
                reader.stop()
            elif language == "text":
                reader.expect(body)
            elif ready:
                reader.stay(body, ready)
                ready = None
            else:
                reader.run(language, body, limit_s)
                limit_s = LIMIT_S
        assert not reader.running, "README.md starts something that it does not stop"


def flags_of(*command):
    text = subprocess.run([BIN / command[0], *command[1:], "--help"], capture_output=True, text=True, timeout=60).stdout
    return set(re.findall(r"^\s+(?:-\w,)?(--[a-z][a-z-]*)", text, re.M)) - {"--help"}


def test_the_table_of_flags_is_complete():
    rows = dict(re.findall(r"^\| `?([a-z A-Z-]+?)`? \| (`--.*) \|$", README, re.M))
    shown = {name: set(re.findall(r"`(--[a-z-]+)`", cell)) for name, cell in rows.items()}
    plan = shown["those that plan"]
    assert flags_of("echelon", "run") == shown["echelon run MODEL"] | plan
    assert flags_of("echelon", "plan") == shown["echelon plan MODEL"] | plan
    assert flags_of("echelon", "generate") == shown["echelon generate DIR PROMPT"]
    assert flags_of("echelon", "infer") == shown["echelon infer"]
    assert flags_of("echelon-stage") == shown["echelon-stage MODEL"] | plan
