"""BLOOM adds slope * key position to its scores, and computes masks and attention by itself."""

from __future__ import annotations

import types

import torch
from transformers.models.bloom.modeling_bloom import (
    BloomAttention,
    build_alibi_tensor,
    dropout_add,
)

from ..operators import attention_op


def _slopes(heads: int) -> torch.Tensor:
    """ALiBi at key position 1 is the slope itself. -> f32 [heads]"""
    return build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1].contiguous()


def _forward(self, hidden_states, residual, alibi, attention_mask, **_):
    q, k, v = self._reshape(self.query_key_value(hidden_states))
    scale = self.inv_norm_factor
    out = attention_op(q, k, v, None, self.alibi_slopes, self.layer_idx, scale, 0, 0.0)
    out = self.dense(out.flatten(2))
    return dropout_add(out, residual, self.hidden_dropout, self.training), None


def adapt(model):
    model.transformer.build_alibi_tensor = lambda *_, **__: None
    for module in model.modules():
        if isinstance(module, BloomAttention):
            module.register_buffer("alibi_slopes", _slopes(module.num_heads), persistent=False)
            module.forward = types.MethodType(_forward, module)
