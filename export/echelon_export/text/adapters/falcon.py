"""Falcon computes attention itself, and repeats grouped keys and values for every query head."""

from __future__ import annotations

import types

from torch import nn
from transformers.models.falcon.modeling_falcon import (
    FalconAttention,
    FalconLinear,
    apply_rotary_pos_emb,
)

from ...errors import ExportError
from ..operators import attention_op


def _heads(self, fused):
    """The projection [B, T, ...] -> q [B, T, heads, D]; k, v [B, T, kv heads, D]"""
    if not self.new_decoder_architecture:
        return self._split_heads(fused)
    groups = self.num_heads // self.num_kv_heads
    fused = fused.unflatten(-1, (self.num_kv_heads, groups + 2, self.head_dim))
    return fused[..., :-2, :].flatten(2, 3), fused[..., -2, :], fused[..., -1, :]


def _forward(self, hidden_states, position_embeddings=None, **_):
    q, k, v = (t.transpose(1, 2) for t in _heads(self, self.query_key_value(hidden_states)))
    q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
    out = attention_op(q, k, v, None, None, self.layer_idx, self.inv_norm_factor, 0, 0.0)
    return self.dense(out.flatten(2)), None


def adapt(model):
    if model.config.alibi:
        raise ExportError("falcon with alibi is refused: its code rounds the bias to bf16")
    for module in model.modules():
        if isinstance(module, FalconAttention):
            module.forward = types.MethodType(_forward, module)
        elif isinstance(module, FalconLinear):  # x @ W.T, which no stage takes for a linear layer
            module.forward = types.MethodType(nn.Linear.forward, module)
