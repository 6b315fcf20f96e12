"""The command line."""

from __future__ import annotations

import argparse
import ast
import logging
import os
import pathlib
import sys

from .errors import ExportError, first_line
from .present import is_whole, make_folder
from .text.command import DTYPES, export_cached, export_directory, is_model_directory

EXAMPLES = """\
examples:
  echelon-export net.py:net --input x=4x128:f32 -o net.pt2
  echelon-export bert.py:load --input ids=4x16:i64<30522 --input mask=4x16:i64 \\
      --dynamic ids:1=length:2..512 --dynamic mask:1=length -o bert.pt2
  echelon-export app.models:Ranker --input batch.ids=4x16:i64<1000 \\
      --input batch.dense=4x8:f32 -o ranker.pt2
  echelon-export SmolLM2-135M-Instruct -o smollm2.pt2 --max-model-len 4096

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


def add_decoder_options(p):
    p.add_argument(
        "--dtype", choices=DTYPES, help="what it computes in (default: the checkpoint's dtype)"
    )
    p.add_argument(
        "--max-model-len",
        type=positive,
        metavar="N",
        help="longest text in tokens, prompt and answer (default: the config's)",
    )
    p.add_argument(
        "--cache",
        metavar="FOLDER",
        help="instead of -o: prints the path of the export in FOLDER, making it when it is absent",
    )


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
        "returns one; or the directory of a Hugging Face decoder (config.json, safetensors)",
    )
    p.add_argument("-o", "--output", metavar="FILE.pt2")
    p.add_argument(
        "--if-missing",
        action="store_true",
        help="does nothing where FILE.pt2 is there and whole; makes its folder",
    )
    add_decoder_options(p.add_argument_group("for a Hugging Face decoder"))
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


def export_decoder(args: argparse.Namespace) -> list[str]:
    for option in ("inputs", "constants", "dynamic", "fixed", "static", "max_batch"):
        if getattr(args, option):
            name = option.removesuffix("s").replace("_", "-")
            raise ExportError(f"--{name} is for modules, and {args.target} is a directory")
    if bool(args.output) == bool(args.cache):
        raise ExportError("give -o FILE.pt2 or --cache FOLDER, one of the two")
    options = args.dtype, args.max_model_len
    if args.cache:
        return [str(export_cached(args.target, args.cache, *options))]
    return export_directory(args.target, args.output, *options)


def export(args: argparse.Namespace) -> list[str]:
    if args.if_missing:
        if not args.output:
            raise ExportError("--if-missing goes with -o FILE.pt2, and there is none")
        output = pathlib.Path(args.output)
        if is_whole(output):
            return [f"{output} is there already"]
        make_folder(output)
    if is_model_directory(args.target):
        return export_decoder(args)
    for option in ("dtype", "max_model_len", "cache"):
        if getattr(args, option):
            name = option.replace("_", "-")
            raise ExportError(f"--{name} is for the directory of a Hugging Face decoder")
    if not args.output:
        raise ExportError("give -o FILE.pt2; see echelon-export --help")
    return export_module_target(args)


def export_module_target(args: argparse.Namespace) -> list[str]:
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
