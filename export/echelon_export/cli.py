"""The command line."""

from __future__ import annotations

import argparse
import ast
import logging
import os
import sys

from .errors import ExportError, first_line

EXAMPLES = """\
examples:
  echelon-export net.py:net --input x=4x128:f32 -o net.pt2
  echelon-export bert.py:load --input ids=4x16:i64<30522 --input mask=4x16:i64 \\
      --dynamic ids:1=length:2..512 --dynamic mask:1=length -o bert.pt2
  echelon-export app.models:Ranker --input batch.ids=4x16:i64<1000 \\
      --input batch.dense=4x8:f32 -o ranker.pt2

Dimension 0 of every input is the batch, and free, unless --static or --fixed say otherwise. The
result is compared with eager PyTorch at several sizes before it is written. Then:
echelon run net.pt2 --stages 2
"""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ExportError(f"{message}; see echelon-export --help")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def parser() -> argparse.ArgumentParser:
    p = Parser(
        prog="echelon-export",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
        description="Writes a PyTorch model as a .pt2 file, which echelon serves in stages.",
    )
    p.add_argument(
        "target",
        help="FILE.py:NAME or package.module:NAME: an nn.Module, its class, or a function that "
        "returns one",
    )
    p.add_argument("-o", "--output", required=True, metavar="FILE.pt2")
    p.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=SHAPE:DTYPE[<N]",
        dest="inputs",
        help="a tensor that forward takes, like x=4x128:f32; NAME is its parameter, with dots for "
        "dictionary keys; integers are drawn below N (default 2); dtypes: f32 f64 f16 bf16 "
        "i64 i32 i16 "
        "i8 u8 bool",
    )
    p.add_argument(
        "--constant",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="constants",
        help="an argument that is not a tensor and stays as it is, like causal=True",
    )
    p.add_argument(
        "--dynamic",
        action="append",
        default=[],
        metavar="NAME:DIM=SYMBOL:MIN..MAX",
        help="a further free dimension; the same SYMBOL means the same size",
    )
    p.add_argument("--static", action="store_true", help="no free batch dimension")
    p.add_argument(
        "--fixed",
        action="append",
        default=[],
        metavar="NAME",
        help="an input without a batch dimension",
    )
    p.add_argument(
        "--min-batch", type=positive, default=1, metavar="N", help="smallest batch (default 1)"
    )
    p.add_argument("--max-batch", type=positive, metavar="N", help="largest batch (default 64)")
    return p


def constant(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ExportError(f"--constant {text!r} is not NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def export(args: argparse.Namespace) -> list[str]:
    import pathlib

    import torch

    from . import targets
    from .archive import check_path
    from .inputs import DynamicDim, InputSpec
    from .program import Options, export_module

    torch._logging.set_logs(
        all=logging.CRITICAL
    )  # export logs each failure at length before it raises
    options = Options(
        inputs=[InputSpec.parse(text) for text in args.inputs],
        dynamic=[DynamicDim.parse(text) for text in args.dynamic],
        constants=dict(constant(text) for text in args.constants),
        fixed=set(args.fixed),
        static=args.static,
        min_batch=args.min_batch,
        max_batch=args.max_batch,
    )
    options.layout()  # what can be refused at once is, before the model loads
    check_path(pathlib.Path(args.output))
    return export_module(targets.load(args.target), options, args.output).lines()


def main(argv: list[str] | None = None) -> int:
    try:
        lines = export(parser().parse_args(argv))
    except ExportError as error:
        print(f"echelon-export: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("ECHELON_EXPORT_DEBUG"):
            raise
        print(
            f"echelon-export: {first_line(error)} (not expected here; ECHELON_EXPORT_DEBUG=1 "
            "shows where)",
            file=sys.stderr,
        )
        return 1
    print("\n".join(lines))
    return 0
