#!/usr/bin/env python3
"""SmolLM2 with its real weights against transformers: 20 prompts, 128 greedy tokens each, over 1, 2
and 3 stage processes, all prompts at once. Some minutes; prints a line a variant.

    compare_smollm2.py DIR [--build build] [--dtype f32]

f32 must agree to the token (exit status 1 otherwise); of bf16 the prompts that diverge are counted.
"""

import argparse
import concurrent.futures
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENS = 128
PROMPTS = [
    "What is the capital of France?", "Write a short poem about the sea.", "Explain gravity to a child.",
    "List five fruits.", "What is 17 plus 25?", "Write a Python function that reverses a string.",
    "Who wrote Hamlet?", "Translate 'good morning' into Spanish.", "Give me a recipe for pancakes.",
    "Why is the sky blue?", "Tell me a joke.", "Summarise the plot of Romeo and Juliet.",
    "What are the planets of the solar system?", "How do I learn to swim?", "Write a haiku about rain.",
    "What does HTTP stand for?", "Describe a sunset over mountains.", "Name three famous painters.",
    "How many days are there in a leap year, and why?", "Continue: Once upon a time there was a fox who",
]  # fmt: skip


def wanted(folder: pathlib.Path, dtype: str) -> list[list[int]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind).eval()
    texts = []
    for prompt in PROMPTS:
        chat = [{"role": "user", "content": prompt}]
        # With its mask: generate would make one that hides the padding token, which ends each turn of a chat here.
        given = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            out = model.generate(**given, max_new_tokens=TOKENS, do_sample=False, eos_token_id=None)
        texts.append(out[0, given["input_ids"].shape[1] :].tolist())
    return texts


@contextlib.contextmanager
def served(echelon: pathlib.Path, folder: pathlib.Path, dtype: str, stages: int):
    with tempfile.TemporaryDirectory() as temporary:
        endpoints = pathlib.Path(temporary) / "endpoints.json"
        words = [echelon, "run", folder, f"--stages={stages}", f"--dtype={dtype}", f"--json-endpoints={endpoints}"]
        words += ["--http-port=0", "--grpc-port=0", "--metrics-port=0"]
        child = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 180
            while not endpoints.exists():
                if child.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("echelon run is not ready")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.05)
            yield json.loads(endpoints.read_text())["grpc"]
        finally:
            child.terminate()
            child.wait(30)


def ask(echelon: pathlib.Path, address: str, prompt: str) -> list[int]:
    words = [echelon, "generate", address, prompt, "--json", "--ignore-eos", f"--max-tokens={TOKENS}"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=580)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return [token for line in done.stdout.splitlines() for token in json.loads(line)["token_ids"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    args = parser.parse_args()
    echelon, want, wrong = args.build / "bin/echelon", wanted(args.folder, args.dtype), 0
    for stages in (1, 2, 3):
        with served(echelon, args.folder, args.dtype, stages) as address:
            with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
                got = list(pool.map(lambda prompt: ask(echelon, address, prompt), PROMPTS))
        same = sum(a == b for a, b in zip(got, want, strict=True))
        print(f"{args.dtype}, {stages} stages: {same} of {len(PROMPTS)} prompts equal, {TOKENS} tokens each", flush=True)
        wrong += len(PROMPTS) - same
    return 1 if wrong and args.dtype == "f32" else 0


if __name__ == "__main__":
    sys.exit(main())
