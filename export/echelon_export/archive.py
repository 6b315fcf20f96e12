"""The .pt2 file: writing it whole or not at all, and saying what is in it."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import re
import tempfile
import zipfile

import torch
from torch.utils import _pytree as pytree

from .errors import ExportError, first_line
from .inputs import DTYPE_NAMES

_SYMBOL = re.compile(r"\bs\d+\b")
DROPPED = ("stack_trace", "from_node")  # most of a file's graph, and nobody serves from them


def check_path(path: pathlib.Path):
    if path.suffix != ".pt2":
        raise ExportError(f"the output {path} does not end in .pt2")
    if not path.parent.is_dir():
        raise ExportError(f"the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise ExportError(f"the output {path} is a folder")


def leaf_names(value) -> list[str]:
    """Names of the leaves of a result, as the server calls them."""
    return names_of(pytree.tree_structure(value))


def _keys(spec) -> list[str]:
    if not isinstance(
        spec.type, type
    ):  # pytree marks every namedtuple by the function that made it
        return list(spec.context._fields)
    if issubclass(spec.type, (list, tuple)):
        return [str(index) for index in range(spec.num_children)]
    if spec.type is collections.defaultdict:
        return spec.context[1]
    if issubclass(spec.type, dict):
        return spec.context
    return spec.context[0]  # a registered dataclass: (present fields, None fields)


def names_of(spec, prefix: str = "") -> list[str]:
    """One tensor is "output"; in a tuple or list "output_<i>"; a dict gives its keys; "." joins."""
    if spec.is_leaf():
        return [prefix or "output"]
    top = "output_" if not prefix and spec.type in (list, tuple) else ""
    names = []
    for key, child in zip(_keys(spec), spec.children(), strict=True):
        names += names_of(child, f"{prefix}.{key}" if prefix else f"{top}{key}")
    return names


@dataclasses.dataclass
class Contents:
    path: pathlib.Path
    file_bytes: int
    parameters: int
    weight_bytes: int
    operators: int
    inputs: list[str]
    outputs: list[str]

    def lines(self) -> list[str]:
        return [
            f"{self.path}: {self.parameters:,} parameters, {size_text(self.weight_bytes)} of "
            "weights, "
            f"{self.operators:,} operators, {size_text(self.file_bytes)} on disk",
            *(f"  input    {text}" for text in self.inputs),
            *(f"  output   {text}" for text in self.outputs),
        ]


def size_text(count: int) -> str:
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _value_text(name: str, value) -> str:
    if not isinstance(value, torch.Tensor):
        return f"{name}  {value if not isinstance(value, torch.SymInt) else 'size'}"
    sizes = ", ".join(str(size) for size in value.shape)
    return f"{name}  {DTYPE_NAMES.get(value.dtype, value.dtype)} [{sizes}]"


def _contents(
    program: torch.export.ExportedProgram, path: pathlib.Path, symbols: dict[str, str]
) -> Contents:
    def text(name, value):
        described = _value_text(name, value)
        return _SYMBOL.sub(lambda match: symbols.get(match[0], match[0]), described)

    signature = program.graph_signature
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = [
        text(s.arg.name, values.get(s.arg.name))
        for s in signature.input_specs
        if s.kind.name == "USER_INPUT" and hasattr(s.arg, "name") and not hasattr(s.arg, "value")
    ]
    outputs = [s.arg for s in signature.output_specs if s.kind.name == "USER_OUTPUT"]
    named = zip(names_of(program.call_spec.out_spec), outputs, strict=True)
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in program.state_dict.values()
    }
    owned = {
        id(p): p.numel() for p in program.state_dict.values() if isinstance(p, torch.nn.Parameter)
    }
    return Contents(
        path,
        path.stat().st_size,
        sum(owned.values()),
        sum(storages.values()),
        sum(node.op == "call_function" for node in program.graph.nodes),
        inputs,
        [text(name, getattr(arg, "value", values.get(arg.name))) for name, arg in named],
    )


def _refuse_pickles(path: pathlib.Path):
    with zipfile.ZipFile(path) as file:
        for member in file.namelist():
            if member.endswith("_config.json"):
                for name, entry in json.loads(file.read(member))["config"].items():
                    if entry["use_pickle"]:
                        raise ExportError(
                            f"{name} can only be saved as a pickle, which a server must not read; "
                            "make it a plain dense tensor"
                        )


def _symbols(
    program: torch.export.ExportedProgram, names: dict[str, dict[int, str]]
) -> dict[str, str]:
    """Internal symbol -> the name the user gave it, found through the input that carries it."""
    placeholders = {name.replace(".", "_"): dims for name, dims in names.items()}
    found = {}
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, torch.Tensor):
            for dim, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt) and size.node.expr.is_symbol:
                    found.setdefault(str(size), placeholders.get(node.name, {}).get(dim, str(size)))
    return found


def write(
    program: torch.export.ExportedProgram,
    path: pathlib.Path,
    extra_files: dict[str, str] | None = None,
):
    """Writes through a folder beside the target, so that a reader never sees half a file."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for key in DROPPED:
                node.meta.pop(key, None)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
            whole = pathlib.Path(folder) / path.name
            torch.export.save(program, whole, extra_files=extra_files)
            _refuse_pickles(whole)
            os.replace(whole, path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}") from error
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"torch.export.save refuses the model: {first_line(error)}") from error


def save(
    program: torch.export.ExportedProgram, path: pathlib.Path, names: dict[str, dict[int, str]]
) -> Contents:
    """Writes a module with its weights, and says what the file holds.

    `names` says what the user calls a dimension: {input: {dim: symbol}}.
    """
    write(program, path)
    return _contents(program, path, _symbols(program, names))
