"""Every family of decoders exports from its directory, past the gate, and its parameters are made
of the checkpoint's tensors by recipe, to the last bit.
"""

import json
import zipfile

import pytest
import torch
from decoding import load_stored, made_by
from families import FAMILIES, config_of, save
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from echelon_export.text import build, recipes
from echelon_export.text.checkpoint import Checkpoint
from echelon_export.text.clone import randomise


def parts_of(file):
    """(echelon.json, the graph) of a .pt2"""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        read = [
            json.loads(archive.read(next(n for n in names if n.endswith(end))))
            for end in ("extra/echelon.json", "models/model.json")
        ]
    return read


def names_in(graph, kinds=("parameter", "buffer")):
    for spec in graph["graph_module"]["signature"]["input_specs"]:
        kind, value = next(iter(spec.items()))
        if kind == "parameter" or (kind == "buffer" and value["persistent"]):
            yield value[f"{kind}_name"]


@pytest.fixture
def directory(tmp_path):
    """A family's model directory with random weights; (folder, the model)."""

    def make(family, dtype=torch.float32, **changes):
        model = randomise(build.build(config_of(family, **changes), dtype, "eager", "eager"))
        save(model, tmp_path / family, family)
        return tmp_path / family, model

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_passes_the_gate_and_its_weights_are_found(family, directory, export_directory):
    folder, model = directory(family)
    status, out, err, file = export_directory(folder)
    assert status == 0, err
    assert "gate: clone of " in err and "agrees" in err
    manifest, graph = parts_of(file)
    assert manifest["model_type"] == family and manifest["weights"] and manifest["dtype"] == "f32"
    assert (manifest["max_model_len"], manifest["vocab_size"]) == (256, 160)
    assert manifest["eos_token_ids"] == [2] and manifest["bos_token_id"] == 1
    state, checkpoint = model.state_dict(), Checkpoint.open(folder)
    named = list(names_in(graph))
    assert named and set(named) <= manifest["parameters"].keys()
    assert manifest["parameters"].keys() == {f"model.{name}" for name in state}
    for name, recipe in manifest["parameters"].items():
        made = made_by(recipe, checkpoint)
        assert torch.equal(made, state[name.removeprefix("model.")]), name


def test_no_weights_are_inside_and_no_stack_traces(directory, export_directory):
    folder, _ = directory("llama")
    _, _, _, file = export_directory(folder)
    with zipfile.ZipFile(file) as archive:
        files = archive.infolist()
        sizes = {i.file_size for i in files if "/data/weights/weight_" in i.filename}
        text = archive.read(next(n for n in archive.namelist() if n.endswith("model.json")))
    assert sizes == {0} and b".py" not in text and b"stack_trace" not in text


def test_the_graph_speaks_the_contract(directory, export_directory):
    folder, _ = directory("gemma2")
    _, _, _, file = export_directory(folder)
    _, graph = parts_of(file)
    nodes = [
        {given["name"]: given["arg"] for given in node["inputs"]}
        for node in graph["graph_module"]["graph"]["nodes"]
        if node["target"] == "torch.ops.echelon.attention.default"
    ]
    assert [n["layer"]["as_int"] for n in nodes] == [0, 1, 2, 3]
    assert [n["window"]["as_int"] for n in nodes] == [8, 0, 8, 0]
    assert {n["softcap"]["as_float"] for n in nodes} == {50.0}
    users = [
        spec["user_input"]["arg"]["as_tensor"]["name"]
        for spec in graph["graph_module"]["signature"]["input_specs"]
        if "user_input" in spec
    ]
    assert users == ["input_ids", "position_ids", "rows"]
    ranges = sorted((r["min_val"], r["max_val"]) for r in graph["range_constraints"].values())
    assert ranges == [(0, 4096), (1, 65536)]


def test_a_bf16_checkpoint_keeps_what_transformers_keeps_in_f32(directory, export_directory):
    folder, _ = directory("deepseek_v3", torch.bfloat16)
    status, _, err, file = export_directory(folder)
    assert status == 0, err
    manifest, graph = parts_of(file)
    assert manifest["dtype"] == "bf16"
    bias = "model.model.layers.1.mlp.gate.e_score_correction_bias"
    made = made_by(manifest["parameters"][bias], Checkpoint.open(folder))
    assert made.dtype == torch.float32 and bias in list(names_in(graph))


def test_another_dtype_is_a_cast_in_the_recipe(directory, export_directory):
    folder, model = directory("qwen3")
    status, _, err, file = export_directory(folder, "--dtype", "bf16", "--max-model-len", "100")
    assert status == 0, err
    manifest, _ = parts_of(file)
    assert (manifest["dtype"], manifest["max_model_len"]) == ("bf16", 100)
    recipe = manifest["parameters"]["model.model.norm.weight"]
    assert recipe == {"op": "cast", "dtype": "bf16", "of": {"tensor": "model.norm.weight"}}
    names = ("model.lm_head.weight", "model.model.embed_tokens.weight")
    head, embedding = (manifest["parameters"][name] for name in names)
    assert head == embedding


@pytest.mark.parametrize("is_same", [True, False])
def test_a_head_that_is_stored_beside_the_embedding_is_compared_with_it(
    is_same, directory, export_directory
):
    folder, model = directory("qwen3")  # its config ties them
    stored = {name: value.clone() for name, value in model.state_dict().items()}
    if not is_same:
        stored["lm_head.weight"][-1, -1] += 1
    save_file(stored, folder / "model.safetensors")
    status, _, err, file = export_directory(folder, "--dtype", "bf16")
    assert status == 0, err
    assert ("they are not tied, though the config says so" in err) != is_same
    manifest, _ = parts_of(file)
    head, embedding = (
        manifest["parameters"][f"model.{name}"]
        for name in ("lm_head.weight", "model.embed_tokens.weight")
    )
    assert (head == embedding) == is_same
    made = made_by(head, Checkpoint.open(folder))
    assert torch.equal(made, stored["lm_head.weight"].to(torch.bfloat16))


def original_layout(family, model):
    """As the hub's checkpoints have them: no prefix, experts one by one, tied heads absent."""
    drop = {"gpt2": "transformer.", "opt": "model.", "bloom": "transformer."}.get(family, "")
    *halves, last = "gate_proj", "up_proj", "down_proj"
    block = ".mlp."
    if family == "mixtral":
        (*halves, last), block = ("w1", "w3", "w2"), ".block_sparse_moe."
    stored = {}
    for name, value in model.state_dict().items():
        prefix, experts, rest = name.partition(".mlp.experts.")
        if experts:
            for expert, matrix in enumerate(value):
                both = rest == "gate_up_proj"
                parts = zip(halves, matrix.chunk(2)) if both else [(last, matrix)]
                for letter, part in parts:
                    stored[f"{prefix}{block}experts.{expert}.{letter}.weight"] = part
        elif name != "lm_head.weight" or not model.config.tie_word_embeddings:
            stored[name.removeprefix(drop).replace(".mlp.", block)] = value
    if family == "gpt2":
        stored["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)  # an old mask that nobody reads
    return {name: value.clone().contiguous() for name, value in stored.items()}


@pytest.mark.parametrize("family", ["gpt2", "opt", "bloom", "mixtral", "qwen3_moe", "deepseek_v3"])
def test_original_layouts_are_read(family, tmp_path):
    model = randomise(build.build(config_of(family), torch.float32, "eager", "eager"))
    save_file(original_layout(family, model), tmp_path / "model.safetensors")
    checkpoint, state = Checkpoint.open(tmp_path), model.state_dict()
    made = json.loads(json.dumps(recipes.of_checkpoint(model, checkpoint, torch.float32)))
    assert made.keys() == state.keys()
    for name, recipe in made.items():
        assert torch.equal(made_by(recipe, checkpoint), state[name]), name


def test_reading_by_byte_range_is_reading_the_file(directory):
    folder, _ = directory("llama")
    for name, stored in Checkpoint.open(folder).tensors.items():
        with safe_open(stored.file, "pt") as file:
            assert torch.equal(load_stored(stored), file.get_tensor(name))


VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
SEES_IMAGES = {
    "gemma3": ("gemma3_text", {"mm_tokens_per_image": 4}),
    "llava": ("llama", {"vision_config": VISION | {"model_type": "clip_vision_model"}}),
    "mistral3": ("mistral", {"vision_config": VISION | {"model_type": "pixtral", "head_dim": 16}}),
    "idefics3": ("llama", {"scale_factor": 1}),
    "gemma4": ("gemma4_text", {"vision_config": VISION | {"head_dim": 16}, "audio_config": None}),
}


@pytest.fixture
def image_model():
    """A model that takes images, around a family's decoder, with random weights."""

    def make(family):
        text, options = SEES_IMAGES[family]
        config = AutoConfig.for_model(
            family,
            text_config=config_of(text).to_dict(),
            **({"vision_config": VISION} | options),
        )
        return randomise(AutoModelForImageTextToText.from_config(config).eval())

    return make


@pytest.mark.parametrize(
    ("family", "layout"), [*((family, "as saved") for family in SEES_IMAGES), ("gemma3", "by name")]
)
@torch.no_grad()
def test_of_a_model_that_sees_images_its_text_model_is_served(
    family, layout, image_model, tmp_path, export_directory
):
    whole = image_model(family)
    whole.save_pretrained(tmp_path)
    if layout != "as saved":
        stored = {name: value.clone() for name, value in whole.state_dict().items()}
        save_file(stored, tmp_path / "model.safetensors")
    status, _, err, file = export_directory(tmp_path)
    assert status == 0, err
    assert f"{family}: its text model, " in err and "it takes text alone" in err
    manifest, _ = parts_of(file)
    checkpoint = Checkpoint.open(tmp_path)
    text = build.build(config_of(SEES_IMAGES[family][0]), torch.float32, "eager", "eager")
    made = {n: made_by(r, checkpoint) for n, r in manifest["parameters"].items()}
    text.load_state_dict({n.removeprefix("model."): value for n, value in made.items()})
    ids = torch.randint(8, 150, (1, 20), generator=torch.Generator().manual_seed(7))
    whole.set_attn_implementation("eager")
    assert torch.equal(text(input_ids=ids).logits, whole(input_ids=ids).logits)


def test_a_checkpoint_without_its_text_model_is_refused(image_model, tmp_path, export_directory):
    whole = image_model("llava")
    whole.save_pretrained(tmp_path)
    seen = {n: v.clone() for n, v in whole.state_dict().items() if "language_model" not in n}
    save_file(seen, tmp_path / "model.safetensors")
    status, _, err, _ = export_directory(tmp_path)
    assert status == 1 and "the checkpoint has no text model that could be served: no " in err


def test_a_head_of_its_own_is_kept_wherever_it_lies(image_model, tmp_path, export_directory):
    image_model("gemma3").save_pretrained(tmp_path)  # as published, its head tied
    stored = load_file(tmp_path / "model.safetensors")
    head = torch.ones_like(stored["language_model.model.embed_tokens.weight"])
    save_file(stored | {"lm_head.weight": head}, tmp_path / "model.safetensors")
    status, _, err, file = export_directory(tmp_path)
    assert status == 0 and "they are not tied" in err, err
    recipe = parts_of(file)[0]["parameters"]["model.lm_head.weight"]
    assert torch.equal(made_by(recipe, Checkpoint.open(tmp_path)), head)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["Gemma3ForSequenceClassification"]}, "is not a decoder of text"),
        (
            {"text_config": config_of("gemma3_text").to_dict() | {"use_bidirectional_attention": True}},
            "use_bidirectional_attention is True: a prompt's tokens see later ones",
        ),
    ],
)
def test_what_would_not_be_a_text_model_is_refused(
    changes, said, image_model, tmp_path, export_directory
):
    image_model("gemma3").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    status, _, err, _ = export_directory(tmp_path)
    assert status == 1 and said in err, err


def test_what_the_whole_models_config_says_is_heard(image_model, tmp_path, export_directory):
    image_model("gemma3").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    path = tmp_path / "config.json"
    whole = json.loads(path.read_text())
    text = whole["text_config"] | {"dtype": "bfloat16"}
    whole |= {"eos_token_id": [1, 106], "text_config": text, "dtype": None}
    path.write_text(json.dumps(whole))
    status, _, err, file = export_directory(tmp_path)
    assert status == 0, err
    manifest = parts_of(file)[0]
    assert (manifest["eos_token_ids"], manifest["dtype"]) == ([1, 106], "bf16")
