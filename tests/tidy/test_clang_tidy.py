"""clang-tidy (.clang-tidy) over the C++ files that changed since the base.

The base is $ECHELON_TIDY_BASE, else the merge base with origin/main, else the commit before. Needs a build's compile
database ($ECHELON_BUILD, build/ otherwise); bounded in time, the smallest change first.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import time
import warnings

import pytest
from conftest import ROOT

LIMIT_S = float(os.environ.get("ECHELON_TIDY_SECONDS", 240))
BUILD = pathlib.Path(os.environ.get("ECHELON_BUILD", ROOT / "build"))


def git(*words):
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def base():
    if chosen := os.environ.get("ECHELON_TIDY_BASE"):
        return git("rev-parse", chosen)
    merged = git("merge-base", "HEAD", "origin/main")
    return merged if merged and merged != git("rev-parse", "HEAD") else git("rev-parse", "HEAD~1")


def changed_units(commit):
    """Units that changed, those with the fewest changed lines first."""
    lines = {}
    for row in (git("diff", "--numstat", commit, "--", "*.cc") or "").splitlines():
        added, _, name = row.split("\t")
        if (ROOT / name).exists():
            lines[name] = int(added)
    return sorted(lines, key=lines.get)


def database(folder):
    """The build's compile commands without the compiler cache and g++'s precompiled header, which clang cannot read."""
    entries = json.loads((BUILD / "compile_commands.json").read_text())
    for entry in entries:
        words, kept = shlex.split(entry["command"]), []
        while words:
            word = words.pop(0)
            if word == "-include" and words and words[0].endswith("cmake_pch.hxx"):
                header = pathlib.Path(words.pop(0))
                copy = folder / f"{header.parent.parent.name}_pch.h"  # beside it lies no .gch
                copy.write_text(header.read_text())
                kept += ["-include", str(copy)]
            elif word not in ("-Winvalid-pch", "-fpch-preprocess"):
                kept.append(word)
        first = next(i for i, word in enumerate(kept) if word.endswith(("g++", "c++", "clang++", "clang++-14")))
        entry["command"] = shlex.join(kept[first:])
    (folder / "compile_commands.json").write_text(json.dumps(entries))
    return {str(pathlib.Path(entry["file"]).resolve()) for entry in entries}


def is_of_ours(line):
    """A finding; clang 14 does not understand all of torch's headers, and goes on after them."""
    place = re.match(r"(/[^:]+):\d+:\d+: (?:warning|error): ", line)
    return bool(place) and place[1].startswith(f"{ROOT}/") and not place[1].startswith((f"{BUILD}/", f"{ROOT}/build"))


def test_changed_files_pass_clang_tidy(tmp_path):
    if not (BUILD / "compile_commands.json").exists():
        pytest.skip(f"no compile database in {BUILD}: run `make build`")
    commit = base()
    if commit is None:
        pytest.skip("no earlier commit to compare with")
    known = database(tmp_path)
    units = [name for name in changed_units(commit) if str(ROOT / name) in known]
    deadline = time.monotonic() + LIMIT_S

    def check(name):
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        try:
            return subprocess.run(
                ["clang-tidy-14", "--quiet", "-p", str(tmp_path), name],
                cwd=ROOT, capture_output=True, text=True, timeout=left,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        done = dict(zip(units, pool.map(check, units)))
    skipped = [name for name, result in done.items() if result is None]
    if skipped:
        warnings.warn(f"no time for {len(skipped)} of {len(units)} files: {' '.join(skipped)}", stacklevel=1)
    findings = {line for result in done.values() if result for line in result.stdout.splitlines() if is_of_ours(line)}
    assert not findings, "\n" + "\n".join(sorted(findings))
