"""A compute-heavy MLP on one and on two stages, one core a stage, next to the ideal speed-up and to
torch.distributed.pipelining's ScheduleGPipe over gloo with the same weights, batch and cores.

In the table, speed_up is over one stage at the same M, over_M1 over one stage with the batch whole;
compute is what both stages' nodes take together over what one stage's take (more than 1: the cores
slow each other down), outside_ms what the pipeline adds to its stages' own times.

All variants are up from the start and take turns; what waits costs nothing, which is checked. Our
time is the head's own, from a request's arrival to its answer (echelon_request_seconds), as gloo's
is from the schedule's step on rank 0 to the output on the last rank; neither counts a client.
"""

import argparse
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import figures
import gloo_worker

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHUNKS = (1, 2, 4, 8, 16)
CONTROL_CHUNKS = 4  # the variants that run twice
STAGES = 2
LAYERS = 8
CLIENT_CORE = 1  # not the head's: it works before the first micro-batch and after the last one
IDEAL_AIM = 0.97
START_S = 120.0
SECONDS = re.compile(r"^echelon_(request|compute)_seconds_sum\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Size:
    width: int
    rows: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        width, rows = text.split("x")
        return cls(int(width), int(rows))

    def __str__(self) -> str:
        return f"{LAYERS} x Linear {self.width}, batch {self.rows}"


def ideal(chunks: int) -> float:
    return STAGES * chunks / (chunks + STAGES - 1)


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Served:
    """`echelon run` with a client; its time is what the head counts for a request."""

    def __init__(self, binary: pathlib.Path, model: pathlib.Path, cores: str, chunks: int):
        import tritonclient.grpc as triton

        self.triton = triton
        self.seen_s: dict[str, float] = {}
        self.folder = tempfile.TemporaryDirectory()
        self.endpoints_file = pathlib.Path(self.folder.name) / "endpoints.json"
        stages = str(len(cores.split(",")))
        command = [binary, "run", model, "--stages", stages, "--cores", cores, "--chunks", chunks]
        command += ["--name", "mlp", "--json-endpoints", self.endpoints_file]
        command += [word for port in ("http", "grpc", "metrics") for word in (f"--{port}-port", 0)]
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)  # fmt: skip

    def connect(self) -> None:
        deadline = time.monotonic() + START_S
        while not self.endpoints_file.exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
                raise RuntimeError(f"echelon run ended: {self.process.stderr.read().strip()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"echelon run was not ready within {START_S:.0f} s")
        endpoints = json.loads(self.endpoints_file.read_text())
        self.pids = [self.process.pid, *endpoints["pids"]]
        self.client = self.triton.InferenceServerClient(endpoints["grpc"])
        self.metrics = endpoints["metrics"]
        self.new_ms()

    def new_ms(self) -> dict[str, float]:
        """Milliseconds by clock since the last call: head, and each rank's in its nodes."""
        new = {}
        for rank, at in enumerate(self.metrics):  # a connection of its own: idle ones are closed
            with contextlib.closing(http.client.HTTPConnection(at, timeout=10)) as connection:
                connection.request("GET", "/metrics")
                seen = dict(SECONDS.findall(connection.getresponse().read().decode()))
            clocks = [(f"rank {rank}", "compute"), *([("head", "request")] if rank == 0 else [])]
            for clock, kind in clocks:
                before, self.seen_s[clock] = self.seen_s.get(clock, 0), float(seen.get(kind, 0))
                new[clock] = (self.seen_s[clock] - before) * 1e3
        return new

    def infer(self, batch):
        """(output, milliseconds by clock)"""
        tensor = self.triton.InferInput("input", list(batch.shape), "FP32")
        tensor.set_data_from_numpy(batch)
        begin = time.monotonic()
        result = self.client.infer("mlp", [tensor], client_timeout=120)
        client_ms = (time.monotonic() - begin) * 1e3
        return result.as_numpy("output"), {"client": client_ms, **self.new_ms()}

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()
        self.folder.cleanup()


class Gloo:
    """Both ranks of the torch pipeline, a process each."""

    def __init__(self, size: Size):
        self.folder = tempfile.TemporaryDirectory()
        self.store = pathlib.Path(self.folder.name) / "store"
        self.ranks = [
            subprocess.Popen(
                [sys.executable, gloo_worker.__file__, "--rank", str(rank), "--world", str(STAGES),
                 "--core", str(rank), "--width", str(size.width), "--layers", str(LAYERS),
                 "--rows", str(size.rows), "--store", str(self.store),
                 "--chunks", *map(str, CHUNKS)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for rank in range(STAGES)
        ]  # fmt: skip

    def connect(self) -> None:
        for rank in range(STAGES):
            self._read(rank)
        self.pids = [rank.pid for rank in self.ranks]

    def _read(self, rank: int) -> dict:
        line = self.ranks[rank].stdout.readline()
        if not line:
            error = self.ranks[rank].stderr.read().strip().splitlines()
            raise RuntimeError(f"gloo rank {rank} ended: {error[-1] if error else 'no word'}")
        return json.loads(line)

    def run(self, do: str, chunks: int, times: int) -> tuple[list[float], float]:
        """Milliseconds of each, and the sum of the last output."""
        asked = range(STAGES) if do == "pipeline" else range(1)
        for rank in asked:
            line = json.dumps({"do": do, "chunks": chunks, "times": times})
            self.ranks[rank].stdin.write(line + "\n")
            self.ranks[rank].stdin.flush()
        answers = [self._read(rank) for rank in asked]
        spans = zip(answers[0]["begin"], answers[-1]["end"], strict=True)
        return [(end - begin) * 1e3 for begin, end in spans], answers[-1]["sum"]

    def stop(self) -> None:
        for rank in self.ranks:
            rank.stdin.close()
        for rank in self.ranks:
            try:
                rank.wait(20)
            except subprocess.TimeoutExpired:
                rank.kill()
                rank.wait()
            rank.stdout.close()
            rank.stderr.close()
        self.folder.cleanup()


@dataclasses.dataclass
class Variant:
    """One of those that take turns. ms: a round's median, of each round."""

    name: str
    measure: Callable[[int], dict[str, list[float]]]  # requests -> milliseconds by clock
    ms: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def round(self, requests: int) -> None:
        for clock, values in self.measure(requests + 1).items():
            self.ms.setdefault(clock, []).append(figures.median(values[1:]))  # the first warms up


def export(size: Size, to: pathlib.Path) -> None:
    import torch

    example = gloo_worker.batch_of(size.width, 4)
    shapes = ({0: torch.export.Dim("batch", min=1, max=size.rows)},)
    model = gloo_worker.mlp(size.width, LAYERS)
    torch.export.save(torch.export.export(model, (example,), dynamic_shapes=shapes), to)


def of_served(served: Served, batch) -> Callable[[int], dict[str, list[float]]]:
    def measure(requests: int) -> dict[str, list[float]]:
        runs = [served.infer(batch)[1] for _ in range(requests)]
        return {clock: [run[clock] for run in runs] for clock in runs[0]}

    return measure


def of_gloo(gloo: Gloo, do: str, chunks: int) -> Callable[[int], dict[str, list[float]]]:
    return lambda requests: {"step": gloo.run(do, chunks, requests)[0]}


class Setup:
    """All variants of one size, up and checked against eager."""

    def __init__(self, size: Size, binary: pathlib.Path, model: pathlib.Path):
        cores = {1: "0", STAGES: ",".join(map(str, range(STAGES)))}
        self.gloo = Gloo(size)
        self.served = {
            f"{stages} stages, M={chunks}{again}": Served(binary, model, cores[stages], chunks)
            for stages in (1, STAGES)
            for chunks in CHUNKS
            for again in (("", " again") if chunks == CONTROL_CHUNKS else ("",))
        }
        self.served["1 stage on the other core"] = Served(binary, model, str(STAGES - 1), 1)

    def __enter__(self) -> "Setup":
        try:
            for group in (self.gloo, *self.served.values()):
                group.connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for group in (self.gloo, *self.served.values()):
            group.stop()

    def check(self, size: Size) -> None:
        import numpy
        import torch

        batch = gloo_worker.batch_of(size.width, size.rows)
        with torch.inference_mode():
            eager = gloo_worker.mlp(size.width, LAYERS)(batch).numpy()
        for name, served in self.served.items():
            output = served.infer(batch.numpy())[0]
            if not numpy.allclose(output, eager, rtol=1e-5, atol=1e-5):
                raise RuntimeError(f"{name}: differs from eager by {abs(output - eager).max()}")
        total = float(eager.sum(dtype="float64"))
        for chunks in CHUNKS:
            seen = self.gloo.run("pipeline", chunks, 1)[1]
            if abs(seen - total) > 1e-4 * abs(total):
                raise RuntimeError(f"gloo, M={chunks}: outputs sum to {seen}, eager's to {total}")

    def variants(self, size: Size) -> dict[str, Variant]:
        batch = gloo_worker.batch_of(size.width, size.rows).numpy()
        made = [Variant(name, of_served(served, batch)) for name, served in self.served.items()]
        for chunks in CHUNKS:
            made.append(Variant(f"gloo, M={chunks}", of_gloo(self.gloo, "pipeline", chunks)))
            made.append(Variant(f"eager, M={chunks}", of_gloo(self.gloo, "eager", chunks)))
        made.append(
            Variant(f"gloo, M={CONTROL_CHUNKS} again",
                    of_gloo(self.gloo, "pipeline", CONTROL_CHUNKS))
        )  # fmt: skip
        return {variant.name: variant for variant in made}

    def idle_share(self) -> float:
        """Of one core, what all of ours take together while torch's pipeline runs."""
        pids = [pid for served in self.served.values() for pid in served.pids]
        before, begin = sum(map(cpu_seconds, pids)), time.monotonic()
        while time.monotonic() - begin < 2:
            self.gloo.run("eager", 1, 2)
        return (sum(map(cpu_seconds, pids)) - before) / (time.monotonic() - begin)


def measure(setup: Setup, size: Size, rounds: int, requests: int) -> dict[str, Variant]:
    variants = setup.variants(size)
    os.sched_setaffinity(0, {CLIENT_CORE % os.cpu_count()})
    names = list(variants)
    for round_ in range(rounds):
        # Another beginning and direction each time: none always follows the same neighbour.
        shift = round_ * 7 % len(names)
        order = names[shift:] + names[:shift]
        for name in order if round_ % 2 == 0 else reversed(order):
            variants[name].round(requests)
        print(f"  {size}: round {round_ + 1} of {rounds}", file=sys.stderr, flush=True)
    return variants


def makespan(chunks: int, stage_ms: Sequence[float]) -> float:
    """Of a pipeline whose stages take this long for all chunks, and nothing else any time."""
    return (sum(stage_ms) + (chunks - 1) * max(stage_ms)) / chunks


def rows_of(size: Size, variants: dict[str, Variant]) -> Iterator[dict]:
    def ms(name: str, clock: str = "head") -> list[float]:
        return variants[name].ms[clock]

    for chunks in CHUNKS:
        one, two = ms(f"1 stages, M={chunks}"), ms(f"{STAGES} stages, M={chunks}")
        gloo = ms(f"gloo, M={chunks}", "step")
        speedup = figures.ratios(one, two)
        ahead = figures.ratios(gloo, two)
        stages = [ms(f"{STAGES} stages, M={chunks}", f"rank {rank}") for rank in range(STAGES)]
        both = list(zip(*stages, strict=True))
        slower = figures.ratios(list(map(sum, both)), ms(f"1 stages, M={chunks}", "rank 0"))
        spent = [whole - makespan(chunks, each) for whole, each in zip(two, both, strict=True)]
        yield {
            "model": str(size),
            "M": chunks,
            "one_stage_ms": figures.median(one),
            "two_stages_ms": figures.median(two),
            "speed_up": figures.median(speedup),
            "spread": "{:.3f} .. {:.3f}".format(*figures.quartiles(speedup)),
            "ideal": ideal(chunks),
            "of_ideal": figures.median(speedup) / ideal(chunks),
            "compute": figures.median(slower),
            "outside_ms": figures.median(spent),
            "over_M1": figures.median(figures.ratios(ms("1 stages, M=1"), two)),
            "gloo_ms": figures.median(gloo),
            "gloo_speed_up": figures.median(
                figures.ratios(ms(f"eager, M={chunks}", "step"), gloo)
            ),
            "ahead_of_gloo": figures.median(ahead),
            "client_ms": figures.median(ms(f"{STAGES} stages, M={chunks}", "client")),
        }


def controls_of(variants: dict[str, Variant]) -> dict[str, list[float]]:
    """The same thing twice: per round, the second's time over the first's."""

    def again(name: str, clock: str) -> list[float]:
        return figures.ratios(variants[f"{name} again"].ms[clock], variants[name].ms[clock])

    return {
        "one stage": again(f"1 stages, M={CONTROL_CHUNKS}", "head"),
        "two stages": again(f"{STAGES} stages, M={CONTROL_CHUNKS}", "head"),
        "gloo": again(f"gloo, M={CONTROL_CHUNKS}", "step"),
    }


def bars_of(rows: list[dict], controls: dict[str, list[float]]) -> list[figures.Bar]:
    ours = max(figures.noise(controls["one stage"]), figures.noise(controls["two stages"]))
    theirs = max(figures.noise(controls["gloo"]), figures.noise(controls["two stages"]))
    bars = []
    for row in rows:
        what = f"{row['model']}, M={row['M']}"
        if row["M"] > 1:  # M=1 has nothing to overlap: its ideal is one stage's time
            bars.append(figures.Bar(f"{what}: of the ideal", IDEAL_AIM, row["of_ideal"], ours))
        bars.append(figures.Bar(f"{what}: ahead of gloo", 1, row["ahead_of_gloo"], theirs))
    return bars


def run_size(size: Size, args: argparse.Namespace) -> dict:
    model = args.build / "bench" / f"mlp{size.width}.pt2"
    model.parent.mkdir(parents=True, exist_ok=True)
    export(size, model)
    cores = os.sched_getaffinity(0)
    try:
        with Setup(size, args.build / "bin" / "echelon", model) as setup:
            setup.check(size)
            variants = measure(setup, size, args.rounds, args.requests)
            idle = setup.idle_share()
    finally:
        os.sched_setaffinity(0, cores)
    rows, controls = list(rows_of(size, variants)), controls_of(variants)
    other = figures.ratios(
        variants["1 stage on the other core"].ms["head"], variants["1 stages, M=1"].ms["head"]
    )
    return {
        "rows": rows,
        "bars": [bar.row() for bar in bars_of(rows, controls)],
        "controls": [
            {
                "model": str(size),
                "control": name,
                "ratio": figures.median(ratios),
                "quartiles": "{:.3f} .. {:.3f}".format(*figures.quartiles(ratios)),
                "range": f"{min(ratios):.3f} .. {max(ratios):.3f}",
                "noise": figures.noise(ratios),
            }
            for name, ratios in [*controls.items(), ("the other core", other)]
        ],
        "idle_cores": idle,
        "samples_ms": {variant.name: variant.ms for variant in variants.values()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default_build = pathlib.Path(os.environ.get("ECHELON_BUILD", ROOT / "build"))
    parser.add_argument("--build", type=pathlib.Path, default=default_build)
    parser.add_argument("--sizes", default="1024x256,2048x512", help="width x rows, by commas")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds, at least 2")
    parser.add_argument("--requests", type=int, default=5, help="of each variant in a round")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures here")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    result = {"rows": [], "bars": [], "controls": [], "sizes": []}
    for size in map(Size.parse, args.sizes.split(",")):
        of_size = run_size(size, args)
        for key in ("rows", "bars", "controls"):
            result[key] += of_size.pop(key)
        result["sizes"].append({"model": str(size), **of_size})
    result |= {"rounds": args.rounds, "requests": args.requests}
    for key in ("rows", "controls", "bars"):
        print(figures.table(result[key]), end="\n\n")
    for size in result["sizes"]:
        print(f"{size['model']}: what waits takes {size['idle_cores']:.1%} of a core")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
