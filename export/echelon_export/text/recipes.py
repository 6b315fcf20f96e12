"""Recipes: how each parameter is made of the checkpoint's tensors, as plain data.

They are what transformers' own loader does: it runs here on meta tensors, under a mode that writes
down each movement of data. This file alone uses the loader's private hooks (transformers is pinned
for it): convert_and_load_state_dict_in_model, set_param_for_module, get_model_conversion_mapping,
build_glob_alternation, _get_dtype_plan, _adjust_missing_and_unexpected_keys, all_tied_weights_keys.
"""

from __future__ import annotations

import os
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import core_model_loading
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import build_glob_alternation
from transformers.modeling_utils import LoadStateDictConfig

from ..errors import ExportError, first_line
from .checkpoint import FLOATS, Checkpoint

aten = torch.ops.aten
DTYPE_NAMES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
TORCH_DTYPES = {
    **{name: getattr(torch, text) for name, text in FLOATS.items()},
    "F64": torch.float64, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16,
    "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool, "U16": torch.uint16,
    "U32": torch.uint32, "U64": torch.uint64,
}  # fmt: skip
SHOWN = 3
# Where a larger model's checkpoint keeps its decoder and the decoder's head, which the decoder
# alone calls model. and lm_head.: as published at first, and as transformers writes it now.
TEXT_MODELS = ("language_model.model.", "model.language_model.", "model.text_model.")
TEXT_HEADS = ("language_model.lm_head.", "lm_head.")


def keep_float32(model, dtype: torch.dtype):
    """Parameters and buffers that from_pretrained keeps in f32 whatever the dtype."""
    plan = model._get_dtype_plan(dtype)
    if not plan:
        return
    pattern, groups, _ = build_glob_alternation(list(plan))
    for module_path, module in model.named_modules():
        for name, value in [*module._parameters.items(), *module._buffers.items()]:
            match = pattern.search(f"{module_path}.{name}")
            if match and value is not None and value.is_floating_point():
                kept = value.detach().to(plan[groups[match.lastgroup]])
                if name in module._parameters:
                    kept = torch.nn.Parameter(kept, requires_grad=False)
                setattr(module, name, kept)


class Recorder(TorchDispatchMode):
    """Writes down how tensors were made from named ones. Anything but data movement is refused."""

    SAME = {aten.clone.default, aten.alias.default, aten.detach.default, aten.contiguous.default}
    RESHAPES = {
        aten.view.default,
        aten._unsafe_view.default,
        aten.unsqueeze.default,
        aten.squeeze.default,
        aten.squeeze.dim,
    }

    def __init__(self, sources: dict[str, torch.Tensor]):
        super().__init__()
        # Holding the tensor keeps its id its own.
        self.made = {id(t): (t, {"tensor": name}) for name, t in sources.items()}

    def of(self, tensor) -> dict:
        if id(tensor) not in self.made:
            raise ExportError("the loader makes a tensor that does not come from the checkpoint")
        return self.made[id(tensor)][1]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        names = (argument.name for argument in func._schema.arguments)
        given = dict(zip(names, args, strict=False)) | (kwargs or {})
        source = given.get("self", given.get("tensors"))
        if isinstance(source, (list, tuple)) or id(source) in self.made:
            outs = list(out) if isinstance(out, (list, tuple)) else [out]
            for index, result in enumerate(outs):
                recipe = self.describe(func, given, source, result, outs[:index])
                self.made[id(result)] = result, recipe
        return out

    def describe(self, func, given, source, result, before) -> dict:
        dim = given.get("dim", 0) % max(1, result.dim()) if result.dim() else 0
        if func in (aten.stack.default, aten.cat.default):
            parts = [self.of(t) for t in source]
            return {"op": func._schema.name[6:], "dim": dim, "of": parts}
        if func in self.SAME or func is aten._to_copy.default and result.dtype == source.dtype:
            return self.of(source)
        if func is aten._to_copy.default:
            if not {source.dtype, result.dtype} <= DTYPE_NAMES.keys():
                raise ExportError(
                    f"{self.of_text(source)} is {str(source.dtype)[6:]} in the checkpoint, which "
                    "is no plain weight; use the original model in bf16, f16 or f32"
                )
            return {"op": "cast", "dtype": DTYPE_NAMES[result.dtype], "of": self.of(source)}
        if func is aten.transpose.int:
            dims = [given[name] % source.dim() for name in ("dim0", "dim1")]
            return {"op": "transpose", "dims": dims, "of": self.of(source)}
        if func is aten.t.default:
            return {"op": "transpose", "dims": [0, 1], "of": self.of(source)}
        if func in (aten.split.Tensor, aten.split_with_sizes.default):
            start = sum(t.shape[dim] for t in before)
            return self.cut(source, dim, start, result.shape[dim])
        if func is aten.slice.Tensor and given.get("step", 1) == 1:
            start = given.get("start") or 0
            size = source.shape[dim]
            start = min(max(start + size if start < 0 else start, 0), size)
            return self.cut(source, dim, start, result.shape[dim])
        if func in self.RESHAPES:
            return {"op": "reshape", "shape": list(result.shape), "of": self.of(source)}
        raise ExportError(
            f"transformers' loader computes {func} on {self.of_text(source)}, which is not data "
            "movement"
        )

    def cut(self, source, dim, start, length) -> dict:
        if length == source.shape[dim]:
            return self.of(source)
        return {"op": "slice", "dim": dim, "start": start, "length": length, "of": self.of(source)}

    def of_text(self, source) -> str:
        recipe = self.made.get(id(source), (None, {}))[1]
        return recipe.get("tensor", str(recipe)[:100] if recipe else "a tensor")


def _texts(names) -> str:
    names = sorted(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _sources(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {
        name: torch.empty(stored.shape, dtype=TORCH_DTYPES[stored.dtype], device="meta")
        for name, stored in checkpoint.tensors.items()
    }


def _load(model, sources, dtype, capture, recorder):
    config = LoadStateDictConfig(
        device_map={"": "meta"},
        dtype=dtype,
        dtype_plan=model._get_dtype_plan(dtype),
        weight_mapping=get_model_conversion_mapping(model),
    )
    # The loader's threads would escape the mode.
    serial = mock.patch.dict(os.environ, HF_DEACTIVATE_ASYNC_LOAD="1")
    hook = mock.patch.object(core_model_loading, "set_param_for_module", capture)
    with serial, recorder, hook:
        info, _ = core_model_loading.convert_and_load_state_dict_in_model(model, sources, config)
    model._adjust_missing_and_unexpected_keys(info)  # old masks, inv_freq, layers of MTP
    return info


def _of_text_part(sources: dict) -> dict:
    """What belongs to the decoder inside a larger model, by the names of a decoder alone."""
    for model in TEXT_MODELS:
        if any(name.startswith(model) for name in sources):
            names = {model: "model."} | dict.fromkeys(TEXT_HEADS, "lm_head.")
            return {
                own + name.removeprefix(inner): value
                for name, value in sources.items()
                for inner, own in names.items()
                if name.startswith(inner)
            }
    raise ExportError(
        "the checkpoint has no text model that could be served: no tensor's name begins with "
        + " or ".join(TEXT_MODELS)
    )


def of_checkpoint(
    model, checkpoint: Checkpoint, dtype: torch.dtype, is_part: bool = False
) -> dict[str, dict]:
    """{parameter or persistent buffer: recipe}, from the checkpoint's headers alone; of tied
    tensors that are stored twice the values are compared (NotTiedError).
    """
    state, made = model.state_dict(), {}
    sources = _sources(checkpoint)
    recorder = Recorder(sources)
    if is_part:
        sources = _of_text_part(sources)

    def capture(model, target_name, param_value, loading_info, hf_quantizer):
        want = state[target_name]
        if param_value.shape != want.shape:
            raise ExportError(
                f"{target_name} is {list(param_value.shape)} in the checkpoint and "
                f"{list(want.shape)} in the model; config.json does not belong to it"
            )
        recipe = recorder.of(param_value)
        if param_value.dtype != want.dtype:
            if not {param_value.dtype, want.dtype} <= DTYPE_NAMES.keys():
                raise ExportError(f"{target_name} is stored as {param_value.dtype}")
            recipe = {"op": "cast", "dtype": DTYPE_NAMES[want.dtype], "of": recipe}
        made[target_name] = recipe
        loading_info.missing_keys.discard(target_name)

    try:
        info = _load(model, sources, dtype, capture, recorder)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"transformers' loader fails: {first_line(error)}") from error
    _share_tied(model, made, checkpoint)
    _refuse_rest(state, made, info)
    return {name: made[name] for name in state}


class NotTiedError(Exception):
    """The checkpoint has two tensors, of different values, where the config says one."""


def _is_same(one: dict, other: dict, checkpoint: Checkpoint | None) -> bool:
    if one == other or checkpoint is None:
        return True
    if {one.get("op"), other.get("op")} == {"cast"} and one["dtype"] == other["dtype"]:
        return _is_same(one["of"], other["of"], checkpoint)
    if not ("tensor" in one and "tensor" in other):
        return False
    return checkpoint.have_same_values(one["tensor"], other["tensor"])


def _share_tied(model, made: dict, checkpoint: Checkpoint | None = None):
    """Tied tensors are stored under either name, or both: all their names get one recipe. Stored
    with different values they are not tied, whatever the config says (as from_pretrained has it).
    """
    for one, other in model.all_tied_weights_keys.items():
        if one in made and other in made and not _is_same(made[one], made[other], checkpoint):
            raise NotTiedError(f"{one} and {other}")
        recipe = made.get(other, made.get(one))
        if recipe is not None:
            made[one] = made[other] = recipe


def _refuse_rest(state, made, info):
    lost = [name for name in state if name not in made]
    if info.conversion_errors:
        raise ExportError(f"the checkpoint cannot be converted: {_texts(info.conversion_errors)}")
    if lost:
        raise ExportError(f"the checkpoint lacks {_texts(lost)}")
    if info.unexpected_keys:  # scales of a quantised checkpoint, say: the weights are not plain
        raise ExportError(
            f"the checkpoint holds tensors that the model does not use: "
            f"{_texts(info.unexpected_keys)}; its other weights may depend on them"
        )


def of_names(model) -> dict[str, dict]:
    """Where there is no checkpoint to read: every parameter by its own name."""
    made = {name: {"tensor": name} for name in model.state_dict()}
    _share_tied(model, made)
    return made
