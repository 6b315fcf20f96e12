#!/usr/bin/env python3
"""Runs the tests in parts, one line each; the last line is the total: `123 passed, 0 failed`.

    tools/test.py [PART ...] [--build build] [--jobs 2] [--fuzz-seconds 20]    (or: make test PARTS=...)

Logs and JUnit files lie in BUILD/test/. Exit status 1 when anything failed.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

from ports import free_port  # noqa: E402

DEPS = pathlib.Path(os.environ.get("ECHELON_DEPS", ROOT / ".deps"))
PYTHON = DEPS / "python" / "bin" / "python"
THREADED_ROOMS = ["group", "link", "serve", "stage", "sync", "weights"]  # the other ones without torch have no thread
ORACLE_ROOM = "exec"  # its tests read what tests/oracle writes
SHOWN_FAILURES, SHOWN_LINES = 20, 40
SUMMED_UP_LINES = 8  # of each failure, at the very end: all that is left of a long log may be its end
TEST_LIMIT_S = 120  # of one ctest case


@dataclasses.dataclass
class Failure:
    name: str
    said: list[str] = dataclasses.field(default_factory=list)  # the last lines of its own output


@dataclasses.dataclass
class Result:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[Failure] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: "Result"):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures
        self.notes += other.notes

    def fail(self, name: str, said: str = ""):
        self.failed += 1
        self.failures.append(Failure(name, said.strip().splitlines()[-SHOWN_LINES:]))

    def skip(self, why: str):
        self.skipped += 1
        self.notes.append(why)


class Runner:
    """Runs commands with a limit, their output going to one log a part."""

    def __init__(self, args, part: str):
        self.args, self.part = args, part
        self.folder = args.build / "test"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / f"{part}.log"
        self.log.write_text("")

    def __call__(self, *command, limit_s: float, env=None, cwd=ROOT) -> int:
        with self.log.open("a") as log:
            print("$", *command, file=log, flush=True)
            child = subprocess.Popen(
                [str(word) for word in command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | (env or {}),
                cwd=cwd,
                start_new_session=True,
            )
            try:
                return child.wait(timeout=limit_s)
            except subprocess.TimeoutExpired:
                print(f"$ stopped: not done within {limit_s:.0f} s", file=log)
                return 124
            finally:  # also what it left behind
                try:
                    os.killpg(child.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                child.wait()

    def need(self, what: str, *command, **options):
        if self(*command, **options) != 0:
            raise RuntimeError(f"{what} failed (log: {self.log})")

    def junit(self, name: str) -> pathlib.Path:
        file = self.folder / f"{name}.xml"
        file.unlink(missing_ok=True)
        return file


def what_it_said(case: ElementTree.Element) -> str:
    """pytest tells it in <failure>, ctest in <system-out>, and in an attribute whether it crashed or hung."""
    told = [case.find(tag) for tag in ("failure", "error", "system-out")]
    text = max((element.text or "" for element in told if element is not None), key=len, default="")
    failure = case.find("failure")
    if failure is not None and not failure.text:
        text += f"\nctest: {failure.get('message') or 'failed'} after {case.get('time', '?')} s"
    return text


def read_junit(file: pathlib.Path, status: int, what: str) -> Result:
    """What a JUnit file counts; a run that left none, or that failed beyond its tests, is a failure."""
    result = Result()
    try:
        cases = list(ElementTree.parse(file).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        cases = []
    for case in cases:
        name = f"{case.get('classname', '')}.{case.get('name')}".removeprefix(".")
        if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
            result.fail(name, what_it_said(case))
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            result.skipped += 1
        else:
            result.passed += 1
    if not cases:
        result.fail(f"{what}: no test ran")
    elif status != 0 and not result.failed:
        result.fail(f"{what}: ended with status {status}")
    return result


# ---- C++ ------------------------------------------------------------------------------------------


def cmake(run: Runner, folder: pathlib.Path, *options, targets=()):
    run.need("configuring", "cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *options, limit_s=300)
    run.need("building", "ninja", "-C", folder, "-j", run.args.jobs, *targets, limit_s=2000)


def ctest_rooms(folder: pathlib.Path) -> list[str]:
    """The folders below tests/ that this build has tests in."""
    return sorted(
        str(file.parent.relative_to(folder / "tests"))
        for file in (folder / "tests").rglob("CTestTestfile.cmake")
        if "include(" in file.read_text() or "add_test(" in file.read_text()
    )


def ctest(run: Runner, folder: pathlib.Path, rooms, env=None) -> Result:
    total = Result()
    for room in rooms:
        file = run.junit(f"{run.part}-{room.replace('/', '-')}")
        status = run(
            "ctest", "--test-dir", folder / "tests" / room, "--output-on-failure", "-j", run.args.jobs,
            "--timeout", TEST_LIMIT_S, "--output-junit", file, limit_s=1200, env=env,
        )  # fmt: skip
        total.add(read_junit(file, status, f"tests/{room}"))
    return total


def build(run: Runner) -> Result:
    cmake(run, run.args.build, f"-DECHELON_LIBTORCH={DEPS / 'libtorch'}")
    return Result()


def unit(run: Runner) -> Result:
    return ctest(run, run.args.build, [r for r in ctest_rooms(run.args.build) if r != ORACLE_ROOM])


def oracle(run: Runner) -> Result:
    cases = run.args.build / "oracle"
    run.need("writing the oracle", PYTHON, ROOT / "tests/oracle/make_models.py", cases, "--big", limit_s=1200)
    families = run.args.build / "families"
    run.need("writing the families", PYTHON, ROOT / "tests/text/make_families.py", families, "--export", limit_s=900)
    return ctest(run, run.args.build, [ORACLE_ROOM], env={"ECHELON_ORACLE": str(cases), "ECHELON_FAMILIES": str(families)})


def sanitized(run: Runner, sanitizers: str, env: dict[str, str], rooms=None) -> Result:
    """Builds and runs the tests of some rooms; all where none are named."""
    folder = run.args.build / run.part
    cmake(
        run, folder, "-DECHELON_TORCH=OFF", "-DECHELON_BENCH=OFF", f"-DECHELON_SANITIZE={sanitizers}",
        targets=[f"tests/{room}/all" for room in rooms or ()],
    )  # fmt: skip
    return ctest(run, folder, rooms or ctest_rooms(folder), env)


def asan(run: Runner) -> Result:
    # Debian's libraries are not instrumented: containers that cross into them look overflowed.
    options = "detect_container_overflow=0:detect_stack_use_after_return=1"
    return sanitized(
        run, "address,undefined", {"ASAN_OPTIONS": options, "UBSAN_OPTIONS": "print_stacktrace=1"}, chosen_rooms("ASAN_ROOMS", None)
    )


def chosen_rooms(variable: str, otherwise):
    """ASAN_ROOMS="link weights" names the rooms where a run should be short."""
    return os.environ.get(variable, "").split() or otherwise


def tsan(run: Runner) -> Result:
    # gRPC keeps threads of its own until the process ends. A suppression knows an access by its stack, which a short
    # history loses.
    options = "history_size=7:halt_on_error=1:second_deadlock_stack=1:report_thread_leaks=0"
    options += f":suppressions={ROOT / 'tests/tsan.supp'}"
    return sanitized(run, "thread", {"TSAN_OPTIONS": options}, chosen_rooms("TSAN_ROOMS", THREADED_ROOMS))


def fuzz(run: Runner) -> Result:
    """Every target reads its kept corpus, then new inputs; these stay under BUILD/fuzz."""
    folder, result = run.args.build / "fuzz", Result()
    targets = sorted(file.stem for file in (ROOT / "tests/fuzz").glob("*_fuzz.cc"))
    cmake(
        run, folder, "-DCMAKE_CXX_COMPILER=clang++-14", "-DCMAKE_C_COMPILER=clang-14", "-DECHELON_TORCH=OFF",
        "-DECHELON_BENCH=OFF", "-DECHELON_FUZZ=ON", "-DECHELON_SANITIZE=fuzzer-no-link,address,undefined",
        targets=targets,
    )  # fmt: skip
    with concurrent.futures.ThreadPoolExecutor(int(run.args.jobs)) as pool:
        for target, status in zip(targets, pool.map(lambda name: fuzz_one(run, folder, name), targets)):
            if status == 0:
                result.passed += 1
            else:
                result.fail(f"{target}: input and stack in {run.folder}/fuzz-{target}.log")
    return result


def fuzz_one(run: Runner, folder: pathlib.Path, target: str) -> int:
    own = Runner(run.args, f"fuzz-{target}")
    fresh, kept = folder / "corpus" / target, ROOT / "tests/fuzz/corpus" / target.removesuffix("_fuzz")
    fresh.mkdir(parents=True, exist_ok=True)
    seconds = run.args.fuzz_seconds
    return own(
        folder / "bin" / target, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048",
        "-print_final_stats=1", f"-artifact_prefix={folder}/{target}-", fresh, kept,
        limit_s=seconds + 120, env={"ASAN_OPTIONS": "detect_container_overflow=0"},
    )  # fmt: skip


# ---- Python ---------------------------------------------------------------------------------------


def pytest(run: Runner, folder: str, limit_s: float, *flags: str) -> Result:
    if not PYTHON.exists():
        raise RuntimeError(f"{PYTHON} is not there; run `make deps-python`")
    file = run.junit(run.part)
    env = {
        "ECHELON_BIN": str(run.args.build / "bin"),
        "ECHELON_ECHO_SERVER": str(run.args.build / "bin" / "echelon-echo-server"),
        "ECHELON_BUILD": str(run.args.build),
    }
    status = run(
        PYTHON, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", f"--junitxml={file}", *flags, ROOT / folder,
        limit_s=limit_s, env=env,
    )  # fmt: skip
    return read_junit(file, status, folder)


# ---- Kubernetes -----------------------------------------------------------------------------------

CLUSTER = ROOT / "tests/cluster"
KUBE = DEPS / "kube"
NODE_PROGRAMS = ["containerd", "ctr", "runc", "iptables", "conntrack", "nsenter", "zstd"]


def why_no_cluster(nodes: bool) -> str:
    """Empty when there can be one: an API server alone, or with nodes."""
    if not (KUBE / "kone").exists():
        return f"{KUBE}/kone is not there; run: make deps-cluster (with ECHELON_KUBE_CACHE, or Go)"
    if nodes and os.geteuid() != 0:
        return "nodes need root: network namespaces, containerd"
    missing = [name for name in NODE_PROGRAMS if shutil.which(name) is None] if nodes else []
    return f"{missing[0]} is not there; run: make deps-cluster" if missing else ""


def contract(run: Runner) -> Result:
    """Tests of the operator that want an API server, against a real one: the programs skip them without it."""
    result = Result()
    if why := why_no_cluster(nodes=False):
        result.skip(why)
        return result
    state = run.args.build / "test/apiserver"
    env = {"KONE_NODES": "", "KONE_FAKE": "", "KONE_STATE": str(state), "KONE_BIN": str(KUBE)}
    env |= {"KONE_PORT": str(free_port()), "KONE_ETCD_PORT": str(free_port(2))}
    try:
        run.need("starting the API server", CLUSTER / "up.sh", limit_s=120, env=env)
        rooms = [room for room in ctest_rooms(run.args.build) if room.startswith("operator/")]
        kubeconfig = str(state / "conf/admin.kubeconfig")
        return ctest(run, run.args.build, rooms, env=env | {"ECHELON_KUBE_TEST_CONFIG": kubeconfig})
    finally:
        run(CLUSTER / "down.sh", limit_s=60, env=env)


def e2e(run: Runner, *flags: str) -> Result:
    result = Result()
    if why := why_no_cluster(nodes=True):
        result.skip(why)
        return result
    run.need("making the images", ROOT / "images/build.sh", limit_s=1500, env={"BUILD": str(run.args.build)})
    return pytest(run, "tests/e2e", 2400, *flags)


PARTS = {
    "build": (build, "everything, tests included"),
    "tidy": (lambda run: pytest(run, "tests/tidy", 600), "architecture, formatting, clang-tidy on changed files"),
    "unit": (unit, "GoogleTest programs, a folder of tests/ each"),
    "oracle": (oracle, "stages against eager PyTorch"),
    "export": (lambda run: pytest(run, "export/tests", 900), "the Python package echelon-export"),
    "text": (lambda run: pytest(run, "tests/text", 600), "tokenizers and chat templates against transformers"),
    "serve": (lambda run: pytest(run, "tests/serve", 300), "the front doors, by Triton's own client"),
    "process": (lambda run: pytest(run, "tests/process", 1500), "real processes: failures, and the README's commands"),
    "chart": (lambda run: pytest(run, "tests/chart", 300), "the Helm chart, its rights, the objects in the documents"),
    "crd": (lambda run: pytest(run, "tests/operator/crd", 300), "the API, what is rendered and the chart, shown to a real API server"),
    "cluster": (contract, "the operator's contract suite against a real API server"),
    "e2e-short": (lambda run: e2e(run, "-m", "short"), "helm install on a real cluster, one pipeline, an answer, removal"),
    "e2e": (e2e, "the operator on a real cluster: all of it, 15 minutes"),
    "images": (lambda run: pytest(run, "tests/images", 300), "the scripts that make images, and the images that are there"),
    "asan": (asan, "unit tests under AddressSanitizer and UBSan, without LibTorch"),
    "tsan": (tsan, "tests of the rooms with threads under ThreadSanitizer, without LibTorch"),
    "fuzz": (fuzz, "every parser of foreign bytes"),
}
NEED_BUILD = {"tidy", "unit", "oracle", "text", "serve", "process", "cluster", "e2e-short", "e2e"}
ON_REQUEST = {"e2e"}  # too long for `make test`; its short form is in there


def show(failure: Failure, lines: int, part: str = ""):
    print(f"  failed: {part}{failure.name}")
    for line in failure.said[-lines:]:
        print(f"  | {line[:300]}")


def run_part(args, name: str) -> Result:
    began, run = time.monotonic(), Runner(args, name)
    try:
        result = PARTS[name][0](run)
    except RuntimeError as error:
        result = Result()
        result.fail(str(error))
    skipped = f", {result.skipped} skipped" if result.skipped else ""
    counts = "done" if name == "build" and not result.failed else f"{result.passed} passed, {result.failed} failed{skipped}"
    print(f"{name:9} {counts:35} {time.monotonic() - began:6.1f} s", flush=True)
    for note in result.notes:
        print(f"  skipped: {note}")
    for failure in result.failures[:SHOWN_FAILURES]:
        failure.said = failure.said or run.log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
        show(failure, SHOWN_LINES)
    if len(result.failures) > SHOWN_FAILURES:
        print(f"  and {len(result.failures) - SHOWN_FAILURES} more")
    if result.failed:
        print(f"  log: {run.log}")
    sys.stdout.flush()
    return result


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="all but e2e when none is named")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--jobs", default=str(os.cpu_count()))
    parser.add_argument("--fuzz-seconds", type=int, default=20, metavar="S", help="for each target")
    parser.add_argument("--list", action="store_true", help="name the parts and end")
    args = parser.parse_args()
    if args.list:
        for name, (_, what) in PARTS.items():
            print(f"{name:9} {what}")
        sys.exit(0)
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part is called {unknown[0]}; there are {', '.join(PARTS)}")
    args.build = args.build.resolve()
    return args


def main() -> int:
    args = arguments()
    parts = [name for name in PARTS if name in args.parts] or [name for name in PARTS if name not in ON_REQUEST]
    if NEED_BUILD & set(parts) and "build" not in parts:
        parts.insert(0, "build")
    total, failures = Result(), []
    for name in parts:
        result = run_part(args, name)
        total.add(result)
        failures += [(name, failure) for failure in result.failures]
        if name == "build" and total.failed:
            break
    for name, failure in failures[:SHOWN_FAILURES]:
        show(failure, SUMMED_UP_LINES, part=f"{name}: ")
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
