"""Every refusal is one line that names the thing at fault and what to do, with status 1, and leaves
no file.
"""

import pytest
from conftest import MODELS

X = ("--input", "x=4x8:f32")
OPTIONS = [
    ((), "no --input is given; say what forward takes, like --input x=4x128:f32"),
    (("--input", "x"), "--input 'x' is not NAME=SHAPE:DTYPE"),
    (("--input", "x=4x8:float"), "no dtype 'float'; use one of f32, f64"),
    (("--input", "x=4x0:f32"), "the shape '4x0' is not sizes joined by x"),
    (("--input", "x=4x8:f32<3"), "only integer inputs take a range"),
    (("--input", "x=4x8:i8<1000"), "i8 holds no values up to 999"),
    ((*X, *X), "--input x is given twice"),
    ((*X, "--dynamic", "x:1"), "--dynamic 'x:1' is not INPUT:DIM=SYMBOL:MIN..MAX"),
    ((*X, "--dynamic", "y:1=n:1..9"), "no --input is named 'y'; there are x"),
    ((*X, "--dynamic", "x:2=n:1..9"), "input x has 2 dimensions, counted from 0"),
    ((*X, "--dynamic", "x:1=n"), "the dynamic dimension n has no range"),
    ((*X, "--dynamic", "x:1=n:9..3"), "the range 9..3 is empty"),
    ((*X, "--dynamic", "x:1=n:1..5"), "size 8 of n is not within 1..5"),
    ((*X, "--fixed", "y"), "--fixed y: no --input has that name; there are x"),
    ((*X, "--max-batch", "2"), "input x: size 4 of batch is not within 1..2"),
    ((*X, "--min-batch", "64"), "--min-batch 64 is not from 1 to --max-batch 64 - 1"),
    ((*X, "--max-batch", "none"), "argument --max-batch: 'none' is not a positive number"),
    ((*X, "--constant", "n"), "--constant 'n' is not NAME=VALUE"),
    ((*X, "--input", "x.y=4x8:f32"), "is a tensor and a dictionary at once"),
    (
        (*X, "--input", "y=3x8:f32"),
        "inputs disagree about batch: x has 4 in dimension 0, y has 3 in dimension 0",
    ),
    ((*X, "--nonsense"), "unrecognized arguments: --nonsense"),
    (
        (*X, "--input", "y=4x8:f32"),
        "Net.forward has no parameter 'y' for --input y; forward takes x",
    ),
    (("--input", "x=4x9:f32"), "Net fails on the inputs described"),
]
TARGETS = [
    ("nope", "models.py has no 'nope'; it has "),
    ("number", "is int, not an nn.Module; give a file and a name in it"),
    ("make_nothing", "make_nothing() returns int, not an nn.Module"),
    ("NeedsWidth", "NeedsWidth needs arguments (width); write a function without arguments"),
    ("nofile.py:net", "there is no file nofile.py"),
    ("no_such_package.net:net", "no_such_package.net cannot be imported: ModuleNotFoundError"),
]
MODULES = [
    (
        "TwoInputs",
        X,
        "TwoInputs.forward needs 'y', and no --input gives it; forward takes x, y, scale",
    ),
    (
        "Dictionary",
        ("--input", "batch.ids=4x5:i64<2000", "--input", "batch.dense=4x8:f32"),
        "say how large the integers may be, like --input ids=4x16:i64<1000",
    ),
    ("FixesBatch", X, "the model fixes its batch dimension to 4; export it with --static"),
    (
        "FixesLength",
        (*X, "--dynamic", "x:1=length:1..512"),
        "the model fixes the dynamic dimension length to 8",
    ),
    (
        "OtherPath",
        X,
        "the model takes another path for some sizes of batch; its traced path holds for "
        "--max-batch 20",
    ),
    ("Branches", X, "the model's path depends on the values of its input at models.py:"),
    ("Random", X, "the export is not the model: output at batch 4 differs from eager by"),
    ("Counts", X, "the export is not the model"),
    ("OnMeta", X, "linear.weight is on the meta device and has no values; load the weights first"),
    ("Sparse", X, "weight is not a plain dense tensor"),
    ("Fails", X, "Fails fails on the inputs described at models.py:"),
    ("TrainsOnTwo", X, "at batch 1: ValueError: one row is too few; narrow the range (--min-batch"),
]


def refused(result, message):
    status, out, err, file = result
    assert status == 1 and out == ""
    assert err.startswith("echelon-export: ") and err.count("\n") == 1 and err.endswith("\n")
    assert message in err
    assert not file.exists()
    assert not list(file.parent.glob(".export-*"))


@pytest.mark.parametrize(
    "options, message", OPTIONS, ids=[" ".join(o) or "nothing" for o, _ in OPTIONS]
)
def test_refuses_options(export, options, message):
    refused(export("Net", *options), message)


@pytest.mark.parametrize("target, message", TARGETS, ids=[t for t, _ in TARGETS])
def test_refuses_targets(export, target, message):
    refused(export(target if ":" in target else f"{MODELS}:{target}", *X), message)


@pytest.mark.parametrize("name, options, message", MODULES, ids=[n for n, _, _ in MODULES])
def test_refuses_models(export, name, options, message):
    refused(export(name, *options), message)


def test_refuses_a_folder_that_is_no_model_directory(export, tmp_path):
    refused(export(str(tmp_path)), "config.json; give a Hugging Face model directory")
    refused(export(str(tmp_path), *X), "--input is for modules, and ")


def test_refuses_a_file_that_does_not_import(export, tmp_path):
    (tmp_path / "broken.py").write_text("import torch\n\nimport not_there\n")
    refused(
        export(f"{tmp_path / 'broken.py'}:net", *X),
        "broken.py cannot be imported (line 3): ModuleNotFoundError",
    )
    (tmp_path / "typo.py").write_text("def f(:\n")
    refused(
        export(f"{tmp_path / 'typo.py'}:net", *X),
        "typo.py cannot be imported (line 1): SyntaxError",
    )


def test_refuses_an_output_that_cannot_be_written(export):
    refused(export("net", *X, output="out.bin"), "does not end in .pt2")
    refused(export("net", *X, output="missing/out.pt2"), "missing does not exist; make it first")


def test_a_failure_leaves_the_old_file_alone(export, tmp_path):
    (tmp_path / "out.pt2").write_text("old")
    status, _, _, file = export("Random", *X)
    assert status == 1 and file.read_text() == "old"
