"""From a model directory to its .pt2: config, gate, graph, recipes, archive."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import torch
import transformers
from transformers.utils import logging

from .. import archive
from ..errors import ExportError
from . import build, gate, recipes
from .checkpoint import Checkpoint
from .config import NAMES, Decoder, load
from .step import WRAPPER, export_model, quick_tracing

FORMAT = 1
EXTRA = "echelon.json"
TRANSFORMERS = "5.17.0"  # recipes use its loader's private hooks


def _build(decoder: Decoder, checkpoint: Checkpoint | None, builder):
    """(model, mode, recipes)"""
    model, mode = build.build_fake(decoder.config, decoder.dtype, decoder.max_model_len, builder)
    if checkpoint is None:
        return model, mode, recipes.of_names(model)
    made = recipes.of_checkpoint(model, checkpoint, decoder.dtype, decoder.is_part)
    return model, mode, made


def _pass_gate(decoder: Decoder, say, builder) -> gate.Verdict:
    say(f"gate: a clone of {decoder.architecture} runs against eager transformers")
    verdict = gate.judge(decoder.config, decoder.dtype, builder)
    if verdict.reasons:
        kind = f"{decoder.architecture} ({decoder.config.model_type})"
        raise ExportError(f"{kind} is refused: {'; '.join(verdict.reasons)}")
    say(f"gate: {verdict.line()}")
    return verdict


def _refuse_other_operators(program, verdict: gate.Verdict):
    """The clone speaks for the model only where both run the same operators."""
    others = gate.operators_of(program) - verdict.operators
    if others:
        raise ExportError(
            f"the model runs {', '.join(sorted(others)[:3])}, which its clone in the gate does not"
        )


def manifest(decoder: Decoder, made: dict[str, dict], has_weights: bool) -> dict:
    """echelon.json: what the runtime is told beside the graph."""
    return {
        "format": FORMAT,
        "kind": "text",
        "architecture": decoder.architecture,
        "model_type": decoder.config.model_type,
        "dtype": NAMES[decoder.dtype],
        "max_model_len": decoder.max_model_len,
        "vocab_size": decoder.config.vocab_size,
        "transformers": transformers.__version__,
        "torch": torch.__version__.partition("+")[0],
        "config_sha256": decoder.config_sha256,
        "eos_token_ids": decoder.eos_token_ids,
        "bos_token_id": decoder.bos_token_id,
        "pad_token_id": decoder.pad_token_id,
        "weights": has_weights,
        "parameters": {WRAPPER + name: recipe for name, recipe in made.items()},
    }


@quick_tracing()
def export(
    folder: pathlib.Path,
    output: pathlib.Path,
    dtype: str | None,
    max_model_len: int | None,
    say: Callable[[str], None],
    builder=build.build,
) -> list[str]:
    if transformers.__version__ != TRANSFORMERS:
        raise ExportError(
            f"transformers {transformers.__version__} is installed; echelon-export needs "
            f"{TRANSFORMERS}"
        )
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if not (folder / "config.json").is_file():
        raise ExportError(
            f"there is no {folder / 'config.json'}; give a Hugging Face model directory"
        )
    checkpoint = Checkpoint.open(folder)
    decoder = load(folder, checkpoint, dtype, max_model_len)
    for note in decoder.notes:
        say(note)
    try:
        model, mode, made = _build(decoder, checkpoint, builder)
    except recipes.NotTiedError as names:
        say(f"{names} have different values: they are not tied, though the config says so")
        decoder.config.tie_word_embeddings = False
        model, mode, made = _build(decoder, checkpoint, builder)
    verdict = _pass_gate(decoder, say, builder)
    program = export_model(model, mode)
    _refuse_other_operators(program, verdict)
    text = json.dumps(manifest(decoder, made, checkpoint is not None), separators=(",", ":"))
    archive.write(program, output, {EXTRA: text})
    parameters = sum(p.numel() for p in model.parameters())
    return _lines(output, program, decoder, checkpoint, parameters)


def _lines(output, program, decoder: Decoder, checkpoint, parameters: int) -> list[str]:
    weights = "read from its safetensors" if checkpoint else "no weights there"
    operators = sum(node.op == "call_function" for node in program.graph.nodes)
    return [
        f"{output}: {decoder.architecture}, {parameters:,} parameters in "
        f"{NAMES[decoder.dtype]} ({weights}), {operators:,} operators, "
        f"{archive.size_text(output.stat().st_size)} on disk",
        f"  length   at most {decoder.max_model_len} tokens",
    ]
