"""What can be exported, and that the file is the model."""

import json
import subprocess
import sys
import zipfile

import models
import pytest
import torch

from echelon_export import ExportError, InputSpec, Options, export_module

X = ("--input", "x=4x8:f32")


def graph_of(file):
    with zipfile.ZipFile(file) as archive:
        name = next(n for n in archive.namelist() if n.endswith("models/model.json"))
        return json.loads(archive.read(name))


def loaded(file):
    return torch.export.load(file).module()


@pytest.mark.parametrize("target", ["net", "Net", "make"])
def test_exports_a_module_a_class_and_a_factory(export, target):
    status, out, err, file = export(target, *X)
    assert (status, err) == (0, "")
    x = torch.randn(7, 8)
    assert torch.equal(loaded(file)(x), models.net(x))


def test_says_what_was_written(export):
    _, out, _, file = export("net", *X)
    first, *rest = out.splitlines()
    assert first.startswith(f"{file}: 99 parameters, 396 bytes of weights, 3 operators, ")
    assert rest == [
        "  input    x  f32 [batch, 8]",
        "  output   output  f32 [batch, 3]",
        "  dynamic  batch 1..64",
        "  checked  against eager at batch 4; batch 1; batch 5: equal to the last bit",
    ]


def test_the_batch_ranges_from_1_to_64_unless_told_otherwise(export):
    _, _, _, file = export("net", *X)
    assert list(graph_of(file)["range_constraints"].values()) == [{"min_val": 1, "max_val": 64}]
    _, _, _, file = export("net", *X, "--min-batch", "2", "--max-batch", "200")
    assert list(graph_of(file)["range_constraints"].values()) == [{"min_val": 2, "max_val": 200}]
    _, _, _, file = export("net", "--input", "x=100x8:f32")
    assert list(graph_of(file)["range_constraints"].values()) == [{"min_val": 1, "max_val": 100}]


def test_static_fixes_every_size(export):
    status, out, _, file = export("FixesBatch", *X, "--static")
    assert status == 0 and "every size is fixed" in out
    assert graph_of(file)["range_constraints"] == {}


def test_an_example_of_batch_one_still_leaves_the_batch_free(export):
    _, _, _, file = export("net", "--input", "x=1x8:f32")
    assert loaded(file)(torch.randn(9, 8)).shape == (9, 3)


def test_takes_several_inputs_keywords_and_outputs(export):
    status, out, err, file = export(
        "TwoInputs", *X, "--input", "scale=4x1:f32", "--input", "y=4x8:f32"
    )
    assert (status, err) == (0, "")
    x, y, scale = torch.randn(3, 8), torch.randn(3, 8), torch.randn(3, 1)
    got, counts = loaded(file)(x, y, scale=scale)
    assert torch.equal(got, x * scale + y) and torch.equal(counts, (x > y).sum(1))
    assert "  output   output_1  i64 [batch]" in out.splitlines()


def test_takes_dictionaries_tuples_and_constants(export):
    status, out, err, file = export(
        "Dictionary",
        "--input",
        "batch.ids=4x5:i64<1000",
        "--input",
        "batch.dense=4x8:f32",
        "--constant",
        "times=2",
        "--input",
        "pair.0=4:f32",
        "--input",
        "pair.1=4:f32",
    )
    assert (status, err) == (0, "")
    assert (
        "  input    batch_ids  i64 [batch, 5]" in out and "  output   parts.1  f32 [batch]" in out
    )
    batch = {"ids": torch.randint(0, 1000, (2, 5)), "dense": torch.randn(2, 8)}
    pair = torch.ones(2), torch.ones(2)
    assert torch.equal(loaded(file)(batch, 2, pair)["parts"][1], torch.full((2,), 2.0))


def test_further_dimensions_can_be_free(export):
    status, out, err, file = export(
        "Lengths",
        "--input",
        "x=4x6x8:f32",
        "--input",
        "mask=4x6:f32",
        "--dynamic",
        "x:1=length:1..512",
        "--dynamic",
        "mask:1=length",
    )
    assert (status, err) == (0, "")
    assert "  input    mask  f32 [batch, length]" in out
    x, mask = torch.randn(2, 31, 8), torch.ones(2, 31)
    assert torch.equal(loaded(file)(x, mask), (x * mask.unsqueeze(2)).sum(1))


def test_an_input_may_have_no_batch_dimension(export):
    status, out, err, file = export("WithTable", *X, "--input", "table=8x3:f32", "--fixed", "table")
    assert (status, err) == (0, "")
    assert loaded(file)(torch.randn(6, 8), torch.randn(8, 3)).shape == (6, 3)


def test_takes_every_dtype(export):
    kinds = ("f32", "f64", "f16", "bf16", "i64<9", "i32<9", "i16<9", "i8<9", "u8<9", "bool")
    options = [
        part
        for name, kind in zip("abcdefghij", kinds)
        for part in ("--input", f"{name}=4x8:{kind}")
    ]
    status, out, err, _ = export("EveryType", *options)
    assert (status, err) == (0, "")
    assert [line.split()[2] for line in out.splitlines() if line.startswith("  input")] == [
        k[:-2] if "<" in k else k for k in kinds
    ]


def test_the_model_is_in_eval_mode_and_its_buffers_are_as_they_were(export):
    status, _, err, file = export("Counting", *X)
    assert (status, err) == (0, "")
    program = torch.export.load(file)
    assert program.state_dict["calls"] == 0 and program.state_dict["norm.num_batches_tracked"] == 0
    x = torch.ones(3, 8)
    assert torch.equal(program.module()(x), models.Counting().eval()(x))


def test_multi_head_attention_is_compared_without_its_fast_path(export):
    status, out, err, _ = export("Attention", "--input", "x=4x5x8:f32")
    assert (status, err) == (0, "") and "equal to the last bit" in out
    assert torch.backends.mha.get_fastpath_enabled()


def test_stack_traces_are_left_out_and_module_paths_are_kept(export):
    _, _, _, file = export("net", *X)
    metadata = [node["metadata"] for node in graph_of(file)["graph_module"]["graph"]["nodes"]]
    assert not any("stack_trace" in entry for entry in metadata)
    assert metadata[0]["nn_module_stack"].endswith("first,first,torch.nn.modules.linear.Linear")


def test_the_file_says_what_plain_torch_export_says(export, tmp_path):
    _, _, _, file = export("net", *X)
    plain = tmp_path / "plain.pt2"
    with torch.no_grad():
        program = torch.export.export(
            models.Net().eval().requires_grad_(False),
            (torch.randn(4, 8),),
            strict=False,
            dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=64)}},
        )
    torch.export.save(program, plain)
    ours, theirs = graph_of(file), graph_of(plain)
    for graph in (ours, theirs):
        for node in graph["graph_module"]["graph"]["nodes"]:
            node["metadata"] = None
    assert ours["graph_module"]["graph"] == theirs["graph_module"]["graph"]
    assert ours["graph_module"]["signature"] == theirs["graph_module"]["signature"]
    assert ours["range_constraints"] == theirs["range_constraints"]

    def weights(path):
        with zipfile.ZipFile(path) as archive:
            return {
                n.partition("/")[2]: archive.read(n)
                for n in archive.namelist()
                if "/data/weights/" in n
            }

    assert weights(file) == weights(plain)


def test_the_archive_can_be_used_from_python(tmp_path):
    report = export_module(
        models.Net(), Options([InputSpec.parse("x=2x8:f32")]), tmp_path / "net.pt2"
    )
    assert report.difference == 0 and report.archive.weight_bytes == 396
    with pytest.raises(ExportError, match="no --input"):
        export_module(models.Net(), Options([]), tmp_path / "net.pt2")


def test_help_shows_an_example():
    done = subprocess.run(
        [sys.executable, "-m", "echelon_export", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (
        done.returncode == 0
        and "echelon-export net.py:net --input x=4x128:f32 -o net.pt2" in done.stdout
    )
