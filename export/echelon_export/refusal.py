"""Turns what torch.export says, often pages long, into one line that says what to do."""

from __future__ import annotations

import re
import traceback

from torch import nn

from .errors import ExportError, first_line

_SPECIALISED = re.compile(
    r"marked (?P<symbol>\w+) as dynamic but your code specialized it "
    r"to be a constant \((?P<value>\d+)\)"
)
_FIX = re.compile(r"^\s*(?P<symbol>\w+) = (?P<fix>.+?)\s*$", re.M)
_BOUND = re.compile(r"Dim\('(?P<symbol>\w+)'(?:, min=(?P<min>\d+))?(?:, max=(?P<max>\d+))?\)")


def _in_user_code(error: BaseException) -> str:
    """Where in the model's own code it happened, if that can be told."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f
        for f in frames
        if "/torch/" not in f.filename
        and "/echelon_export/" not in f.filename
        and not f.filename.startswith("<")
    ]
    inside = [f for f in ours if f.name == "forward"] or ours
    return f" at {inside[-1].filename.rsplit('/', 1)[-1]}:{inside[-1].lineno}" if inside else ""


def eager_failed(error: Exception, module: nn.Module) -> ExportError:
    """The model cannot run on the inputs that were described."""
    advice = "check the shapes and dtypes of --input"
    if "out of range" in str(error) or isinstance(error, IndexError):
        advice = "say how large the integers may be, like --input ids=4x16:i64<1000"
    return ExportError(
        f"{type(module).__name__} fails on the inputs described{_in_user_code(error)}: "
        f"{first_line(error)}; {advice}"
    )


def _fixed(text: str, symbol: str, value: str | None, batch: str | None) -> ExportError:
    size = f" to {value}" if value else ""
    if symbol == batch:
        return ExportError(
            f"the model fixes its batch dimension{size}; export it with --static (every size "
            "as given), "
            "or change the code that reads the size"
        )
    return ExportError(
        f"the model fixes the dynamic dimension {symbol}{size}; leave it out of --dynamic, "
        "or change the code that reads the size"
    )


def _bounds(text: str, batch: str | None) -> ExportError | None:
    fixes = text.partition("Suggested fixes:")[2]
    for match in _FIX.finditer(fixes):
        symbol, fix = match["symbol"], match["fix"]
        if fix.isdecimal():
            return _fixed(text, symbol, fix, batch)
        bound = _BOUND.fullmatch(fix)
        if bound:
            flags = [
                f"--{k}-batch {bound[k]}" if symbol == batch else f"{k} {bound[k]}"
                for k in ("min", "max")
                if bound[k]
            ]
            option = (
                " ".join(flags)
                if symbol == batch
                else f"--dynamic ...={symbol} with {' and '.join(flags)}"
            )
            return ExportError(
                f"the model takes another path for some sizes of {symbol}; its traced path "
                f"holds for {option}"
            )
        return ExportError(
            f"the model ties the size of {symbol} to another: {symbol} = {fix}; use --static, "
            "or give --dynamic dimensions that agree with it"
        )
    return None


def trace_failed(error: Exception, batch: str | None) -> ExportError:
    """torch.export refused."""
    text = str(error)
    match = _SPECIALISED.search(text)
    if match:
        return _fixed(text, match["symbol"], match["value"], batch)
    bounded = _bounds(text, batch)
    if bounded:
        return bounded
    where = _in_user_code(error)
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return ExportError(
            f"the model's path depends on the values of its input{where} "
            f"({first_line(error, 120)}); "
            "an exported graph has one path: rewrite it with torch.where or torch.cond"
        )
    if "fake" in text.lower() and "mix" in text.lower():
        return ExportError(
            f"the model makes a tensor that export cannot follow{where}: {first_line(error)}"
        )
    return ExportError(f"torch.export refuses the model{where}: {first_line(error)}")


def run_failed(error: Exception, sizes: str) -> ExportError:
    """The exported graph does not run where eager does."""
    if "Guard failed" in str(error):
        advice = "--min-batch 2 or --static" if sizes.endswith(" 1") else "--static"
        return ExportError(
            f"the exported graph refuses the inputs{sizes} ({first_line(error, 120)}); use {advice}"
        )
    return ExportError(
        f"the exported graph fails{sizes} where the model does not: {first_line(error)}; use "
        "--static"
    )
