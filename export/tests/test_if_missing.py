"""--if-missing: a Job may run any number of times, and the second time costs nothing."""

import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
X = ("--input", "x=4x8:f32", "--if-missing")


def test_an_export_that_is_there_is_left_as_it_is_and_no_torch_is_imported(export):
    status, _, err, file = export("net", *X)
    assert (status, err) == (0, "")
    before = file.stat()
    code = (
        "import sys; from echelon_export.cli import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "nowhere.py:net", "--if-missing", "-o", str(file)],
        capture_output=True,
        text=True,
        cwd=PACKAGE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file} is there already\n", "")
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_folder_that_is_not_there_is_made(export):
    status, _, err, file = export("net", *X, output="deep/.echelon/out.pt2")
    assert (status, err) == (0, "")
    assert [p.name for p in file.parent.iterdir()] == ["out.pt2"]


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_a_file_that_is_not_whole_is_written_again(export, damage):
    _, _, _, file = export("net", *X)
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "foreign": b"x" * 99}[damage])
    status, _, err, _ = export("net", *X)
    assert (status, err) == (0, "")
    assert len(file.read_bytes()) == len(whole)


def test_without_the_option_it_is_written_anew(export):
    _, _, _, file = export("net", *X)
    before = file.stat().st_ino
    export("net", *X[:2])
    assert file.stat().st_ino != before


def test_the_option_needs_a_file_to_look_for(tmp_path, capsys):
    from echelon_export.cli import main

    assert main([str(tmp_path), "--cache", str(tmp_path), "--if-missing"]) == 1
    assert "--if-missing goes with -o FILE.pt2" in capsys.readouterr().err
