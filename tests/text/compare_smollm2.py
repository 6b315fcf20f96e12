#!/usr/bin/env python3
"""SmolLM2 with its real weights against transformers: 20 prompts, 128 greedy tokens each, over 1, 2
and 3 stage processes, all prompts at once. Some minutes; prints a line a variant.

    compare_smollm2.py DIR [--build build] [--dtype f32]

f32 must agree to the token, and in the logarithms of probability of the likeliest 20 at every step
(exit status 1 otherwise). Of bf16 the prompts that diverge are counted, next to those in which
transformers' own bf16 diverges from its f32.
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
TOKENS, LIKELIEST = 128, 20
CLOSE = 2e-4  # logarithms of probability, f32: other kernels, other sums
PROMPTS = [
    "What is the capital of France?", "Write a short poem about the sea.", "Explain gravity to a child.",
    "List five fruits.", "What is 17 plus 25?", "Write a Python function that reverses a string.",
    "Who wrote Hamlet?", "Translate 'good morning' into Spanish.", "Give me a recipe for pancakes.",
    "Why is the sky blue?", "Tell me a joke.", "Summarise the plot of Romeo and Juliet.",
    "What are the planets of the solar system?", "How do I learn to swim?", "Write a haiku about rain.",
    "What does HTTP stand for?", "Describe a sunset over mountains.", "Name three famous painters.",
    "How many days are there in a leap year, and why?", "Continue: Once upon a time there was a fox who",
]  # fmt: skip


def wanted(folder: pathlib.Path, dtype: str):
    """Of each prompt: its tokens, and log_softmax [TOKENS, vocabulary] of what each was chosen from."""
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
            out = model.generate(
                **given, max_new_tokens=TOKENS, do_sample=False, eos_token_id=None, output_logits=True,
                return_dict_in_generate=True,
            )  # fmt: skip
        tokens = out.sequences[0, given["input_ids"].shape[1] :].tolist()
        texts.append((tokens, torch.cat(out.logits).float().log_softmax(-1).numpy()))
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


def ask(echelon: pathlib.Path, address: str, prompt: str):
    """Its tokens, and of each {id: logarithm of probability} of it and the likeliest."""
    words = [echelon, "generate", address, prompt, "--json", "--ignore-eos", f"--max-tokens={TOKENS}"]
    words += [f"--logprobs={LIKELIEST}"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=580)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [one for line in lines for one in line.get("logprobs", [])]
    return (
        [token for line in lines for token in line["token_ids"]],
        [{word["token_id"]: word["logprob"] for word in [one, *one["top"]]} for one in steps],
    )


def furthest(steps, want) -> float:
    """Between the logarithms of probability of one prompt, over all its steps."""
    if len(steps) != TOKENS or any(len(step) < LIKELIEST for step in steps):
        raise SystemExit(f"not each of {TOKENS} steps tells its {LIKELIEST} likeliest tokens")
    return max(abs(logprob - want[k][token]) for k, step in enumerate(steps) for token, logprob in step.items())


def count_equal(got, want) -> int:
    return sum(a[0] == b[0] for a, b in zip(got, want, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    args = parser.parse_args()
    echelon, want, wrong = args.build / "bin/echelon", wanted(args.folder, args.dtype), 0
    exact = None if args.dtype == "f32" else wanted(args.folder, "f32")
    if exact:
        print(f"transformers' bf16: {count_equal(want, exact)} of {len(PROMPTS)} as its f32", flush=True)
    for stages in (1, 2, 3):
        with served(echelon, args.folder, args.dtype, stages) as address:
            with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
                got = list(pool.map(lambda prompt: ask(echelon, address, prompt), PROMPTS))
        same = [i for i in range(len(PROMPTS)) if got[i][0] == want[i][0]]
        line = f"{args.dtype}, {stages} stages: {len(same)} of {len(PROMPTS)} prompts equal, {TOKENS} tokens each"
        if same:
            worst = max(furthest(got[i][1], want[i][1]) for i in same)
            line += f"; logarithms of probability within {worst:.1e} in those"
            wrong += not worst <= CLOSE  # nor is a NaN
        if exact:
            line += f"; {count_equal(got, exact)} as transformers' f32"
        print(line, flush=True)
        wrong += len(PROMPTS) - len(same)
    return 1 if wrong and args.dtype == "f32" else 0


if __name__ == "__main__":
    sys.exit(main())
