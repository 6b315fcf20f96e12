"""Traces a module, checks the result against eager PyTorch at several sizes, and writes it."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import itertools
import pathlib
import warnings

import torch
from torch import nn
from torch.utils import _pytree as pytree

from . import archive, refusal
from .errors import ExportError, first_line
from .inputs import BATCH, DynamicDim, InputSpec, Layout, batch_dims, bind, nest

TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-9}
DEFAULT_TOLERANCE = 1e-5


@dataclasses.dataclass
class Options:
    inputs: list[InputSpec]
    dynamic: list[DynamicDim] = dataclasses.field(default_factory=list)
    constants: dict[str, object] = dataclasses.field(
        default_factory=dict
    )  # arguments that are not tensors
    fixed: set[str] = dataclasses.field(default_factory=set)  # inputs without a batch dimension
    static: bool = False  # no batch dimension at all
    min_batch: int = 1
    max_batch: int | None = None  # default: 64, or the example's if larger

    def layout(self) -> Layout:
        names = [spec.name for spec in self.inputs]
        if not names:
            raise ExportError(
                "no --input is given; say what forward takes, like --input x=4x128:f32"
            )
        if len(set(names)) < len(names):
            raise ExportError(
                f"--input {next(n for n in names if names.count(n) > 1)} is given twice"
            )
        sizes = [s.shape[0] for s in self.inputs if s.shape and s.name not in self.fixed]
        high = self.max_batch or max([64, *sizes])
        if self.static or high == 1:
            return Layout(self.inputs, self.dynamic)
        if not 0 < self.min_batch < high:
            raise ExportError(
                f"--min-batch {self.min_batch} is not from 1 to --max-batch {high} - 1"
            )
        explicit = {(d.input, d.dim) for d in self.dynamic}
        batch = [
            d
            for d in batch_dims(self.inputs, self.fixed, self.min_batch, high)
            if (d.input, 0) not in explicit
        ]
        return Layout(self.inputs, batch + self.dynamic)


@dataclasses.dataclass
class Report:
    """What was written and how it was checked."""

    archive: archive.Contents
    layout: Layout
    checked: list[dict[str, int]]  # sizes of the symbols in each check
    difference: float  # largest |exported - eager| seen

    def lines(self) -> list[str]:
        lines = self.archive.lines()
        ranges = ", ".join(f"{s.name} {s.min}..{s.max}" for s in self.layout.symbols.values())
        lines.append(f"  dynamic  {ranges or 'nothing: every size is fixed'}")
        sizes = (
            "; ".join(", ".join(f"{k} {v}" for k, v in c.items()) for c in self.checked if c)
            or "the example's sizes"
        )
        equal = (
            "equal to the last bit"
            if self.difference == 0
            else f"largest difference {self.difference:.2g}"
        )
        lines.append(f"  checked  against eager at {sizes}: {equal}")
        return lines


class Buffers:
    """The buffers of a module, put back after every run: a check must not change what is saved."""

    def __init__(self, module: nn.Module):
        self.kept = [
            (owner, name, value, value.clone())
            for owner in module.modules()
            for name, value in owner._buffers.items()
            if value is not None
        ]

    def restore(self):
        for owner, name, value, copy in self.kept:
            owner._buffers[name] = value
            value.copy_(copy)


@contextlib.contextmanager
def tracing():
    """no_grad keeps set-grad subgraphs out; the mha fast path is a fused operator that eager takes
    and export does not.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def quiet():
    """A failing export prints graphs before it raises."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def prepare(module: nn.Module) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule):
        raise ExportError(
            f"{type(module).__name__} is a TorchScript module; give the nn.Module that it was "
            "made from"
        )
    for name, value in itertools.chain(module.named_parameters(), module.named_buffers()):
        if value.is_meta or isinstance(value, torch._subclasses.FakeTensor):
            raise ExportError(
                f"{name} is on the meta device and has no values; load the weights first"
            )
        if value.layout != torch.strided or type(value.data) is not torch.Tensor:
            raise ExportError(
                f"{name} is not a plain dense tensor ({type(value.data).__name__}, "
                f"{value.layout}); "
                "make it dense before the export"
            )
    return module.cpu().eval().requires_grad_(False)


def arguments(
    module: nn.Module, layout: Layout, constants: dict, values: dict[str, int], seed: int
):
    return bind(module, nest(layout.make(values, seed) | constants))


def shapes_for(module: nn.Module, layout: Layout, constants: dict):
    """dynamic_shapes, keyed as torch.export wants it: by forward's own parameter names."""
    tree = nest(layout.dynamic_shapes() | dict.fromkeys(constants))
    args, kwargs = bind(module, tree)
    parameters = inspect.signature(module.forward).parameters
    variadic = [n for n, p in parameters.items() if p.kind is p.VAR_POSITIONAL]
    if variadic and not set(tree) & set(parameters):
        return {variadic[0]: args}
    return dict(zip(parameters, args)) | kwargs


def eager(module: nn.Module, args: tuple, kwargs: dict):
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
    return module(*args, **kwargs)


def compare(got, want, sizes: str) -> float:
    """The largest difference; raises where the export is not the model."""
    worst = 0.0
    names = archive.leaf_names(want)
    got, want = pytree.tree_leaves(got), pytree.tree_leaves(want)
    for name, a, b in zip(names, got, want, strict=True):
        where = f"{name}{sizes}"
        if not isinstance(b, torch.Tensor):
            if a != b:
                raise ExportError(
                    f"the export is not the model: {where} is {a!r}, eager gives {b!r}; "
                    "--static may help"
                )
            continue
        if a.dtype != b.dtype or a.shape != b.shape:
            raise ExportError(
                f"the export is not the model: {where} is {a.dtype} {list(a.shape)}, eager gives "
                f"{b.dtype} {list(b.shape)}; --static may help"
            )
        if torch.equal(a, b) or a.numel() == 0:
            continue
        tolerance = TOLERANCE.get(a.dtype, DEFAULT_TOLERANCE) if a.is_floating_point() else 0
        difference = (a.double() - b.double()).abs().nan_to_num(nan=0.0, posinf=0.0).max().item()
        if not torch.allclose(
            a.double(), b.double(), rtol=tolerance, atol=tolerance, equal_nan=True
        ):
            raise ExportError(
                f"the export is not the model: {where} differs from eager by {difference:.2g}; "
                "a result that depends on Python values, on randomness or on the batch size "
                "does this"
            )
        worst = max(worst, difference)
    return worst


def trials(layout: Layout) -> list[dict[str, int]]:
    columns = [[{s.name: size} for size in s.trials()] for s in layout.symbols.values()]
    if not columns:
        return [{}]
    merged = [{k: v for part in row for k, v in part.items()} for row in zip(*columns)]
    return [row for index, row in enumerate(merged) if row not in merged[:index]]


def check(
    module: nn.Module, program: torch.export.ExportedProgram, layout: Layout, constants: dict
) -> Report:
    """The gate: an export can be silently wrong, so it is run at other sizes than it was traced
    with.
    """
    exported, buffers, worst, sizes = program.module(), Buffers(module), 0.0, trials(layout)
    for index, values in enumerate(sizes):
        args, kwargs = arguments(module, layout, constants, values, seed=index + 1)
        said = "".join(f" at {name} {size}" for name, size in values.items())
        try:
            want = eager(module, args, kwargs)
        except Exception as error:
            raise ExportError(
                f"the model itself fails{said}: {first_line(error)}; "
                "narrow the range (--min-batch, --max-batch, --dynamic) or use --static"
            ) from error
        finally:
            buffers.restore()
        try:
            got = eager(exported, args, kwargs)
        except Exception as error:
            raise refusal.run_failed(error, said) from error
        finally:
            buffers.restore()
        worst = max(worst, compare(got, want, said))
    return Report(None, layout, sizes, worst)


def export_module(module: nn.Module, options: Options, path: str | pathlib.Path) -> Report:
    """Exports `module` to `path` (.pt2). Raises ExportError, and then leaves no file behind."""
    path = pathlib.Path(path)
    archive.check_path(path)
    layout = options.layout()
    module = prepare(module)
    traced = {s.name: s.example for s in layout.symbols.values()}
    with tracing():
        args, kwargs = arguments(module, layout, options.constants, traced, seed=0)
        buffers = Buffers(module)
        try:
            eager(module, args, kwargs)
        except Exception as error:
            raise refusal.eager_failed(error, module) from error
        finally:
            buffers.restore()
        try:
            with quiet():
                program = torch.export.export(
                    module,
                    args,
                    kwargs,
                    strict=False,
                    dynamic_shapes=shapes_for(module, layout, options.constants),
                )
        except Exception as error:
            raise refusal.trace_failed(error, BATCH if BATCH in layout.symbols else None) from error
        report = check(module, program, layout, options.constants)
        report.archive = archive.save(program, path, layout.dims)
    return report
