import functools
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


@functools.cache
def files() -> list[str]:
    """Every file of the repository, ignored ones aside, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    return sorted(name for name in set(listed) if name and (ROOT / name).is_file())


def sources(*suffixes: str) -> list[str]:
    return [name for name in files() if name.endswith(suffixes)]


@functools.cache
def text(name: str) -> str:
    return (ROOT / name).read_text()
