"""Sentences in, similarities out: MiniLM, with its real weights, over several stage processes.

    python examples/minilm/demo.py [SENTENCE ...] [--stages 2] [--protocol http|grpc] [--eager]

Exports the encoder once, starts `echelon run`, asks it with Triton's own client, and compares
with eager PyTorch.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOLERANCE = 1e-5
SENTENCES = [
    "A man is eating a piece of bread.",
    "Someone is having lunch.",
    "The girl is carrying a baby.",
    "A woman holds her little child.",
    "The new phone has a better camera.",
    "Smartphone photography keeps improving.",
]
EXPORT = [
    "--input",
    "input_ids=4x16:i64<30522",
    "--input",
    "attention_mask=4x16:i64",
    "--dynamic",
    "input_ids:1=length:2..512",
    "--dynamic",
    "attention_mask:1=length",
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sentences", nargs="*", metavar="SENTENCE", help="two to 64 sentences")
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--protocol", choices=("http", "grpc"), default="http")
    parser.add_argument("--eager", action="store_true", help="only eager PyTorch, no Echelon")
    parser.add_argument(
        "--echelon",
        type=pathlib.Path,
        default=ROOT / "build" / "bin" / "echelon",
        metavar="PROGRAM",
    )
    parser.add_argument(
        "--model",
        type=pathlib.Path,
        default=ROOT / "build" / "minilm.pt2",
        metavar="FILE.pt2",
        help="where the export is kept (default build/minilm.pt2)",
    )
    parser.add_argument(
        "--timeout", type=float, default=120, metavar="SECONDS", help="to be ready in"
    )
    args = parser.parse_args()
    args.sentences = args.sentences or SENTENCES
    if not 2 <= len(args.sentences) <= 64:
        parser.error(f"{len(args.sentences)} sentences; give 2 to 64")
    return args


def export_once(model: pathlib.Path):
    """The .pt2 is made again only when the script that describes the model is newer."""
    source = HERE / "minilm.py"
    if model.exists() and model.stat().st_mtime > source.stat().st_mtime:
        return
    model.parent.mkdir(parents=True, exist_ok=True)
    print("demo: exporting MiniLM, once", flush=True)
    paths = os.pathsep.join(filter(None, [str(ROOT / "export"), os.environ.get("PYTHONPATH")]))
    command = [
        sys.executable,
        "-m",
        "echelon_export",
        f"{source}:load_encoder",
        *EXPORT,
        "-o",
        str(model),
    ]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": paths})


def wait_ready(child: subprocess.Popen, file: pathlib.Path, timeout: float) -> dict:
    """The endpoints, once the child has written them."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):  # not there yet, or not whole yet
            return json.loads(file.read_text())
        try:
            raise SystemExit(
                f"demo: echelon run ended with status {child.wait(timeout=0.05)}; its message "
                "is above"
            )
        except subprocess.TimeoutExpired:
            pass
    raise SystemExit(f"demo: echelon run was not ready within {timeout:.0f} s")


def stop(child: subprocess.Popen):
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise SystemExit("demo: echelon run did not stop within 15 s of SIGTERM") from None


@contextlib.contextmanager
def pipeline(args):
    """`echelon run` as a child on free ports; gives its endpoints."""
    if not args.echelon.exists():
        raise SystemExit(f"demo: {args.echelon} is not there; run `make build`, or use --eager")
    with tempfile.TemporaryDirectory() as folder:
        endpoints = pathlib.Path(folder) / "endpoints.json"
        command = [args.echelon, "run", args.model, "--stages", str(args.stages)]
        for kind in ("http", "grpc", "metrics"):
            command += [f"--{kind}-port", "0"]
        command += ["--name", "minilm", "--json-endpoints", endpoints]
        child = subprocess.Popen(command)
        try:
            yield wait_ready(child, endpoints, args.timeout)
        finally:
            stop(child)


def ask(endpoints: dict, protocol: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """One request, by Triton's client."""
    if protocol == "grpc":
        import tritonclient.grpc as triton

        client, limit = triton.InferenceServerClient(endpoints["grpc"]), {"client_timeout": 60}
    else:
        import tritonclient.http as triton

        client, limit = triton.InferenceServerClient(endpoints["http"], network_timeout=60), {}
    tensors = []
    for name, value in inputs.items():
        tensors.append(triton.InferInput(name, list(value.shape), "INT64"))
        tensors[-1].set_data_from_numpy(value)
    wanted = [triton.InferRequestedOutput("embedding")]
    with contextlib.closing(client):
        try:
            return client.infer("minilm", tensors, outputs=wanted, **limit).as_numpy("embedding")
        except Exception as error:
            raise SystemExit(
                f"demo: {endpoints[protocol]} did not answer: {type(error).__name__}: {error}"
            ) from error


def show(sentences: list[str], embeddings: np.ndarray):
    similarity = embeddings @ embeddings.T
    width = min(60, max(len(s) for s in sentences))
    print()
    print(" " * (width + 5) + "".join(f"{column + 1:6}" for column in range(len(sentences))))
    for row, sentence in enumerate(sentences):
        cells = "".join(f"{value:6.2f}" for value in similarity[row])
        text = sentence if len(sentence) <= width else sentence[: width - 3] + "..."
        print(f"{row + 1:3}  {text:{width}}{cells}")
    np.fill_diagonal(similarity, -2)
    left, right = divmod(int(similarity.argmax()), len(sentences))
    print(
        f"\nclosest: {sentences[left]!r} and {sentences[right]!r} ({similarity[left, right]:.2f})"
    )


def main():
    args = arguments()
    import minilm
    import torch

    batch = minilm.tokenize(minilm.load_tokenizer(), args.sentences)
    with torch.no_grad():
        expected = minilm.load_encoder()(**batch)["embedding"].numpy()
    if args.eager:
        show(args.sentences, expected)
        return 0
    export_once(args.model)
    with pipeline(args) as endpoints:
        began = time.perf_counter()
        answer = ask(
            endpoints, args.protocol, {name: value.numpy() for name, value in batch.items()}
        )
        took_ms = 1000 * (time.perf_counter() - began)
        show(args.sentences, answer)
    difference = float(np.abs(answer - expected).max())
    print(
        f"{len(args.sentences)} sentences through {args.stages} stages in {took_ms:.0f} ms; "
        f"largest difference from eager PyTorch: {difference:.1e}"
    )
    if difference > TOLERANCE:
        print(f"demo: more than {TOLERANCE:g} away from eager PyTorch", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
