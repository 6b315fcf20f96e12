"""Tiny configs of many decoders: kinds of layers, windows of 8, experts, tied and untied heads."""

from __future__ import annotations

from transformers import AutoConfig

VOCAB = 160
WINDOW = 8
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GATED = {"num_key_value_heads": 2, "intermediate_size": 96}
GPT = {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 256}
MOE = {"num_experts_per_tok": 3, "moe_intermediate_size": 48}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "llama": GATED,
    "mistral": GATED | {"sliding_window": WINDOW, "head_dim": 16},
    "qwen2": GATED | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    "qwen3": GATED | {"head_dim": 32, "tie_word_embeddings": True},
    "gpt2": GPT,
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "bloom": {"hidden_size": 96, "n_layer": 4, "n_head": 6},
    "gpt_neox": {"intermediate_size": 96},
    "gemma2": GATED | {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW},
    "gemma3_text": GATED
    | {
        "num_hidden_layers": 6,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
    },
    "phi3": GATED | {"sliding_window": WINDOW, "original_max_position_embeddings": 256},
    "mixtral": GATED | {"num_local_experts": 8, "num_experts_per_tok": 3, "sliding_window": WINDOW},
    "qwen3_moe": GATED | MOE | {"num_experts": 8, "head_dim": 16, "norm_topk_prob": True},
    "gpt_oss": GATED
    | {
        "num_local_experts": 8,
        "num_experts_per_tok": 3,
        "head_dim": 16,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": YARN,
    },
    "stablelm": GATED | {"use_qkv_bias": True},
    "olmo2": GATED,
    "granite": GATED
    | {
        "embedding_multiplier": 6.0,
        "attention_multiplier": 0.3,
        "residual_multiplier": 0.6,
        "logits_scaling": 2.0,
    },
    "deepseek_v3": MOE
    | {
        "intermediate_size": 96,
        "num_key_value_heads": 4,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "n_group": 4,
        "topk_group": 2,
        "first_k_dense_replace": 1,
        "q_lora_rank": 32,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 8,
        "num_nextn_predict_layers": 0,
    },
    # Whose code is written in yet other ways: calls by keyword, attention of its own, keys and
    # values of an earlier layer, heads of several widths, experts that are chosen otherwise.
    "afmoe": GATED | MOE | {"num_experts": 8, "head_dim": 16, "sliding_window": WINDOW},
    "codegen": GPT | {"rotary_dim": 8},
    "cohere2": GATED | {"sliding_window": WINDOW},
    "deepseek_v2": MOE
    | {
        "intermediate_size": 96,
        "num_key_value_heads": 4,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "first_k_dense_replace": 1,
        "q_lora_rank": None,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 8,
    },
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "gemma3n_text": GATED
    | {
        "intermediate_size": [96] * 4,
        "head_dim": 16,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0],
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": VOCAB,
        "hidden_size_per_layer_input": 16,
        "laurel_rank": 8,
    },
    "gemma4_text": GATED
    | {
        "head_dim": 16,
        "global_head_dim": 32,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": VOCAB,
        "hidden_size_per_layer_input": 16,
    },
    "glm4": GATED | {"head_dim": 16},
    "gpt_bigcode": GPT,
    "gpt_neo": {
        "num_layers": 4,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
        "window_size": WINDOW,
    },
    "gptj": GPT | {"rotary_dim": 8},
    "minimax_m2": GATED | {"num_local_experts": 8, "num_experts_per_tok": 3, "head_dim": 16},
    "olmoe": GATED | {"num_experts": 8, "num_experts_per_tok": 3},
    "phi": {"intermediate_size": 96},
    "smollm3": GATED | {"no_rope_layers": [1, 1, 1, 0]},
    "starcoder2": GATED | {"sliding_window": WINDOW},
}
SHARDED = ("llama", "mixtral")  # their checkpoints are in several files


def config_of(family: str, **changes):
    """The family's tiny config, as a checkpoint's config.json would give it."""
    return AutoConfig.for_model(family, **(COMMON | FAMILIES[family] | changes))


def save(model, folder, family: str):
    """The model as an ordinary directory: config.json and original-format safetensors."""
    size = "100KB" if family in SHARDED else "50GB"
    model.save_pretrained(folder, max_shard_size=size)
