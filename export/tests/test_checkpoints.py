"""A model directory is not trusted: each refusal is one line that names the thing at fault."""

import json
import pathlib
import re
import struct
import subprocess
import sys
import types

import pytest
import torch
from families import config_of
from safetensors.torch import save_file

from echelon_export import ExportError
from echelon_export.text import build, cache, recipes
from echelon_export.text import config as text_config
from echelon_export.text.checkpoint import INDEX, SINGLE, Checkpoint
from echelon_export.text.command import export_cached

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "tests" / "configs"
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write(folder, header, data=8, name=SINGLE):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))


def second(**changes):
    return F32 | {"data_offsets": [8, 16]} | changes


HEADERS = {
    "a header longer than the file": (struct.pack("<Q", 1 << 40), 0, "cut short or no safetensors"),
    "no JSON": (b"{nope", 0, "is not valid JSON"),
    "nested too deep": (b'{"a":' * 200_000, 0, "is not valid JSON"),
    "a list": (b"[]", 0, "is not a JSON object"),
    "the same name twice": (
        b'{"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
        b'"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
        0,
        "'w' stands there twice",
    ),
    "no offsets": ({"w": {"dtype": "F32", "shape": [2]}}, 8, "has no dtype, shape or data_offsets"),
    "an unknown dtype": ({"w": F32 | {"dtype": "F4"}}, 8, "'w' has the dtype 'F4'"),
    "a negative size": ({"w": F32 | {"shape": [-2]}}, 8, "has no valid shape"),
    "a size that is no number": ({"w": F32 | {"shape": [True]}}, 8, "has no valid shape"),
    "negative offsets": ({"w": F32 | {"data_offsets": [-8, 0]}}, 8, "no valid data_offsets"),
    "other bytes than its shape": ({"w": F32 | {"shape": [3]}}, 8, "takes 8 bytes, but F32 [3]"),
    "overlap": ({"a": F32, "b": F32 | {"data_offsets": [4, 12]}}, 12, "'b' overlaps 'a'"),
    "a gap": ({"a": F32, "b": F32 | {"data_offsets": [12, 20]}}, 20, "leaves a gap after 'a'"),
    "a gap at the start": ({"a": F32 | {"data_offsets": [4, 12]}}, 12, "a gap after 'the header'"),
    "bytes that nobody describes": ({"w": F32}, 9, "describes"),
    "a file cut short": ({"w": F32}, 4, "describes"),
}


def refusal(folder) -> str:
    with pytest.raises(ExportError) as refused:
        Checkpoint.open(folder)
    text = str(refused.value)
    assert "\n" not in text and len(text) < 500
    return text


@pytest.mark.parametrize("case", HEADERS)
def test_refuses_a_header_with(case, tmp_path):
    header, data, message = HEADERS[case]
    if case.startswith("a header longer"):
        (tmp_path / SINGLE).write_bytes(header)
    else:
        write(tmp_path, header, data)
    text = refusal(tmp_path)
    assert message in text and SINGLE in text


INDEXES = {
    "a path outside": ({"w": "../secret.safetensors"}, "'../secret.safetensors', which is outside"),
    "an absolute path": ({"w": "/etc/passwd"}, "'/etc/passwd', which is outside the directory"),
    "a folder": ({"w": "a/b.safetensors"}, "'a/b.safetensors', which is outside the directory"),
    "another format": ({"w": "a.bin"}, "'a.bin', which is not a safetensors file"),
    "a missing shard": ({"w": "b.safetensors"}, "b.safetensors is missing; download"),
    "a tensor that is not there": ({"v": "a.safetensors"}, "places tensor 'v' in a.safetensors"),
    "nothing": ({}, "has no weight_map"),
}


@pytest.mark.parametrize("case", INDEXES)
def test_refuses_an_index_with(case, tmp_path):
    weight_map, message = INDEXES[case]
    write(tmp_path, {"w": F32}, name="a.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert message in refusal(tmp_path)


def test_refuses_a_tensor_in_two_shards(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        write(tmp_path, {"w": F32}, name=name)
    write(tmp_path, {"w": F32, "v": second()}, 16, "b.safetensors")
    weight_map = {"w": "a.safetensors", "v": "b.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert "tensor 'w' is in two files: a.safetensors and b.safetensors" in refusal(tmp_path)


OTHERS = {
    "pytorch_model.bin": "pytorch_model.bin is not a safetensors file; convert the checkpoint",
    "model.gguf": "model.gguf is not a safetensors file",
    "weights.safetensors": "weights.safetensors is neither model.safetensors nor named by",
    "adapter_config.json": "holds an adapter (adapter_config.json); merge it",
}


@pytest.mark.parametrize("name", OTHERS)
def test_refuses_another_format(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    assert OTHERS[name] in refusal(tmp_path)


def model_and_tensors(family="llama", **changes):
    model = build.build(config_of(family, **changes), torch.float32, "eager", "eager")
    return model, {n: v.clone().contiguous() for n, v in model.state_dict().items()}


def recipe_refusal(model, tensors, folder):
    save_file(tensors, folder / SINGLE)
    with pytest.raises(ExportError) as refused:
        recipes.of_checkpoint(model, Checkpoint.open(folder), torch.float32)
    return str(refused.value)


def test_refuses_tensors_that_nobody_uses(tmp_path):
    model, tensors = model_and_tensors()
    tensors["model.layers.0.mlp.up_proj.weight_scale"] = torch.ones(1)
    text = recipe_refusal(model, tensors, tmp_path)
    assert "tensors that the model does not use: model.layers.0.mlp.up_proj.weight_scale" in text


def test_refuses_a_checkpoint_of_another_size_or_with_tensors_missing(tmp_path):
    model, tensors = model_and_tensors()
    lost = tensors.pop("model.norm.weight")
    assert "the checkpoint lacks model.norm.weight" in recipe_refusal(model, tensors, tmp_path)
    tensors["model.norm.weight"] = torch.cat([lost, lost])
    text = recipe_refusal(model, tensors, tmp_path)
    assert "model.norm.weight is [128] in the checkpoint and [64] in the model" in text


def test_refuses_weights_that_are_integers(tmp_path):
    model, tensors = model_and_tensors()
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
    text = recipe_refusal(model, tensors, tmp_path)
    assert "model.norm.weight" in text and "int8" in text


LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 160}
HYBRID = {"layer_types": ["full_attention", "linear_attention"]}
CONFIG_REFUSALS = {
    "no config": (None, "there is no ", "config.json; give a Hugging Face model directory"),
    "no JSON": (b"{", "config.json is not valid JSON"),
    "no model type": ({}, "config.json has no model_type"),
    "an unknown model type": ({"model_type": "nope"}, "transformers has no model type 'nope'"),
    "code of its own": (
        {"model_type": "nope", "auto_map": {"AutoConfig": "x.Y"}},
        "model type 'nope', whose code comes with the checkpoint",
    ),
    "an encoder": (
        {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
        "BertForMaskedLM (bert) is not a decoder of text",
    ),
    "an encoder and decoder": ({"model_type": "t5"}, "(t5) is not a decoder of text"),
    "pictures": (
        {"model_type": "git", "architectures": ["GitForCausalLM"]},
        "GitForCausalLM (git) holds more than a decoder of text",
    ),
    "a hybrid": (LLAMA | HYBRID, "layer 1 is of the kind 'linear_attention'"),
    "conv layers": (
        {"model_type": "lfm2", "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
        "layer 0 is of the kind 'conv'",
    ),
    "layers of kinds that other keys say": ({"model_type": "jamba"}, "layer 0 is of the kind "),
    "sizes that do not fit": (
        LLAMA | {"num_attention_heads": 7},
        "config.json: ",
        "The hidden size (64) is not a multiple of the number of attention heads (7)",
    ),
    "recurrent layers": (
        {"model_type": "recurrent_gemma", "block_types": ["recurrent", "recurrent", "attention"]},
        "layer 0 is of the kind 'recurrent'",
    ),
    **{
        method: (
            LLAMA | {"quantization_config": {"quant_method": method}},
            f"the checkpoint is quantised ({method.upper()}), which is not served",
        )
        for method in ("gptq", "awq", "fp8", "mxfp4")
    },
    "an odd dtype": (LLAMA | {"dtype": "float64"}, "the config's dtype 'float64' is not served"),
}


@pytest.mark.parametrize("case", CONFIG_REFUSALS)
def test_refuses_a_config_with(case, tmp_path, export_directory):
    config, *messages = CONFIG_REFUSALS[case]
    folder = tmp_path / "model"
    folder.mkdir()
    if config is not None:
        text = config if isinstance(config, bytes) else json.dumps(config).encode()
        (folder / "config.json").write_bytes(text)
    status, out, err, file = export_directory(folder)
    assert status == 1 and out == "" and not file.exists()
    assert err.startswith("echelon-export: ") and err.count("\n") == 1
    assert all(message in err for message in messages), err


def test_refuses_a_family_with_a_table_of_attentions_of_its_own(
    tmp_path, export_directory, monkeypatch
):
    monkeypatch.setattr(build, "has_adapter", lambda _: False)
    (tmp_path / "config.json").write_text('{"model_type": "falcon"}')
    status, _, err, _ = export_directory(tmp_path)
    assert status == 1 and err.splitlines()[-1] == (
        "echelon-export: falcon is refused: its attention does not go through transformers' "
        "interface"
    )


def small_directory(folder, dtype=torch.float32, stored=None, **changes):
    model, tensors = model_and_tensors(**changes)
    model.config.dtype = dtype
    model.config.save_pretrained(folder)
    save_file({n: v.to(stored or dtype) for n, v in tensors.items()}, folder / SINGLE)
    return folder


def test_refuses_f16_and_fp8_weights_and_texts_too_long(tmp_path, export_directory):
    status, _, err, _ = export_directory(small_directory(tmp_path, torch.float16))
    assert status == 1 and "the checkpoint is f16, which is not served; give --dtype f32" in err
    status, _, err, _ = export_directory(
        small_directory(tmp_path, stored=torch.float8_e4m3fn), "--dtype", "bf16"
    )
    assert status == 1 and "is FP8 (F8_E4M3); use the original model" in err
    status, _, err, _ = export_directory(small_directory(tmp_path), "--max-model-len", "300")
    assert status == 1 and "--max-model-len 300 is more than the 256 tokens" in err


@pytest.mark.parametrize(
    ("rope", "longest"),
    [
        ({"rope_type": "default"}, 256),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 128}, 256),
        ({"rope_type": "dynamic", "factor": 4.0}, 1024),
        ({"rope_type": "linear", "factor": 4.0}, 1024),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}, 1024),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
    ],
)
def test_a_rope_made_for_longer_texts_serves_them(rope, longest):
    config = types.SimpleNamespace(max_position_embeddings=256, rope_parameters=rope)
    assert text_config._length(config, longest, []) == longest
    with pytest.raises(ExportError, match=f"is more than the {longest} tokens"):
        text_config._length(config, longest + 1, [])


def test_options_belong_to_their_kind_of_target(tmp_path, export_directory, export):
    for options in (("--input", "x=4:f32"), ("--static",), ("--max-batch", "3")):
        status, _, err, _ = export_directory(tmp_path, *options)
        assert status == 1 and f"{options[0]} is for modules, and " in err
    status, _, err, _ = export("net", "--dtype", "bf16")
    assert status == 1 and "--dtype is for the directory of a Hugging Face decoder" in err
    status, _, err, _ = export_directory(tmp_path, "--cache", str(tmp_path))
    assert status == 1 and "give -o FILE.pt2 or --cache FOLDER, one of the two" in err


def test_a_head_that_differs_from_the_embedding_is_another_export(tmp_path):
    paths = []
    for change in (0, 0, 1):
        folder = tmp_path / str(len(paths))
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "llama"}')
        embedding = torch.ones(8, 4)
        head = embedding + change
        save_file({"lm_head.weight": head, "embed.weight": embedding}, folder / SINGLE)
        paths.append(cache.path_of(folder, tmp_path, None, None))
    assert paths[0] == paths[1] != paths[2]


def test_a_cached_export_is_made_once_and_again_when_what_it_depends_on_changes(tmp_path):
    folder, cache, said = small_directory(tmp_path), tmp_path / "deep" / "cache", []
    first = export_cached(folder, cache, say=said.append)
    assert first.parent == cache and first.is_file() and any("gate: clone" in s for s in said)
    said.clear()
    assert export_cached(folder, cache, say=said.append) == first and said == []
    assert [p.name for p in cache.iterdir()] == [first.name]
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    second = export_cached(folder, cache, dtype="bf16", say=said.append)
    assert second != first and second.is_file()
    (folder / SINGLE).write_bytes((folder / SINGLE).read_bytes() + b" ")
    with pytest.raises(ExportError, match="describes"):
        export_cached(folder, cache, say=said.append)


def test_a_hit_in_the_cache_imports_no_torch(tmp_path):
    folder, cache = small_directory(tmp_path), tmp_path / "cache"
    path = export_cached(folder, cache, say=lambda _: None)
    code = (
        "import sys; from echelon_export.cli import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), "--cache", str(cache)],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).resolve().parents[1],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}\n", "")


LARGE = {
    "llama-13b": (13_015_864_320, "bf16"),
    "opt-175b": (174_604_468_224, "bf16"),
    "bloom-176b": (176_247_271_424, "bf16"),
    "llama-3.1-405b": (405_853_388_800, "bf16"),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_model_is_built_from_its_config_alone(name):
    """The whole export takes minutes for all four together; what would break it is the building."""
    from echelon_export.text import config

    parameters, dtype = LARGE[name]
    decoder = config.load(CONFIGS / name, None, None, None)
    model, _ = build.build_fake(decoder.config, decoder.dtype, decoder.max_model_len)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert config.NAMES[decoder.dtype] == dtype
    made = recipes.of_names(model)
    assert made.keys() == model.state_dict().keys()
    assert re.fullmatch(r"[\w.]+", made["lm_head.weight"]["tensor"])


def test_a_large_model_is_exported_in_little_memory(tmp_path):
    """LLaMA-13B, whole: under 2 GiB resident, though its weights would take 26 GB."""
    code = (
        "import resource, sys; from echelon_export.cli import main; status = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    file = tmp_path / "llama.pt2"
    done = subprocess.run(
        [sys.executable, "-c", code, str(CONFIGS / "llama-13b"), "-o", str(file)],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).resolve().parents[1],
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 2 << 20  # KiB
    assert file.stat().st_size < 20_000_000
    assert "dtype: bf16, as many bytes as the config's f16" in done.stderr
