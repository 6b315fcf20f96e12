#!/usr/bin/env python3
"""Asks the exporter's gate about every decoder that transformers knows: survey_families.py > docs/families.md

Each family's own default config, shrunken, with random weights, against eager transformers. Some minutes.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pathlib
import re
import sys
import tempfile

import torch
import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "export"), str(ROOT / "export" / "tests")]

from echelon_export.errors import ExportError, first_line  # noqa: E402
from echelon_export.text import gate  # noqa: E402
from echelon_export.text.config import load  # noqa: E402
from families import FAMILIES  # noqa: E402

HEAD = f"""\
# Families of decoders

What `echelon-export` says of every model type that transformers {transformers.__version__} has a causal language model for.
Made by `tests/text/survey_families.py`: a shrunken clone of each type's default config (where that is incomplete, with sizes
of ours), with random weights, is packed, chunked and compared with eager transformers, in f32 and in bf16: the gate that
every export goes through. What the gate takes is served; a model's own config goes through it again, and may have an option
that is refused. Those in **bold** are compared over stages, token by token and bit by bit, in every run of the tests.
"""
# Of configs whose defaults leave sizes open.
SIZES = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "hidden_size": 256,
    "intermediate_size": 512,
    "moe_intermediate_size": 128,
    "n_routed_experts": 64,
    "n_shared_experts": 1,
    "num_experts": 16,
    "num_experts_per_tok": 6,
    "moe_topk": 2,
    "n_group": 1,
    "topk_group": 1,
    "num_hidden_layers": 8,
}
# Of configs whose defaults are no checkpoint's.
CONV = {"num_hidden_layers": 8, "layer_types": ["conv", "full_attention"] * 4}
CHOICE = {"topk_method": "greedy", "n_group": 1, "topk_group": 1, "num_experts_per_tok": 6}
REAL = {"deepseek_v2": CHOICE, "lfm2": CONV, "lfm2_moe": CONV}


def configs(family: str):
    plain = CONFIG_MAPPING[family](**REAL.get(family, {}))
    yield plain
    known = {n: v for n, v in SIZES.items() if n in plain.to_dict()}
    yield CONFIG_MAPPING[family](**known)


def verdict(config, family: str) -> str:
    """Why the gate refuses it; "" when it does not."""
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]
    config.architectures = [architecture if isinstance(architecture, str) else architecture[0]]
    try:
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            decoder = load(pathlib.Path(folder), None, "f32", None)
        return "; ".join(gate.judge(decoder.config, torch.bfloat16).reasons)
    except ExportError as refusal:
        return str(refusal)


def survey(family: str) -> tuple[str, str]:
    reason = None
    try:
        for config in configs(family):
            later = verdict(config, family)
            is_better = reason is None or "cannot be built" in reason or not later
            reason = later if is_better else reason
            if "cannot be built" not in later and "does not export" not in later:
                break
    except Exception as unexpected:
        if reason is None:
            reason = f"its default config is incomplete: {first_line(unexpected)}"
    print(f"{family}: {reason or 'agrees'}", file=sys.stderr, flush=True)
    return family, reason


def kind_of(reason: str, family: str) -> str:
    """A reason without what is the family's own, so that those of one kind come together."""
    rules = [
        (r"layer \d+ is of the kind '(\w+)'", r"layers of the kind `\1`"),
        (r"holds more than a decoder of text", "more than a decoder of text"),
        (r"is not a decoder of text", "not a decoder of text alone"),
        (r"packed steps differ from eager|tokens of different users would mix", "tokens see others outside attention, or later ones"),
        (r"does not export: (\w+)", r"does not export (\1)"),
        (r"calls attention with (\w+)", r"calls attention with `\1`"),
        (r"incomplete|cannot be built", "no default config that could be tried"),
        (r"too many to run", "no small clone can be made"),
    ]  # fmt: skip
    for pattern, kind in rules:
        if found := re.search(pattern, reason):
            return found.expand(kind)
    return reason.removeprefix(f"{family} ")


def main():
    families = sys.argv[1:] or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), context, initializer=quiet) as pool:
        found = dict(pool.map(survey, families))
    served = [f"**{f}**" if f in FAMILIES else f for f, reason in found.items() if not reason]
    print(f"{HEAD}\n## Served: {len(served)}\n\n{', '.join(served)}\n\n## Refused: {len(found) - len(served)}\n")
    print("| why | families |\n| --- | --- |")
    kinds: dict[str, list[str]] = {}
    for family, reason in found.items():
        if reason:
            kinds.setdefault(kind_of(reason, family), []).append(family)
    for kind, members in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print(f"| {kind.replace('|', '/')} | {', '.join(members)} |")


def quiet():
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()


if __name__ == "__main__":
    main()
