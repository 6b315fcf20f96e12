"""Where exports are kept, by all that they depend on. Needs no torch: a hit costs no import."""

from __future__ import annotations

import hashlib
import importlib.metadata
import pathlib

from ..errors import ExportError
from .checkpoint import identity


def _versions() -> list[bytes]:
    """The libraries' and our own, which is what our files hold."""
    package = pathlib.Path(__file__).resolve().parents[1]
    ours = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        ours.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    found = [f"exporter {ours.hexdigest()}"]
    for name in ("torch", "transformers"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            raise ExportError(
                f"the Python package {name} is not installed; pip install 'echelon-export[text]'"
            ) from None
    return [text.encode() for text in found]


def path_of(
    folder: pathlib.Path, cache: pathlib.Path, dtype: str | None, max_model_len: int | None
) -> pathlib.Path:
    """The .pt2 of a model directory, whether it is there or not."""
    key = hashlib.sha256()
    options = f"dtype {dtype} max_model_len {max_model_len}".encode()
    for part in (*identity(folder), *_versions(), options):
        key.update(len(part).to_bytes(8, "little") + part)
    return cache / f"{key.hexdigest()[:40]}.pt2"
