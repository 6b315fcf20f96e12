#!/usr/bin/env python3
"""Writes tiny random decoders as Hugging Face directories, and what transformers says of them.

    make_families.py OUT [--export] [family ...]

OUT/<family>/ holds config.json, generation_config.json, model.safetensors (sharded for two), and
  oracle.json  {"family", "prompts": [[id...] x 4], "tokens": [[id x 32] x 4]}: greedy, f32, no
               cache, whatever the end-of-text id says;
  logits.npy   f32 [prompts, 32, vocabulary]: the logits that each token was chosen from;
  model.pt2    with --export: what echelon-export makes of the directory, in f32.
A family's weights are drawn until its texts vary and no choice was close.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import sys

import numpy as np
import torch
from transformers.utils import logging

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "export"), str(ROOT / "export" / "tests")]

from echelon_export.text.build import build  # noqa: E402
from echelon_export.text.clone import randomise  # noqa: E402
from echelon_export.text.command import export_directory  # noqa: E402
from families import FAMILIES, VOCAB, config_of, save  # noqa: E402

LENGTHS, STEPS, SEEDS = (3, 11, 24, 40), 32, range(7, 40)
FIRST_WORD = 3
DISTINCT = 20  # tokens of the four texts together
CLOSE = 1e-4  # of the largest logit, between the first and the second choice


@torch.no_grad()
def continue_greedily(model, prompt: list[int]) -> tuple[list[int], torch.Tensor]:
    """(32 tokens, the logits each came from): every step reads the whole text anew."""
    ids, rows = list(prompt), []
    for _ in range(STEPS):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        rows.append(logits.float())
        ids.append(int(logits.argmax()))
    return ids[len(prompt) :], torch.stack(rows)


def is_close(logits: torch.Tensor) -> bool:
    first, second = logits.flatten(0, 1).topk(2).values.unbind(1)
    return bool(((first - second) / logits.abs().amax() < CLOSE).any())


def draw(family: str, seed: int):
    model = randomise(build(config_of(family), torch.float32, "eager", "eager"), seed)
    if model.config.tie_word_embeddings:  # or each token is followed by itself
        model.get_input_embeddings().weight.mul_(0.2)
    return model


@torch.no_grad()
def make(family: str, out: pathlib.Path, with_export: bool) -> str:
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        prompts = [
            torch.randint(FIRST_WORD, VOCAB, (n,), generator=generator).tolist() for n in LENGTHS
        ]
        model = draw(family, seed)
        tokens, logits = zip(*(continue_greedily(model, p) for p in prompts), strict=True)
        logits = torch.stack(logits)
        distinct = len({t for text in tokens for t in text})
        if distinct >= DISTINCT and not is_close(logits):
            break
    else:
        raise SystemExit(f"make_families: no seed gives {family} varied texts without close choices")
    folder = out / family
    folder.mkdir(parents=True, exist_ok=True)
    save(model, folder, family)
    oracle = {"family": family, "prompts": prompts, "tokens": tokens}
    (folder / "oracle.json").write_text(json.dumps(oracle) + "\n")
    np.save(folder / "logits.npy", logits.numpy())
    if with_export:
        export_directory(folder, folder / "model.pt2", "f32", say=lambda _: None)
    return f"{family}: seed {seed}, {distinct} distinct tokens"


def main():
    words = [word for word in sys.argv[1:] if word != "--export"]
    if not words:
        raise SystemExit(__doc__)
    out, families, with_export = pathlib.Path(words[0]), words[1:] or FAMILIES, "--export" in sys.argv
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), context, initializer=quiet) as pool:
        for line in pool.map(make, families, [out] * len(families), [with_export] * len(families)):
            print(line, flush=True)


def quiet():
    torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other
    logging.disable_progress_bar()
    logging.set_verbosity_error()


if __name__ == "__main__":
    main()
