"""Stage processes for tests: started, signalled, asked, and gone when the test ends."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ECHELON_BIN", ROOT / "build/bin"))
PATIENCE_S = 60  # for what must come but has no bound of its own: test machines are loaded
ANY_PORTS = ("--http-port=0", "--grpc-port=0", "--metrics-port=0")


def with_defaults(flags, defaults):
    """The flags, and those defaults of which there is no other value among them."""
    given = {flag.split("=")[0] for flag in flags}
    return [*flags, *(flag for flag in defaults if flag.split("=")[0] not in given)]


def wait_until(condition, what, within_s=PATIENCE_S):
    """The condition's first true value; fails when none comes in time, and says `what`, or what that then returns."""
    deadline, pause = time.monotonic() + within_s, threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what() if callable(what) else what}"
        pause.wait(0.005)
    return value


def fetch(address, path, timeout_s=10):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=timeout_s) as answer:
        return answer.read().decode()


def read_metrics(address):
    """{name: value} of a rank's metrics; labels beyond model and rank stay in the name."""
    values = {}
    for line in fetch(address, "/metrics").splitlines():
        if line.startswith("#"):
            continue
        matched = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
        assert matched, f"not in the text exposition format: {line!r}"
        labels = dict(re.findall(r'(\w+)="([^"]*)"', matched[2]))
        rest = [f"{k}={v}" for k, v in labels.items() if k not in ("model", "rank")]
        values[matched[1] + ("{" + ",".join(rest) + "}" if rest else "")] = float(matched[3])
    return values


def is_running(pid):
    """A zombie is not running: its parent has yet to collect it."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def read_bytes(pid):
    """Bytes that read system calls gave a process so far, from any file or pipe."""
    return int(re.search(r"rchar: (\d+)", pathlib.Path(f"/proc/{pid}/io").read_text())[1])


def loads(stderr, rank):
    """What a rank's log says of each time it loaded its weights: MiB read from disk."""
    said = re.findall(rf"rank {rank} info: loaded .* of weights, read (\S+) (\S+) from", stderr)
    mebibytes = {"B": 2**-20, "KiB": 2**-10, "MiB": 1, "GiB": 2**10}
    return [float(number) * mebibytes[unit] for number, unit in said]


def resident_bytes(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) * 1024


def cpu_seconds(pid):
    words = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime


def counts(pid):
    """(open descriptors, threads)"""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def listening_ports(pid):
    inodes = set()
    for descriptor in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(descriptor)))
        except FileNotFoundError:
            continue
    ports = set()
    for table in ("tcp", "tcp6"):
        path = pathlib.Path(f"/proc/{pid}/net/{table}")
        for row in path.read_text().splitlines()[1:] if path.exists() else []:
            words = row.split()
            if words[3] == "0A" and words[9] in inodes:  # 0A: listening
                ports.add(int(words[1].rpartition(":")[2], 16))
    return ports


@contextlib.contextmanager
def hangups(handling):
    """Children that are started here handle SIGHUP so; whatever ran these tests may have had it ignored."""
    before = signal.signal(signal.SIGHUP, handling)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


class Process:
    """A child with its output in files."""

    def __init__(self, folder, words, env=None, pass_fds=()):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.words = folder, [str(word) for word in words]
        clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD", "HOST", "PORT")}
        with open(folder / "stdout", "ab") as out, open(folder / "stderr", "ab") as err:
            self.child = subprocess.Popen(
                self.words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=clean | {k: str(v) for k, v in (env or {}).items()},
                pass_fds=pass_fds,
            )
        self.pid = self.child.pid

    def stdout(self):
        return (self.folder / "stdout").read_text()

    def stderr(self):
        return (self.folder / "stderr").read_text()

    def is_running(self):
        return self.child.poll() is None

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, within_s=PATIENCE_S):
        """The exit status; fails with the last words when the process does not end in time."""
        try:
            return self.child.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            last = self.stderr()[-2000:]
            raise AssertionError(f"not ended within {within_s} s: {self.words}\n{last}") from None

    def destroy(self):
        """For a fixture's end: gone, whatever state it is in."""
        if self.is_running():
            self.child.kill()
        self.child.wait(timeout=PATIENCE_S)


class Stage(Process):
    """One echelon-stage, started by hand."""

    def __init__(self, folder, model, *flags, env=None):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "report", "wb") as report:
            fd = report.fileno()
            words = [BIN / "echelon-stage", model, *flags, f"--report-fd={fd}"]
            super().__init__(folder, words, env=env, pass_fds=(fd,))

    def events(self, kind):
        whole = (self.folder / "report").read_text().rpartition("\n")[0]
        events = [json.loads(line) for line in whole.splitlines()]
        return [event for event in events if event["event"] == kind]

    def is_ready(self):
        """Whether it is in an epoch now."""
        assert self.is_running(), f"ended with {self.child.returncode}: {self.stderr()}"
        return len(self.events("ready")) > len(self.events("closed"))

    def __repr__(self):
        return f"{self.words}, which said last: {self.stderr()[-500:]}"

    def wait_ready(self, within_s=PATIENCE_S):
        wait_until(self.is_ready, lambda: f"ready: {self}", within_s)
        return self

    def ports(self):
        def reported():
            assert self.is_running(), f"ended with {self.child.returncode}: {self.stderr()}"
            return self.events("ports")

        return wait_until(reported, f"ports of {self.words}")[0]

    def address(self, door):
        return f"127.0.0.1:{self.ports()[door]}"

    def stop(self, within_s=20):
        self.signal(signal.SIGTERM)
        return self.wait(within_s)


class Run(Process):
    """echelon run: N stages on this machine."""

    def __init__(self, folder, model, *flags, name="model"):
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.file = name, folder / "endpoints.json"
        words = [BIN / "echelon", "run", model, f"--name={name}", *with_defaults(flags, ANY_PORTS)]
        super().__init__(folder, [*words, f"--json-endpoints={self.file}"])
        self.seen = set()  # every stage's pid, of those that were asked for

    def wait_ready(self, within_s=PATIENCE_S):
        def written():
            assert self.is_running(), f"ended with {self.child.returncode}: {self.stderr()}"
            return self.file.exists()

        wait_until(written, f"endpoints of {self.words}", within_s)
        endpoints = json.loads(self.file.read_text())
        self.http, self.grpc, self.metrics = (endpoints[k] for k in ("http", "grpc", "metrics"))
        self.seen.update(endpoints["pids"])
        return self

    def pids(self):
        """{rank: pid} of the stages that run now."""
        found = {}
        children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children")
        for pid in map(int, children.read_text().split()):
            try:
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            ranks = [word for word in words if word.startswith("--rank=")]
            if ranks and is_running(pid):
                found[int(ranks[0].removeprefix("--rank="))] = pid
        self.seen.update(found.values())
        return found

    def status(self):
        return json.loads(fetch(self.http, "/status"))

    def stop(self, number=signal.SIGTERM, within_s=20):
        """The exit status; fails when a stage outlives it."""
        self.pids()
        self.signal(number)
        status = self.wait(within_s)
        self.no_orphans()
        return status

    def no_orphans(self):
        gone = lambda: not any(map(is_running, self.seen))  # noqa: E731
        wait_until(gone, f"no orphan of {sorted(self.seen)}", within_s=5)

    def destroy(self):
        if self.is_running():
            self.pids()
        super().destroy()
        self.no_orphans()
