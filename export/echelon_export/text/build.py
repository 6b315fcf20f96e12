"""A decoder built from its config alone: fake parameters, real buffers, positions of one length."""

from __future__ import annotations

import contextlib

import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from transformers import AutoModelForCausalLM, PreTrainedModel, initialization
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ..errors import ExportError, first_line
from . import operators
from .adapters import adapt, has_adapter
from .recipes import keep_float32


def copy_of(config):
    return type(config).from_dict(config.to_dict())  # transformers writes into the one it is given


def build(config, dtype, attention=operators.NAME, experts=operators.NAME, initialise=True):
    """A model in evaluation mode; on whatever device or fake mode is current."""
    skip = contextlib.nullcontext() if initialise else initialization.no_init_weights()
    adapted = attention == operators.NAME and has_adapter(config)
    try:
        with skip:
            model = AutoModelForCausalLM.from_config(
                copy_of(config),
                attn_implementation="eager" if adapted else attention,
                experts_implementation=experts,
                dtype=dtype,
            ).eval()
    except Exception as error:
        if isinstance(error, KeyError) and error.args == (operators.NAME,):  # its own table
            raise ExportError(
                f"{config.model_type} is refused: its attention does not go through "
                "transformers' interface"
            ) from error
        raise ExportError(
            f"{config.model_type} cannot be built from its config: {first_line(error)}"
        ) from error
    model.tie_weights()  # part of the initialisation that may have been skipped
    keep_float32(model, dtype)
    model.requires_grad_(False)
    if adapted:
        with unset_fake_temporarily():
            adapt(model)
        model.config._attn_implementation = operators.NAME  # and nobody makes a mask
    return model


def build_fake(config, dtype, max_model_len: int, build=build):
    """(model, mode): parameters take no memory; the other buffers have their real values."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        model = build(config, dtype, initialise=False)
    fill_buffers(model)
    fix_rope(model, max_model_len)
    operators.name_gates(model)
    return model, mode


def _two_fillings(dtype: torch.dtype):
    if dtype == torch.bool:
        return False, True
    if dtype.is_floating_point:
        return 0.0, torch.nan
    return 0, torch.iinfo(dtype).min


def _with_initialiser(module, path="", owner=None):
    """(path, module, the innermost model around it, whose code initialises it) of all modules."""
    owner = module if isinstance(module, PreTrainedModel) else owner
    yield path, module, owner
    for name, child in module.named_children():
        yield from _with_initialiser(child, f"{path}.{name}" if path else name, owner)


def fill_buffers(model):
    """Gives a fake model real non-persistent buffers, by the initialiser that from_pretrained
    itself relies on.
    """
    for path, module, owner in _with_initialiser(model):
        fakes = {
            name: module._buffers[name]
            for name in sorted(module._non_persistent_buffers_set)
            if type(module._buffers[name]) not in (torch.Tensor, type(None))
        }
        made = []
        for i in range(2 if fakes else 0):  # what is as it was before has not been initialised
            for name, fake in fakes.items():
                filling = _two_fillings(fake.dtype)[i]
                module._buffers[name] = torch.full(tuple(fake.shape), filling, dtype=fake.dtype)
            owner._init_weights(module)
            made.append({name: module._buffers[name].clone() for name in fakes})
        for name in fakes:
            if not torch.equal(made[0][name], made[1][name]):
                raise ExportError(f"{path}.{name}: transformers does not initialise this buffer")


def _moves_with_length(kind: str | None) -> bool:
    return kind == "longrope" or "dynamic" in (kind or "")


def fix_rope(model, max_model_len: int):
    """longrope and dynamic: the frequencies of one length, so that no length seen at run time moves
    a position.
    """
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        for layer, kind in list(kinds.items() if isinstance(kinds, dict) else [(None, kinds)]):
            if not _moves_with_length(kind):
                continue
            prefix, where = (f"{layer}_", {"layer_type": layer}) if layer else ("", {})
            inv_freq, scale = ROPE_INIT_FUNCTIONS[kind](
                module.config, None, seq_len=max_model_len, **where
            )
            setattr(module, f"{prefix}inv_freq", inv_freq)
            setattr(module, f"{prefix}attention_scaling", scale)
            # Any other name stops transformers' updater, which looks at lengths.
            module.rope_type = {**kinds, layer: "fixed"} if layer else "fixed"
            kinds = module.rope_type
