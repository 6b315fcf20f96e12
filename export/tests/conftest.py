import pathlib
import sys

import pytest

from echelon_export.cli import main

MODELS = pathlib.Path(__file__).resolve().parent / "models.py"


@pytest.fixture(autouse=True)
def forget_models():
    """Every export imports its file afresh, as a process of its own would."""
    path = list(sys.path)
    yield
    sys.modules.pop("models", None)
    sys.path[:] = path


@pytest.fixture
def export(tmp_path, capsys):
    """Runs the command on a name of models.py; gives status, standard output, standard error and
    the file.
    """

    def run(name, *options, output="out.pt2"):
        file = tmp_path / output
        target = name if ":" in name or "/" in name else f"{MODELS}:{name}"
        status = main([target, *options, "-o", str(file)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err, file

    return run


@pytest.fixture
def export_directory(tmp_path, capsys):
    """Runs the command on a model directory; gives status, standard output and error, the file."""

    def run(folder, *options):
        file = tmp_path / "out.pt2"
        status = main([str(folder), *options, "-o", str(file)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err, file

    return run
