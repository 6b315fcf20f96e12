"""Families whose code bypasses transformers' attention interface: the one place keyed to a model.

An adapter changes a built model in place, so that its attention is echelon::attention. The gate
judges what it did, as it judges every family.
"""

from __future__ import annotations

from . import bloom

BY_MODEL_TYPE = {"bloom": bloom.adapt}


def adapt(model):
    change = BY_MODEL_TYPE.get(model.config.model_type)
    if change:
        change(model)
