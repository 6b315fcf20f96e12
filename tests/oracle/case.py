"""One case of the oracle: a model, its inputs, and what eager PyTorch answers.

A case becomes a folder that C++ tests read without Python:

    <case>/model.pt2            torch.export.save of the exported model, nothing of ours
    <case>/run<k>.safetensors   input.<name> and output.<name> of an eager run, in order if stateful
    <case>/case.json            {"exact", "stateful", "chunkable", "runs", "tolerance", "stamp"}

Input names are the placeholders of the graph signature's user inputs. Output names follow the
out_spec: "output" for one tensor, "output_<i>" for a tuple or list, the keys of a dict, nested
names joined by ".". Values that are not tensors but sizes are saved as int64 scalars; None and
constants are left out.
"""

import copy
import dataclasses
import json
import pathlib
import zlib
from collections.abc import Callable

import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils import _pytree as pytree

BATCH = torch.export.Dim("batch", min=1, max=64)
BATCHES = (4, 1, 2, 64)


@dataclasses.dataclass
class Model:
    """What a case's function returns. The first of `runs` is the example that export traces."""

    module: nn.Module
    runs: list[tuple[tuple, dict]]
    dynamic_shapes: object = None
    chunkable: bool = (
        False  # rows of dim 0 of every input and output are independent of one another
    )
    stateful: bool = False  # a run depends on the runs before it
    functional: bool = False  # saved as run_decompositions() leaves it: writes become outputs
    grad_mode: bool = False  # traced with gradients on, as a user who sets nothing does
    training: bool = False  # left in training mode
    tolerance: float = 1e-5


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], Model]
    large: bool = False  # made only when asked for


CASES: dict[str, Case] = {}


def case(function=None, *, name=None, large=False):
    """Registers a function that builds a Model; its name is the case's name."""

    def register(f):
        CASES[name or f.__name__] = Case(name or f.__name__, f, large)
        return f

    return register(function) if function else register


def positional(*args):
    return args, {}


def batched(*shapes, batches=BATCHES, make=torch.randn):
    """One run for each batch size; every input's dim 0 is the batch."""
    return [positional(*(make(batch, *shape) for shape in shapes)) for batch in batches]


def keys_of(spec):
    """The names of a container's children; None where they only have places."""
    if not isinstance(
        spec.type, type
    ):  # pytree marks every namedtuple by the function that made it
        return spec.context._fields
    if issubclass(spec.type, dict):
        return spec.context
    if issubclass(spec.type, (list, tuple)):
        return None
    return spec.context[0]  # a registered dataclass: (present fields, None fields)


def output_names(spec, prefix=""):
    """The name of every leaf of an out_spec, in flattening order."""
    if spec.is_leaf():
        return [prefix or "output"]
    keys, place = keys_of(spec), "" if prefix else "output_"
    keys = keys if keys is not None else [f"{place}{i}" for i in range(spec.num_children)]
    join = f"{prefix}." if prefix else ""
    leaves = zip(keys, spec.children(), strict=True)
    return [name for key, child in leaves for name in output_names(child, f"{join}{key}")]


def as_tensor(value):
    """What a safetensors file can hold of a leaf, or None."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(value, int) and not isinstance(value, bool):
        return torch.tensor(value, dtype=torch.int64)
    return None


def named(prefix, names, values):
    assert len(names) == len(values), f"{prefix}: {len(names)} names for {len(values)} values"
    tensors = {f"{prefix}.{name}": as_tensor(value) for name, value in zip(names, values)}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def run(module, args, kwargs):
    """Runs a module on copies, so that in-place writes to inputs do not reach the recorded ones.

    Without gradients, as a server does: operators may choose another kernel with them (LSTM).
    """
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
    with torch.no_grad():
        return pytree.tree_leaves(module(*args, **kwargs), is_leaf=lambda leaf: leaf is None)


def same(got, want, tolerance):
    """None, or the largest difference of two lists of leaves when they are not equal to the last
    bit.
    """
    worst = 0.0
    for a, b in zip(got, want, strict=True):
        if not isinstance(a, torch.Tensor):
            assert a == b, f"{a} is not {b}"
            continue
        assert a.dtype == b.dtype and a.shape == b.shape, (
            f"{a.dtype} {a.shape} is not {b.dtype} {b.shape}"
        )
        if not torch.equal(a, b):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
            worst = max(worst, (a.double() - b.double()).nan_to_num().abs().max().item())
    return worst or None


def rows(tree, start, stop):
    return pytree.tree_map_only(torch.Tensor, lambda t: t[start:stop], tree)


def check_chunkable(model):
    """A chunkable case must mean it: half a batch gives half the answer."""
    for args, kwargs in model.runs:
        batch = pytree.tree_leaves((args, kwargs))[0].shape[0]
        if batch > 1:
            whole, half = (
                run(model.module, args, kwargs),
                run(model.module, *rows((args, kwargs), 0, batch // 2)),
            )
            same(half, rows(whole, 0, batch // 2), model.tolerance)


def write(item: Case, out: pathlib.Path, stamp: str):
    """Exports one case, checks the export against eager and writes its folder."""
    torch.manual_seed(zlib.crc32(item.name.encode()))
    model = item.build()
    model.module.train(model.training).requires_grad_(False)
    folder = out / item.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.json").unlink(missing_ok=True)
    eager = (
        copy.deepcopy(model.module) if model.stateful else model.module
    )  # a copy would lose shared storage
    with torch.set_grad_enabled(model.grad_mode):
        example = pytree.tree_map_only(torch.Tensor, torch.clone, model.runs[0])
        program = torch.export.export(
            model.module, *example, strict=False, dynamic_shapes=model.dynamic_shapes
        )
        if model.functional:
            program = program.run_decompositions({})
    torch.export.save(program, folder / "model.pt2")
    if model.chunkable:
        check_chunkable(model)
    exported, exact = program.module(), True
    names = [str(name) for name in program.graph_signature.user_inputs]
    placeholders = [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind.name == "USER_INPUT"
    ]
    assert len(names) == len(placeholders)
    for index, (args, kwargs) in enumerate(model.runs):
        flat = pytree.tree_leaves((args, kwargs), is_leaf=lambda leaf: leaf is None)
        inputs = named("input", placeholders, flat)
        want = run(eager, args, kwargs)
        if same(run(exported, args, kwargs), want, model.tolerance) is not None:
            exact = False
        outputs = named("output", output_names(program.call_spec.out_spec), want)
        save_file(inputs | outputs, folder / f"run{index}.safetensors")
    about = {
        "exact": exact,
        "stateful": model.stateful,
        "chunkable": model.chunkable,
        "runs": len(model.runs),
        "tolerance": model.tolerance,
        "stamp": stamp,
    }
    (folder / "case.json").write_text(json.dumps(about, indent=2) + "\n")
