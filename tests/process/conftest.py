"""Processes that end with their test: start(...) for anything, `served` for a shared pipeline."""

import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from clients import Case  # noqa: E402
from pipeline import ANY_PORTS, Run, Stage, with_defaults  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than ten seconds")


class Starter:
    """Starts processes, each in a folder of its own, and destroys them in reverse."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []

    def __call__(self, kind, *args, **kwargs):
        process = kind(self.folder / f"p{len(self.processes)}", *args, **kwargs)
        self.processes.append(process)
        return process

    def run(self, model, stages, *flags, **kwargs):
        """echelon run, not yet ready."""
        return self(Run, model, f"--stages={stages}", *flags, **kwargs)

    def stage(self, model, rank, world, port, *flags):
        """One rank, started as the article starts it."""
        where = {"RANK": rank, "WORLD": world, "HOST": "127.0.0.1", "PORT": port}
        flags = with_defaults(flags, (*ANY_PORTS, "--bind=127.0.0.1"))
        return self(Stage, model, *flags, env=where)

    def destroy(self):
        for process in reversed(self.processes):
            process.destroy()


@pytest.fixture
def start(tmp_path):
    starter = Starter(tmp_path)
    yield starter
    starter.destroy()


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory):
    starter = Starter(tmp_path_factory.mktemp("shared"))
    yield starter
    starter.destroy()


@pytest.fixture(scope="session")
def net():
    return Case("net")
