"""echelon-export DIR: a Hugging Face model directory as a .pt2 without weights."""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Callable

from ..errors import ExportError
from . import cache

DTYPES = ("bf16", "f32")


def say(text: str):
    print(f"echelon-export: {text}", file=sys.stderr, flush=True)


def is_model_directory(target: str) -> bool:
    return pathlib.Path(target).is_dir()


def export_cached(
    folder: str | pathlib.Path,
    cache_folder: str | pathlib.Path,
    dtype: str | None = None,
    max_model_len: int | None = None,
    say: Callable[[str], None] = say,
) -> pathlib.Path:
    """The path of the directory's .pt2 in the cache, making it when it is absent."""
    folder, cache_folder = pathlib.Path(folder), pathlib.Path(cache_folder)
    if not (folder / "config.json").is_file():
        raise ExportError(
            f"there is no {folder / 'config.json'}; give a Hugging Face model directory"
        )
    try:
        path = cache.path_of(folder, cache_folder, dtype, max_model_len)
        cache_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{error.filename} cannot be used: {error.strerror}") from error
    if not path.is_file():
        export_directory(folder, path, dtype, max_model_len, say)
    return path


def export_directory(
    folder: str | pathlib.Path,
    output: str | pathlib.Path,
    dtype: str | None = None,
    max_model_len: int | None = None,
    say: Callable[[str], None] = say,
) -> list[str]:
    """Writes the .pt2 whole or not at all; gives lines that say what was written."""
    from ..archive import check_path

    folder, output = pathlib.Path(folder), pathlib.Path(output)
    if not folder.is_dir():
        raise ExportError(f"there is no directory {folder}")
    check_path(output)
    started = time.monotonic()
    try:
        from . import decoder
    except ImportError as error:
        raise ExportError(
            f"a Python package is missing ({error}); pip install 'echelon-export[text]'"
        ) from error
    lines = decoder.export(folder, output, dtype, max_model_len, say)
    say(f"written in {time.monotonic() - started:.0f} s")
    return lines
