"""The opaque operators, and how transformers' models come to call them.

The runtime has its own implementations; here they have shapes, and `reference` computes them.
"""

from __future__ import annotations

import torch
from transformers import AttentionInterface
from transformers.activations import ACT2FN
from transformers.integrations.moe import ExpertsInterface
from transformers.masking_utils import AttentionMaskInterface

from ..errors import ExportError

NAME = "echelon"  # what the interfaces call us

torch.library.define(
    "echelon::attention",
    "(Tensor q, Tensor k, Tensor v, Tensor? sinks, Tensor? alibi_slopes, int layer, float scale, "
    "int window, float softcap) -> Tensor",
)
torch.library.define(
    "echelon::experts",
    "(Tensor x, Tensor index, Tensor weight, Tensor gate_up, Tensor? gate_up_bias, Tensor down, "
    "Tensor? down_bias, bool transposed, str activation, bool interleaved, float alpha, "
    "float limit) -> Tensor",
)
attention_op = torch.ops.echelon.attention
experts_op = torch.ops.echelon.experts
# Where the arguments stand that the gate takes away to see whether it would notice.
ATTENTION_OPTIONS = {"sinks": (3, None), "ALiBi": (4, None), "window": (7, 0), "softcap": (8, 0.0)}


@torch.library.register_fake("echelon::attention")
def _attention_shape(q, k, v, *_):
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3])


@torch.library.register_fake("echelon::experts")
def _experts_shape(x, *_):
    return torch.empty_like(x)


# Options of an attention call that change nothing in inference: causality is the operator's own,
# and the gate compares with eager, so a model that is not causal is found.
HARMLESS = {
    "dropout",
    "position_ids",
    "use_cache",
    "cache_position",
    "is_causal",
    "output_attentions",
    "output_router_logits",
}


def attention(
    module,
    q,
    k,
    v,
    attention_mask,  # some give it by this name
    scaling=None,
    sliding_window=None,
    softcap=None,
    s_aux=None,
    **others,
):
    unknown = {name for name, value in others.items() if value is not None} - HARMLESS
    if attention_mask is not None:
        unknown.add("attention_mask")
    if unknown:
        raise ExportError(
            f"{type(module).__name__} calls attention with {', '.join(sorted(unknown))}, which "
            "echelon::attention does not have"
        )
    if getattr(module, "layer_idx", None) is None:
        raise ExportError(f"{type(module).__name__} has no layer_idx to keep its keys under")
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    out = attention_op(
        q,
        k,
        v,
        s_aux,
        None,
        module.layer_idx,
        float(scale),
        int(sliding_window or 0),
        float(softcap or 0),
    )
    return out, None


def experts(module, x, index, weight):
    return experts_op(
        x,
        index,
        weight,
        module.gate_up_proj,
        getattr(module, "gate_up_proj_bias", None),
        module.down_proj,
        getattr(module, "down_proj_bias", None),
        module.is_transposed,
        *module.echelon_gate,
    )


CLAMPED = "clamped_swiglu"
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu", CLAMPED)


def apply_gate(h, activation, interleaved, alpha, limit):
    """What echelon::experts does between its two linears; h [..., 2 * inner] -> [..., inner]."""
    gate, up = (h[..., ::2], h[..., 1::2]) if interleaved else h.chunk(2, -1)
    if activation == CLAMPED:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return (up + 1) * (gate * torch.sigmoid(gate * alpha))
    return ACT2FN[activation](gate) * up


def name_gates(model):
    """Says which known gate each experts module computes, by computing it: families override it."""
    h = torch.randn(64, 64, generator=torch.Generator().manual_seed(7)) * 8
    for path, module in model.named_modules():
        if not hasattr(module, "is_transposed") or not hasattr(module, "has_gate"):
            continue
        clamp = tuple(
            float(getattr(module, name, 0) or getattr(module, f"swiglu_{name}", 0) or 0)
            for name in ("alpha", "limit")
        )
        known = [
            (activation, interleaved, *(clamp if activation == CLAMPED else (0.0, 0.0)))
            for activation in ACTIVATIONS
            for interleaved in (False, True)
        ]
        module.echelon_gate = next(
            (
                gate
                for gate in known
                if module.has_gate and torch.equal(module._apply_gate(h), apply_gate(h, *gate))
            ),
            None,
        )
        if module.echelon_gate is None:
            raise ExportError(
                f"{path} ({type(module).__name__}) has a gate that echelon::experts does not have; "
                f"it has {', '.join(ACTIVATIONS)}"
            )


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)
ExpertsInterface.register(NAME, experts)
