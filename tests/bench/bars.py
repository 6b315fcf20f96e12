"""What the benchmarks' figures mean: each bar is met, missed or unresolved.

    bars.py BUILD/bench        adds "bars" to link.json and load.json, prints those of all files

The C++ programs write what they measured, round by round; what is aimed at stands here.
pipeline.json has its bars already.
"""

import json
import pathlib
import sys
from collections.abc import Iterator

import figures

HOP_AIM = 1 / 1.1  # of the speed of a bare TCP ping-pong: its time and 10 %
LOAD_AIM = 0.9  # of a memcpy into fresh huge pages
SAMPLES = ("by_round",)  # keys of lists, which no table shows


def link_bars(rows: list[dict]) -> Iterator[figures.Bar]:
    """by_round: the round trip's time over the bare one's in the same round."""
    for row in rows:
        if row["variant"] not in ("link", "link, TCP alone"):
            continue
        control = next(
            r for r in rows if r["bytes"] == row["bytes"] and r["variant"].endswith("(control)")
        )
        what = f"{row['variant']}, {row['bytes'] >> 10} KiB: of bare TCP's speed"
        yield figures.Bar(what, HOP_AIM, 1 / row["ratio"], figures.noise(control["by_round"]))


def load_bars(rows: list[dict]) -> Iterator[figures.Bar]:
    """by_round: the bytes a second over memcpy's in the same round."""
    for row in rows:
        if row["variant"] != "load":
            continue
        control = next(
            r
            for r in rows
            if r["threads"] == row["threads"] and r["variant"].endswith("(control)")
        )
        what = f"load, threads={row['threads']}: of memcpy's speed"
        yield figures.Bar(what, LOAD_AIM, row["of_memcpy"], figures.noise(control["by_round"]))


JUDGES = {"link": link_bars, "load": load_bars}


def judge(name: str, result: dict) -> dict:
    """The result with its bars; samples move out of the rows' way."""
    if name in JUDGES and "bars" not in result:
        result["bars"] = [bar.row() for bar in JUDGES[name](result["rows"])]
        samples = [{key: row.pop(key) for key in SAMPLES if key in row} for row in result["rows"]]
        result["samples"] = samples
    return result


def main() -> int:
    folder = pathlib.Path(sys.argv[1])
    bars = []
    for file in sorted(folder.glob("*.json")):
        result = judge(file.stem, json.loads(file.read_text()))
        file.write_text(json.dumps(result, indent=1) + "\n")
        bars += [{"benchmark": file.stem, **bar} for bar in result["bars"]]
    if bars:
        print(figures.table(bars))
    return 0


if __name__ == "__main__":
    sys.exit(main())
