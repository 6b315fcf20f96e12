"""A config's clone at toy size: the same code paths, every kind of layer, windows of a few tokens;
and weights that make every tensor matter.
"""

from __future__ import annotations

import torch

VOCAB, LENGTH, WINDOW = 128, 64, 4
_HEADS = ("num_attention_heads", "n_head", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_SIZES = {
    "hidden_size": 64,
    "n_embd": 64,
    "n_inner": 96,
    "intermediate_size": 96,
    "ffn_dim": 96,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "shared_intermediate_size": 32,
    "num_attention_heads": 4,
    "n_head": 4,
    "num_heads": 4,
    "vocab_size": VOCAB,
    "vocab_size_per_layer_input": VOCAB,
    "hidden_size_per_layer_input": 16,
    "laurel_rank": 16,
    "max_position_embeddings": LENGTH,
    "n_positions": LENGTH,
    "num_local_experts": 8,
    "num_experts": 8,
    "n_routed_experts": 8,
    "moe_num_experts": 8,
    "num_experts_per_tok": 3,
    "top_k_experts": 3,
    "moe_topk": 3,
    "moe_k": 3,
    "n_group": 4,
    "topk_group": 2,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "qk_head_dim": 32,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "query_pre_attn_scalar": 16,
    "rotary_dim": 8,
    "sliding_window": WINDOW,
    "window_size": WINDOW,
    "max_window_layers": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "original_max_position_embeddings": LENGTH // 2,
}


def _first(config: dict, names, default=None):
    return next((config[n] for n in names if config.get(n) is not None), default)


def _scaled(value, whole, small):
    """A size, as much of the clone's as it was of the original's; what is no size, as it is."""
    return max(1, value * small // whole) if isinstance(value, int) and value and whole else value


def _layers(full: dict, small: dict) -> dict:
    """What says how many layers there are and how they differ: two of each kind stay, at least 4.

    Layers differ by lists with an entry a layer, by what per_layer_config has of them, and in
    whether they share the keys and values of a layer before them, as the last ones may.
    """
    count = _first(full, _LAYERS, 0)
    lists = {n: v for n, v in full.items() if isinstance(v, list) and len(v) == count > 0}
    own = {int(layer): sizes for layer, sizes in (full.get("per_layer_config") or {}).items()}
    first_shared = count - (full.get("num_kv_shared_layers") or 0)
    seen, chosen = {}, []
    for layer in range(count):
        kind = str([[v[layer] for v in lists.values()], own.get(layer), layer >= first_shared])
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= 2:
            chosen.append(layer)
    rest = (layer for layer in range(count) if layer not in set(chosen))
    chosen = sorted([*chosen, *(layer for layer, _ in zip(rest, range(4 - len(chosen))))])
    changed = {n: len(chosen) for n in _LAYERS if full.get(n) is not None}
    for name, values in lists.items():
        sizes = [v for v in values if isinstance(v, int)] if name in small else []
        whole = max(sizes, default=0)
        changed[name] = [_scaled(values[layer], whole, small.get(name)) for layer in chosen]
    if full.get("attention_types") is not None:  # the same again, with counts
        changed["attention_types"] = [[changed["attention_layers"], 1]]
    if first_shared < count:
        changed["num_kv_shared_layers"] = sum(layer >= first_shared for layer in chosen)
    if own:
        changed["per_layer_config"] = {
            i: {n: _scaled(v, full.get(n), small.get(n, full.get(n))) for n, v in own[layer].items()}
            for i, layer in enumerate(chosen)
            if layer in own
        }
    return changed


def _rope(full: dict, head_dim: int, full_head_dim: int):
    """Factors a frequency are as many as the clone has frequencies; lengths are the clone's."""

    def small(value, name=None):
        if isinstance(value, dict):
            return {n: small(v, n) for n, v in value.items()}
        if name == "original_max_position_embeddings" and value is not None:
            return LENGTH // 2
        if isinstance(value, list) and name in ("short_factor", "long_factor"):
            count = max(1, len(value) * head_dim // full_head_dim)
            return [value[i * len(value) // count] for i in range(count)]
        return value

    return small(full["rope_parameters"])


def shrink(config, geometry: bool = True):
    """The clone's config. Without geometry, heads and widths stay as they are."""
    full = config.to_dict()
    small = {n: v for n, v in _SIZES.items() if full.get(n)}  # 0 says that there is none
    heads, kv_heads = _first(full, _HEADS, 1), _first(full, _KV_HEADS)
    width = _first(full, ("hidden_size", "n_embd"), heads)
    head_dim = full.get("head_dim") or width // heads
    small_head_dim = 16 if head_dim * heads == width or full.get("qk_rope_head_dim") else 32
    if full.get("head_dim") is not None:
        small["head_dim"] = small_head_dim
    if kv_heads is not None:
        few = 4 if kv_heads == heads else min(kv_heads, 2)
        small |= {n: few for n in _KV_HEADS if full.get(n) is not None}
    if full.get("word_embed_proj_dim") is not None:
        small["word_embed_proj_dim"] = 64 if full["word_embed_proj_dim"] == width else 32
    if not geometry:
        kept = ("vocab_size", "vocab_size_per_layer_input", "max_position_embeddings")
        kept += ("n_positions", "sliding_window", "window_size")
        ends = ("_token_id", "original_max_position_embeddings")
        small = {n: v for n, v in small.items() if n in kept or n.endswith(ends)}
        small_head_dim = head_dim
    small |= _layers(full, small)
    if full.get("rope_parameters"):
        small["rope_parameters"] = _rope(full, small_head_dim, head_dim)
    return type(config).from_dict({**full, **small, "quantization_config": None})


@torch.no_grad()
def randomise(model, seed: int = 7):
    """The usual weights (zero biases, unit norms, 0.02) hide errors; these do not."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.state_dict(keep_vars=True).values():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator)
        scaled = noise * 2 * value.shape[-1] ** -0.5 if value.ndim > 1 else value + 0.1 * noise
        value.data = scaled.to(value.dtype)
    model.tie_weights()
    return model
