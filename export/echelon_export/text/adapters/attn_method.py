"""GPT-J, CodeGen and GPT-Neo: attention, after projections and rotation, is a method `_attn`."""

from __future__ import annotations

import types

from ..operators import attention_op


def _attn(self, q, k, v, *_, **__):
    """q, k, v [B, heads, T, D] -> [B, heads, T, D], and no weights"""
    layer = self.layer_idx if hasattr(self, "layer_idx") else self.layer_id
    scale = 1 / getattr(self, "scale_attn", 1)  # GPT-Neo does not scale
    local = getattr(self, "attention_type", None) == "local"
    window = self.config.window_size if local else 0
    q, k = q.to(v.dtype), k.to(v.dtype)  # CodeGen leaves them in f32; the operator sums in f32
    out = attention_op(q, k, v, None, None, layer, scale, window, 0.0)
    return out.transpose(1, 2), None


def adapt(model):
    for module in model.modules():
        if hasattr(module, "_attn"):
            module._attn = types.MethodType(_attn, module)
