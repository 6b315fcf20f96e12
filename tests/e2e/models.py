"""Models for the cluster, and what eager PyTorch answers to them."""

import importlib.util
import os
import shutil
import subprocess
import sys

import numpy as np
import torch
from kube import BUILD, ROOT

FOLDER = BUILD / "e2e/models"
SENTENCES = ["A man is eating a piece of bread.", "Someone is having lunch.", "The phone has a better camera."]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def net(seed):
    """The Net of examples/net; seed 0 is the one that the file itself makes."""
    module = load(ROOT / "examples/net/net.py")
    torch.manual_seed(seed)
    return module.Net().eval().requires_grad_(False)


NETS = {"v1/net.pt2": net(0), "v2/net.pt2": net(1)}  # one name, two sets of weights
EXAMPLE = "net.pt2"  # of examples/net.yaml: the first of them


def export_net(path, model):
    file = FOLDER / path
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        shapes = {"x": {0: torch.export.Dim("batch", max=64)}}
        torch.export.save(torch.export.export(model, (torch.randn(4, 128),), dynamic_shapes=shapes), file)


def net_input(rows=4):
    return np.random.default_rng(7).standard_normal((rows, 128), dtype=np.float32)


def net_answer(path, x):
    return NETS[path](torch.from_numpy(x)).numpy()


def make_nets():
    for path, model in NETS.items():
        export_net(path, model)
    export_net(EXAMPLE, NETS["v1/net.pt2"])


def make_minilm():
    """The encoder with its real weights; gives (inputs, the embeddings that eager PyTorch computes)."""
    file = FOLDER / "minilm.pt2"
    example = ROOT / "examples/minilm"
    sys.path.insert(0, str(example))
    load(example / "demo.py").export_once(file)
    minilm = load(example / "minilm.py")
    inputs = minilm.tokenize(minilm.load_tokenizer(), SENTENCES)
    with torch.no_grad():
        embedding = minilm.load_encoder()(**inputs)["embedding"]
    return {name: tensor.numpy() for name, tensor in inputs.items()}, embedding.numpy()


def make_smollm2():
    """A Hugging Face directory as its authors publish it, where the export Job, which is not root, may write."""
    folder, made = FOLDER / "smollm2", BUILD / "smollm2"
    subprocess.run(
        [sys.executable, ROOT / "examples/smollm2/convert.py", "-o", made], check=True, capture_output=True, timeout=240
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file in made.iterdir():
        if not (folder / file.name).exists():
            os.link(file, folder / file.name) if os.stat(made).st_dev == os.stat(folder).st_dev else shutil.copy(file, folder)
    folder.chmod(0o777)
    return folder
