"""A model directory's config.json: what it is, its dtype, its length; and what is refused by it."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib

import torch
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..errors import ExportError, first_line
from .checkpoint import Checkpoint, read_json

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
NAMES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
SERVED_LAYERS = ("full_attention", "sliding_attention")
LAYER_LISTS = ("layer_types", "layers_block_type", "block_types", "hybrid_override_pattern")
GENERATES = ("ForConditionalGeneration", "ForCausalLM", "Model")
LENGTHS = ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length")
DEFAULT_LENGTH = 2048


@dataclasses.dataclass
class Decoder:
    """What is to be exported. `notes` are choices made for the user, to be said."""

    config: object
    architecture: str
    dtype: torch.dtype
    max_model_len: int
    config_sha256: str
    eos_token_ids: list[int]
    bos_token_id: int | None
    pad_token_id: int | None
    notes: list[str]
    is_part: bool = False  # of a model that takes more than text


def _refuse_layers(raw: dict):
    for key in LAYER_LISTS:
        kinds = raw.get(key)
        for layer, kind in enumerate(kinds if isinstance(kinds, list) else []):
            if kind not in SERVED_LAYERS and not (key != "layer_types" and kind == "attention"):
                raise ExportError(
                    f"layer {layer} is of the kind {str(kind)[:40]!r}, which echelon has no "
                    f"operator for; it has {' and '.join(SERVED_LAYERS)}"
                )


def _refuse_quantised(raw: dict):
    inner = raw.get("text_config")
    for part in (raw, inner if isinstance(inner, dict) else {}):
        quantisation = part.get("quantization_config") or part.get("compression_config")
        if not quantisation:
            continue
        named = quantisation if isinstance(quantisation, dict) else {}
        method = str(named.get("quant_method", "by an unknown method"))[:40]
        raise ExportError(
            f"the checkpoint is quantised ({method.upper()}), which is not served; use the "
            "original model in bf16, f16 or f32"
        )


def _text_part(config):
    """The config of the decoder inside a model that also takes images or sounds; or None."""
    text = getattr(config, "text_config", None)
    known = getattr(text, "model_type", None) in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not known or text.is_encoder_decoder or type(text).sub_configs:
        return None
    if hasattr(config, "tie_word_embeddings"):  # the larger model's, which has the head
        text.tie_word_embeddings = config.tie_word_embeddings
    return text


def _load(folder: pathlib.Path, raw: dict):
    """(config, architecture, whether it is a part of the directory's model)"""
    model_type = raw.get("model_type")
    if not isinstance(model_type, str):
        raise ExportError(f"{folder / 'config.json'} has no model_type")
    if model_type not in CONFIG_MAPPING:
        own = ", whose code comes with the checkpoint" if raw.get("auto_map") else ""
        raise ExportError(f"transformers has no model type {model_type[:60]!r}{own}")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ExportError(f"{folder / 'config.json'}: {first_line(error)}") from error
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    architecture = (raw.get("architectures") or [causal])[0]
    if architecture is None or str(architecture).endswith(GENERATES):
        if (text := _text_part(config)) is not None:
            return text, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[text.model_type], True
    bare = isinstance(architecture, str) and architecture.endswith(("Model", "ForPreTraining"))
    known = causal is not None and (architecture == causal or bare)
    if not known or raw.get("is_encoder_decoder"):
        also = f"; export its text model ({causal})" if causal not in (None, architecture) else ""
        raise ExportError(f"{architecture} ({model_type}) is not a decoder of text{also}")
    if type(config).sub_configs:
        raise ExportError(f"{causal} ({model_type}) holds more than a decoder of text")
    return config, causal, False


def _dtype(raw: dict, checkpoint: Checkpoint | None, asked: str | None, notes: list[str]):
    if asked:
        return DTYPES[asked]
    name = raw.get("dtype") or raw.get("torch_dtype")
    if not isinstance(name, str):
        name = checkpoint.main_dtype() if checkpoint else "float32"
    if name in ("float16", "half"):
        if checkpoint is None:
            notes.append("dtype: bf16, as many bytes as the config's f16, which is not served")
            return torch.bfloat16
        raise ExportError(
            "the checkpoint is f16, which is not served; give --dtype f32 (exact) or --dtype bf16 "
            "(half the memory, 3 bits less of each weight)"
        )
    if name not in ("float32", "bfloat16"):
        raise ExportError(
            f"the config's dtype {name[:40]!r} is not served; give --dtype f32 or bf16"
        )
    return torch.float32 if name == "float32" else torch.bfloat16


def _longest(config, known: int) -> int:
    """With what its rope adds: configs give max_position_embeddings before that or after."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") not in ("dynamic", "linear", "yarn"):
        return known
    original = rope.get("original_max_position_embeddings") or known
    return max(known, int(original * (rope.get("factor") or 1)))


def _length(config, asked: int | None, notes: list[str]) -> int:
    known = next((getattr(config, n, None) for n in LENGTHS if getattr(config, n, None)), None)
    if asked is None:
        length = known or DEFAULT_LENGTH
        why = "the config's" if known else "the config says none"
        notes.append(f"max model length: {length} ({why}; --max-model-len changes it)")
        return length
    if known and asked > _longest(config, known):
        raise ExportError(
            f"--max-model-len {asked} is more than the {_longest(config, known)} tokens that the "
            "model was made for"
        )
    return asked


def _ids(raw: dict, generation: dict, name: str) -> list[int]:
    value = generation.get(name, raw.get(name))
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0]


def load(
    folder: pathlib.Path,
    checkpoint: Checkpoint | None,
    dtype: str | None,
    max_model_len: int | None,
) -> Decoder:
    path = folder / "config.json"
    raw = read_json(path)
    generation_path = folder / "generation_config.json"
    generation = read_json(generation_path) if generation_path.is_file() else {}
    _refuse_quantised(raw)
    _refuse_layers(raw)
    config, architecture, is_part = _load(folder, raw)
    _refuse_layers({key: getattr(config, key, None) for key in LAYER_LISTS})
    both_ways = getattr(config, "use_bidirectional_attention", None)
    if both_ways not in (None, False, "vision"):  # "vision": among the tokens of an image
        raise ExportError(
            f"use_bidirectional_attention is {both_ways!r}: a prompt's tokens see later ones, "
            "which is not served"
        )
    notes: list[str] = []
    if is_part:
        notes.append(f"{raw['model_type']}: its text model, {architecture}; it takes text alone")
        if config.dtype is not None and not (raw.get("dtype") or raw.get("torch_dtype")):
            raw = raw | {"dtype": str(config.dtype).removeprefix("torch.")}
    if checkpoint:
        checkpoint.refuse_quantised()
    bos, pad = (_ids(raw, generation, f"{n}_token_id") for n in ("bos", "pad"))
    full = config.to_dict()
    return Decoder(
        config,
        architecture,
        _dtype(raw, checkpoint, dtype, notes),
        _length(config, max_model_len, notes),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        _ids(raw, generation, "eos_token_id") or _ids(full, {}, "eos_token_id"),
        (bos or _ids(full, {}, "bos_token_id") or [None])[0],
        (pad or _ids(full, {}, "pad_token_id") or [None])[0],
        notes,
        is_part,
    )
