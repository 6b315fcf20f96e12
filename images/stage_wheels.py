#!/usr/bin/env python3
"""Copies wheels out of an environment, by hard links where that can be: stage_wheels.py SITE_PACKAGES TARGET NAME..."""

from __future__ import annotations

import csv
import os
import pathlib
import re
import shutil
import sys


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def link(source: pathlib.Path, target: pathlib.Path):
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def main(site: pathlib.Path, target: pathlib.Path, names: list[str]) -> int:
    found = {normal(info.name.split("-")[0]): info for info in site.glob("*.dist-info")}
    for name in names:
        info = found.get(normal(name))
        if not info:
            print(f"stage_wheels: {site} has no wheel {name}; run make deps-python", file=sys.stderr)
            return 1
        for row in csv.reader((info / "RECORD").read_text().splitlines()):
            path = row[0]
            if path.startswith(("..", "/")) or "__pycache__" in path or path.startswith("torch/include"):
                continue
            if (site / path).is_file():
                link(site / path, target / path)
    return 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]))
