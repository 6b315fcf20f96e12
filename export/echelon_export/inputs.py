"""What --input and --dynamic say: names, shapes, dtypes, and which dimensions stay free."""

from __future__ import annotations

import dataclasses
import inspect
import re

import torch

from .errors import ExportError

DTYPES = {
    "f32": torch.float32,
    "f64": torch.float64,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
BATCH = "batch"
_INPUT = re.compile(r"(?P<name>[^=\s]+)=(?P<shape>[^:]*):(?P<dtype>[a-z0-9]+)(<(?P<below>\d+))?")
_DYNAMIC = re.compile(
    r"(?P<input>[^:=\s]+):(?P<dim>\d+)=(?P<symbol>[A-Za-z_]\w*)(:(?P<min>\d+)\.\.(?P<max>\d+))?"
)


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One tensor that forward takes. `name` is a parameter of forward, with dots for keys:
    "batch.ids".
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    below: int = 2  # integer values are drawn from 0 .. below - 1

    @classmethod
    def parse(cls, text: str) -> InputSpec:
        """Reads "x=4x128:f32", "ids=4x16:i64<1000", or "scale=:f32" for a tensor without
        dimensions.
        """
        match = _INPUT.fullmatch(text)
        if not match:
            raise ExportError(
                f"--input {text!r} is not NAME=SHAPE:DTYPE; write it like x=4x128:f32 or "
                "ids=4x16:i64<1000"
            )
        if match["dtype"] not in DTYPES:
            raise ExportError(
                f"--input {text!r}: no dtype {match['dtype']!r}; use one of {', '.join(DTYPES)}"
            )
        sizes = match["shape"].split("x") if match["shape"] else []
        if not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise ExportError(
                f"--input {text!r}: the shape {match['shape']!r} is not sizes joined by x, "
                "like 4x128"
            )
        dtype, below = DTYPES[match["dtype"]], int(match["below"] or 2)
        if match["below"] and (dtype.is_floating_point or dtype == torch.bool):
            raise ExportError(f"--input {text!r}: only integer inputs take a range (<{below})")
        if (
            not (dtype.is_floating_point or dtype == torch.bool)
            and not 0 < below <= torch.iinfo(dtype).max + 1
        ):
            raise ExportError(
                f"--input {text!r}: {match['dtype']} holds no values up to {below - 1}"
            )
        return cls(match["name"], tuple(int(size) for size in sizes), dtype, below)

    def make(self, generator: torch.Generator, sizes: dict[int, int]) -> torch.Tensor:
        """Random values; `sizes` overrides dimensions."""
        shape = [sizes.get(dim, size) for dim, size in enumerate(self.shape)]
        if self.dtype.is_floating_point:
            return torch.randn(shape, generator=generator).to(self.dtype)
        if self.dtype == torch.bool:
            return torch.rand(shape, generator=generator) > 0.5
        return torch.randint(0, self.below, shape, generator=generator, dtype=torch.int64).to(
            self.dtype
        )


@dataclasses.dataclass(frozen=True)
class DynamicDim:
    """One free dimension of one input. Dimensions with one symbol have one size."""

    input: str
    dim: int
    symbol: str
    min: int | None = None
    max: int | None = None

    @classmethod
    def parse(cls, text: str) -> DynamicDim:
        """Reads "x:1=length:1..512"; one range a symbol is enough."""
        match = _DYNAMIC.fullmatch(text)
        if not match:
            raise ExportError(
                f"--dynamic {text!r} is not INPUT:DIM=SYMBOL:MIN..MAX; write it like "
                "x:1=length:1..512"
            )
        low, high = (int(match[k]) if match[k] else None for k in ("min", "max"))
        if low is not None and not 0 < low < high:
            raise ExportError(
                f"--dynamic {text!r}: the range {low}..{high} is empty; MIN must be from 1 to "
                "MAX - 1"
            )
        return cls(match["input"], int(match["dim"]), match["symbol"], low, high)


@dataclasses.dataclass(frozen=True)
class Symbol:
    name: str
    min: int
    max: int
    example: int  # its size while tracing; 1 would be taken for a constant

    def trials(self) -> tuple[int, int, int]:
        """Sizes to check: the traced one, the smallest, and another."""
        other = self.example + 1 if self.example < self.max else max(self.min, self.example - 1)
        return self.example, self.min, other


class Layout:
    """Which dimension of which input is which symbol."""

    def __init__(self, inputs: list[InputSpec], dims: list[DynamicDim]):
        self.inputs = {spec.name: spec for spec in inputs}
        self.dims: dict[str, dict[int, str]] = {spec.name: {} for spec in inputs}
        ranges: dict[str, tuple[int, int]] = {}
        for dim in dims:
            self._add(dim, ranges)
        self.symbols = {
            name: self._symbol(name, ranges) for name in dict.fromkeys(d.symbol for d in dims)
        }

    def _add(self, dim: DynamicDim, ranges: dict[str, tuple[int, int]]):
        spec = self.inputs.get(dim.input)
        if spec is None:
            raise ExportError(
                f"--dynamic {dim.input}:{dim.dim}: no --input is named {dim.input!r}; "
                f"there are {', '.join(self.inputs)}"
            )
        if dim.dim >= len(spec.shape):
            raise ExportError(
                f"--dynamic {dim.input}:{dim.dim}: input {dim.input} has {len(spec.shape)} "
                "dimensions, "
                "counted from 0"
            )
        self.dims[dim.input][dim.dim] = dim.symbol
        if dim.min is not None:
            if ranges.setdefault(dim.symbol, (dim.min, dim.max)) != (dim.min, dim.max):
                raise ExportError(
                    f"--dynamic {dim.input}:{dim.dim}: {dim.symbol} already has the range "
                    "{}..{}".format(*ranges[dim.symbol])
                )

    def _symbol(self, name: str, ranges: dict[str, tuple[int, int]]) -> Symbol:
        if name not in ranges:
            raise ExportError(
                f"the dynamic dimension {name} has no range; write one, like {name}:1..512"
            )
        low, high = ranges[name]
        places = [
            (i, dim)
            for i, dims in self.dims.items()
            for dim, symbol in dims.items()
            if symbol == name
        ]
        sizes = {place: self.inputs[place[0]].shape[place[1]] for place in places}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(
                f"{i} has {size} in dimension {dim}" for (i, dim), size in sizes.items()
            )
            advice = (
                " (an input without a batch dimension is named by --fixed)" if name == BATCH else ""
            )
            raise ExportError(f"inputs disagree about {name}: {listed}{advice}")
        given = next(iter(sizes.values()))
        if not low <= given <= high:
            raise ExportError(
                f"input {places[0][0]}: size {given} of {name} is not within {low}..{high}"
            )
        return Symbol(name, low, high, max(given, min(2, high)))

    def make(self, values: dict[str, int], seed: int) -> dict[str, torch.Tensor]:
        """One random tensor for each input, with these sizes for the symbols."""
        generator = torch.Generator().manual_seed(seed)
        return {
            name: spec.make(generator, {d: values[s] for d, s in self.dims[name].items()})
            for name, spec in self.inputs.items()
        }

    def dynamic_shapes(self) -> dict[str, dict[int, object] | None]:
        dims = {
            s.name: torch.export.Dim(s.name, min=s.min, max=s.max) for s in self.symbols.values()
        }
        return {
            name: {d: dims[s] for d, s in where.items()} or None
            for name, where in self.dims.items()
        }

    def shape_text(self, name: str) -> str:
        return (
            "["
            + ", ".join(
                self.dims[name].get(d, str(s)) for d, s in enumerate(self.inputs[name].shape)
            )
            + "]"
        )


def batch_dims(inputs: list[InputSpec], fixed: set[str], low: int, high: int) -> list[DynamicDim]:
    """Dimension 0 of every input but the fixed ones is the batch."""
    unknown = fixed - {spec.name for spec in inputs}
    if unknown:
        raise ExportError(
            f"--fixed {sorted(unknown)[0]}: no --input has that name; "
            f"there are {', '.join(s.name for s in inputs)}"
        )
    return [
        DynamicDim(spec.name, 0, BATCH, low, high)
        for spec in inputs
        if spec.shape and spec.name not in fixed
    ]


def nest(leaves: dict[str, object]) -> dict[str, object]:
    """{"batch.ids": t} becomes {"batch": {"ids": t}}; keys 0, 1, ... make a tuple."""
    tree: dict = {}
    for name, leaf in leaves.items():
        *path, last = name.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ExportError(f"input {name}: {key!r} is a tensor and a dictionary at once")
        if last in node:
            raise ExportError(
                f"input {name} is given twice, or is a tensor and a dictionary at once"
            )
        node[last] = leaf

    def close(node):
        if not isinstance(node, dict):
            return node
        closed = {key: close(value) for key, value in node.items()}
        if closed and list(closed) == [str(i) for i in range(len(closed))]:
            return tuple(closed.values())
        return closed

    return {key: close(value) for key, value in tree.items()}


def bind(module: torch.nn.Module, arguments: dict[str, object]) -> tuple[tuple, dict]:
    """Orders arguments as forward wants them: (positional, keyword)."""
    parameters = inspect.signature(module.forward).parameters
    kinds = {p.kind for p in parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL in kinds and not set(arguments) & set(parameters):
        return tuple(arguments.values()), {}
    takes = [n for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    described = f"forward takes {', '.join(takes) or 'nothing'}"
    for name in arguments:
        if name not in takes and inspect.Parameter.VAR_KEYWORD not in kinds:
            raise ExportError(
                f"{type(module).__name__}.forward has no parameter {name!r} for --input "
                f"{name}; {described}"
            )
    for name in takes:
        if name not in arguments and parameters[name].default is inspect.Parameter.empty:
            raise ExportError(
                f"{type(module).__name__}.forward needs {name!r}, and no --input gives it; "
                f"{described}"
            )
    positional, rest = [], dict(arguments)
    for name in takes:
        if name not in rest or parameters[name].kind is inspect.Parameter.KEYWORD_ONLY:
            break
        positional.append(rest.pop(name))
    return tuple(positional), {n: rest.pop(n) for n in takes if n in rest} | rest
