#!/usr/bin/env python3
"""Writes the tables of docs/benchmarks.md from BUILD/bench/*.json, between its markers.

    tools/bench_table.py [--build build] [--check]

A file holds {"rows": [{column: value}, ...]} and, if it likes, "title" and "machine" texts and the
tables "controls" and "bars". A marker is a line `<!-- bench: NAME -->`; all up to the next
`<!-- end -->` is replaced by the tables of NAME.json.
--check writes nothing and ends with status 1 when a marker has no file.
"""

import argparse
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
MARKER = re.compile(r"(<!-- bench: ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def cell(value) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(rows: list[dict]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    numeric = [all(isinstance(row.get(c), (int, float)) for row in rows) for c in columns]
    lines = ["| " + " | ".join(column.replace("_", " ") for column in columns) + " |",
             "|" + "|".join("---:" if right else "---" for right in numeric) + "|"]  # fmt: skip
    lines += ["| " + " | ".join(cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def section(file: pathlib.Path) -> str:
    data = json.loads(file.read_text())
    texts = [data[key] for key in ("title", "machine") if data.get(key)]
    tables = [table(data[key]) for key in ("rows", "controls", "bars") if data.get(key)]
    return "\n\n".join([*texts, *tables]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    missing = []

    def replace(match: re.Match) -> str:
        file = args.build / "bench" / f"{match[2]}.json"
        if not file.exists():
            missing.append(file)
            return match[0]
        return f"{match[1]}{section(file)}{match[3]}"

    page = MARKER.sub(replace, PAGE.read_text())
    for file in missing:
        print(f"bench_table: {file} is not there; run `make bench`", file=sys.stderr)
    if not args.check:
        PAGE.write_text(page)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
