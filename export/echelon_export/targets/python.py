"""Target "file.py:name" or "package.module:name": an nn.Module, a class of one, or a function that
returns one.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pathlib
import re
import sys
import traceback
from types import ModuleType

from torch import nn

from ..errors import ExportError, first_line

HELP = (
    "give a file and a name in it, like net.py:net "
    "(an nn.Module, its class, or a function that returns one)"
)
_TARGET = re.compile(r"(?P<where>.+):(?P<name>[A-Za-z_][\w.]*)")


def matches(target: str) -> bool:
    return _TARGET.fullmatch(target) is not None


def _line(error: BaseException, path: pathlib.Path) -> str:
    if isinstance(error, SyntaxError):
        return f" (line {error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f" (line {frames[-1].lineno})" if frames else ""


def _load_file(path: pathlib.Path) -> ModuleType:
    if not path.is_file():
        raise ExportError(f"there is no file {path}")
    path = path.resolve()
    sys.path.insert(
        0, str(path.parent)
    )  # so that its own imports work, as `python file.py` does it
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ExportError(
            f"{path.name} cannot be imported{_line(error, path)}: {first_line(error)}"
        ) from error
    return module


def _load_package(name: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ExportError(f"{name} cannot be imported: {first_line(error)}") from error


def _make(factory, described: str) -> nn.Module:
    try:
        needed = [
            p.name
            for p in inspect.signature(factory).parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):
        needed = []
    if needed:
        raise ExportError(
            f"{described} needs arguments ({', '.join(needed)}); "
            "write a function without arguments that returns the module, and name that"
        )
    try:
        made = factory()
    except Exception as error:
        raise ExportError(f"{described}() fails: {first_line(error)}") from error
    if not isinstance(made, nn.Module):
        raise ExportError(f"{described}() returns {type(made).__name__}, not an nn.Module")
    return made


def load(target: str) -> nn.Module:
    match = _TARGET.fullmatch(target)
    where, name = match["where"], match["name"]
    is_file = where.endswith(".py") or "/" in where
    module = _load_file(pathlib.Path(where)) if is_file else _load_package(where)
    value = module
    for part in name.split("."):
        if not hasattr(value, part):
            known = [
                k
                for k, v in vars(module).items()
                if not k.startswith("_")
                and (
                    isinstance(v, nn.Module)
                    or callable(v)
                    and getattr(v, "__module__", None) == module.__name__
                )
            ]
            raise ExportError(
                f"{where} has no {name!r}; it has "
                f"{', '.join(known) or 'nothing that could be exported'}"
            )
        value = getattr(value, part)
    if isinstance(value, nn.Module):
        return value
    if not callable(value):
        raise ExportError(f"{target} is {type(value).__name__}, not an nn.Module; {HELP}")
    return _make(value, target)
