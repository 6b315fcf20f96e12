#!/usr/bin/env python3
"""Builds and runs every benchmark, one after the other; each prints a table and writes BUILD/bench/NAME.json.

    tools/bench.py [NAME ...] [--build build]        (or: make bench)

A benchmark is tests/bench/NAME_bench.cc (built as echelon-NAME-bench) or tests/bench/NAME_bench.py;
both take --json FILE. tests/bench/bars.py then says which aims are met, missed or unresolved, and
tools/bench_table.py turns the files into Markdown.
"""

import argparse
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEPS = pathlib.Path(os.environ.get("ECHELON_DEPS", ROOT / ".deps"))


def benchmarks() -> dict[str, pathlib.Path]:
    return {
        file.stem.removesuffix("_bench").replace("_", "-"): file
        for file in sorted((ROOT / "tests/bench").glob("*_bench.*"))
        if file.suffix in (".cc", ".py")
    }


def main() -> int:
    found = benchmarks()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(found)}; all when none is named")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--jobs", default=str(os.cpu_count()))
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in found]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]}; there are {', '.join(found)}")
    build = args.build.resolve()
    names = args.names or list(found)
    targets = [f"echelon-{name}-bench" for name in names if found[name].suffix == ".cc"]
    subprocess.run(["cmake", "-S", ROOT, "-B", build, "-G", "Ninja", f"-DECHELON_LIBTORCH={DEPS / 'libtorch'}",
                    "-DECHELON_BENCH=ON"], check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    subprocess.run(["ninja", "-C", build, "-j", args.jobs, "echelon", "echelon-stage", *targets], check=True)
    (build / "bench").mkdir(exist_ok=True)
    failed = []
    for name in names:
        compiled = found[name].suffix == ".cc"
        command = [build / "bin" / f"echelon-{name}-bench"] if compiled else [DEPS / "python/bin/python", found[name]]
        print(f"\n== {name}", flush=True)
        environment = os.environ | {"ECHELON_BIN": str(build / "bin"), "ECHELON_BUILD": str(build)}
        if subprocess.run([*command, "--json", build / "bench" / f"{name}.json"], env=environment, cwd=build / "bench").returncode != 0:
            failed.append(name)
    print("\n== what was aimed at", flush=True)
    subprocess.run([sys.executable, ROOT / "tests/bench/bars.py", build / "bench"], check=True)
    print(f"\n{len(names) - len(failed)} of {len(names)} benchmarks ran; JSON in {build / 'bench'}")
    for name in failed:
        print(f"bench: {name} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"bench: {error.cmd[0]} ended with status {error.returncode}")
