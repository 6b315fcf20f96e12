"""Whether an export is there already. Needs no torch: an answer costs no import."""

from __future__ import annotations

import pathlib
import zipfile

from .errors import ExportError


def is_whole(path: pathlib.Path) -> bool:
    """True where the file is a .pt2 up to its end: a copy that was cut off has no directory."""
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.endswith("models/model.json") for name in file.namelist())
    except (FileNotFoundError, IsADirectoryError, zipfile.BadZipFile):
        return False
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or error}") from error


def make_folder(path: pathlib.Path):
    """The folder that the file goes to, as a Job on a fresh volume finds none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"the folder {path.parent} cannot be made: {error.strerror or error}"
        ) from error
