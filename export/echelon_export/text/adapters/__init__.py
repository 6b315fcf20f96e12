"""Families whose code bypasses transformers' attention interface: the one place keyed to a model.

An adapter changes a built model in place, so that its attention is echelon::attention. The gate
judges what it did, as it judges every family.
"""

from __future__ import annotations

import importlib

MODULES = {
    "bloom": "bloom",
    "codegen": "attn_method",
    "falcon": "falcon",
    "gpt_neo": "attn_method",
    "gptj": "attn_method",
}


def has_adapter(config) -> bool:
    return config.model_type in MODULES


def adapt(model):
    if has_adapter(model.config):
        name = f"{__name__}.{MODULES[model.config.model_type]}"
        importlib.import_module(name).adapt(model)
