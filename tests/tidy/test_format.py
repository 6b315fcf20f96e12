"""C++ is laid out as .clang-format says: `make format` does it."""

import subprocess

from conftest import ROOT, sources


def test_cpp_is_formatted():
    names = [n for n in sources(".cc", ".h")]
    done = subprocess.run(
        ["clang-format-14", "--dry-run", "-Werror", *names], cwd=ROOT, capture_output=True, text=True
    )
    wrong = sorted({line.split(":")[0] for line in done.stderr.splitlines() if "error:" in line})
    assert not wrong, "run `make format`"
