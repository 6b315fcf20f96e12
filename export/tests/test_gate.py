"""What the gate catches: families that export cleanly and would be wrong."""

import pytest
import torch
from families import config_of
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import AutoConfig

from echelon_export.text import build, gate, operators
from echelon_export.text.adapters import MODULES
from echelon_export.text.clone import shrink


def judged(family, builder=build.build, config=None):
    return "; ".join(gate.judge(config or config_of(family), torch.float32, builder).reasons)


def changed(change):
    """A builder whose models are changed when they are built for export."""

    def builder(config, dtype, attention=operators.NAME, experts=operators.NAME, initialise=True):
        model = build.build(config, dtype, attention, experts, initialise)
        if attention == operators.NAME:
            change(model)
        return model

    return builder


def own_attention(causal):
    def change(model):
        for layer in model.model.layers:

            def forward(hidden_states, attn=layer.self_attn, **_):
                q, k, v = (
                    linear(hidden_states).unflatten(2, (-1, 16)).transpose(1, 2)
                    for linear in (attn.q_proj, attn.k_proj, attn.v_proj)
                )
                out = nn.functional.scaled_dot_product_attention(
                    q, k, v, is_causal=causal, enable_gqa=True
                )
                return attn.o_proj(out.transpose(1, 2).flatten(2)), None

            layer.self_attn.forward = forward

    return change


def shuffle_positions(model):
    forward = model.model.rotary_emb.forward
    model.model.rotary_emb.forward = lambda x, position_ids: forward(
        x, torch.arange(x.shape[1])[None]
    )


def reverse_positions(model):
    forward = model.model.rotary_emb.forward
    model.model.rotary_emb.forward = lambda x, position_ids: forward(x, 63 - position_ids)


def lose_windows(model):
    for module in model.modules():
        if getattr(module, "sliding_window", None):
            module.sliding_window = None


def see_a_millionth_of_the_mean(model):
    model.model.norm.register_forward_pre_hook(lambda _, x: (x[0] + 1e-6 * x[0].mean(1, True),))


@pytest.mark.parametrize("causal", [False, True], ids=["no mask", "a mask of its own"])
def test_catches_a_missing_mask(causal):
    reasons = judged("llama", changed(own_attention(causal)))
    assert "its attention does not go through transformers' interface" in reasons
    assert "tokens of different users would mix: aten." in reasons
    assert " at model.layers.0" in reasons


def test_catches_a_missing_window():
    reasons = judged("gemma3_text", changed(lose_windows))
    assert reasons.startswith("packed steps differ from eager by ")


@pytest.mark.parametrize("change", [shuffle_positions, reverse_positions])
def test_catches_wrong_positions(change):
    assert "packed steps differ from eager by " in judged("llama", changed(change))


def test_catches_a_mixture_below_any_tolerance():
    reasons = judged("llama", changed(see_a_millionth_of_the_mean))
    assert "tokens of different users would mix: aten.mean.dim" in reasons
    assert "packed steps differ" not in reasons


@pytest.mark.parametrize("family", sorted(MODULES))
def test_a_family_without_its_adapter_is_refused(family, monkeypatch):
    monkeypatch.setattr(build, "adapt", lambda _: None)
    reasons = judged(family)
    assert "its attention does not go through" in reasons or "does not export" in reasons


@pytest.mark.parametrize("multi_query", [True, False])
def test_falcons_of_the_old_kind_pass(multi_query):
    changes = {"new_decoder_architecture": False, "num_kv_heads": 4}
    config = config_of("falcon", multi_query=multi_query, **changes)
    assert judged("falcon", config=config) == ""


def test_codegen_passes_in_bf16():
    assert gate.judge(config_of("codegen"), torch.bfloat16).reasons == []


def test_a_bias_that_is_rounded_on_its_way_is_refused():
    assert judged("falcon", config=config_of("falcon", alibi=True)) == (
        "falcon with alibi is refused: its code rounds the bias to bf16"
    )


def test_a_buffer_that_nobody_initialises_is_named(monkeypatch):
    monkeypatch.setattr("transformers.LlamaPreTrainedModel._init_weights", lambda *_: None)
    said = "model.rotary_emb.inv_freq: transformers does not initialise this buffer"
    assert judged("llama") == said


def test_a_clone_that_did_not_become_small_is_not_run(monkeypatch):
    monkeypatch.setattr(gate, "MOST_PARAMETERS", 1000)
    monkeypatch.setattr(gate, "_Trial", None)
    assert "parameters: too many to run, by sizes of unknown names" in judged("llama")


def test_catches_a_lost_alibi():
    def change(model):
        with unset_fake_temporarily():
            for block in model.transformer.h:
                block.self_attention.alibi_slopes.zero_()

    assert "packed steps differ from eager" in judged("bloom", changed(change))


def test_catches_a_hybrid_layer():
    config = AutoConfig.for_model(
        "lfm2", num_hidden_layers=4, layer_types=["conv", "full_attention"] * 2
    )
    assert ".conv" in judged("lfm2", config=config)


def test_an_option_of_attention_that_is_not_ours_is_refused_by_name():
    with pytest.raises(Exception, match="calls attention with head_mask, which echelon::attention"):
        operators.attention(nn.Module(), *[torch.ones(1, 1, 1, 1)] * 3, None, head_mask=1)


ROPES = {
    "default": {},
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "longrope": {
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "short_factor": [1 + i / 10 for i in range(8)],
        "long_factor": [2.0 + i for i in range(8)],
    },
}


@pytest.mark.parametrize("kind", ROPES)
def test_every_kind_of_rope_passes(kind):
    rope = {"rope_type": kind, "rope_theta": 10000.0, **ROPES[kind]}
    assert judged("llama", config=config_of("llama", rope_parameters=rope)) == ""


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_rope_that_moves_with_length_is_that_of_the_longest_text(kind):
    rope = {"rope_type": kind, "rope_theta": 10000.0, **ROPES[kind]}
    changes = {"original_max_position_embeddings": 64} if kind == "longrope" else {}
    config = config_of("llama", rope_parameters=rope, max_position_embeddings=128, **changes)
    length = 200
    real = build.build(config, torch.float32, "eager", "eager").model.rotary_emb
    real(torch.ones(1), torch.arange(length)[None])  # transformers' own choice at that length
    fixed, _ = build.build_fake(config, torch.float32, length)
    assert torch.allclose(fixed.model.rotary_emb.inv_freq, real.inv_freq)


def test_a_clone_keeps_every_kind_of_layer_and_reaches_its_windows():
    small = shrink(AutoConfig.for_model("gemma3_text"))
    assert small.layer_types == ["sliding_attention"] * 2 + ["full_attention"] * 2
    assert small.sliding_window == 4 and small.hidden_size == 64
    small = shrink(AutoConfig.for_model("gemma4_text", num_hidden_layers=12, num_kv_shared_layers=6))
    assert small.layer_types == (["sliding_attention"] * 2 + ["full_attention"]) * 2
    assert small.num_kv_shared_layers == 3
    assert [small.per_layer_config[i].head_dim for i in range(6)] == [32, 32, 64] * 2
    small = shrink(AutoConfig.for_model("gemma4_text", hidden_size_per_layer_input=0))
    assert small.hidden_size_per_layer_input == 0  # none stays none
    small = shrink(AutoConfig.for_model("gpt_neo"))
    assert (small.attention_layers, small.window_size) == (["global", "local"] * 2, 4)
    small = shrink(AutoConfig.for_model("qwen2", use_sliding_window=True))
    assert set(small.layer_types) == {"sliding_attention", "full_attention"}
