"""Text at TinyLlama's shape, random bf16 weights, one core a stage, on one and on two stages: prefill
of a prompt in chunks of 128 tokens, decode for one user, what a token costs on the link, loading.

Variants take turns within every round; the two-stage group is measured twice, as a control. Times
are the client's own (`echelon generate`): to the first token, and between the others.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

import figures

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
    "vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-05, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
PROMPT_WORDS, DECODED, CHUNK = 511, 65, 128
HOP_AIM_BYTES = 4500
SUMMARY = re.compile(r"(\d+) prompt tokens; first token after ([\d.]+) s; (\d+) tokens, ([\d.]+) a second")
SENT = re.compile(r"^echelon_link_sent_bytes_total\S* (\S+)$", re.MULTILINE)


def write_model(folder: pathlib.Path, tokenizer: pathlib.Path) -> None:
    """Weights one layer at a time: the whole is 2.2 GB."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    c, inner, words = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["vocab_size"]
    kv = c // CONFIG["num_attention_heads"] * CONFIG["num_key_value_heads"]
    generator, index = torch.Generator().manual_seed(1), {}

    def save(file: str, shapes: dict[str, tuple[int, ...]]) -> None:
        tensors = {
            name: torch.ones(shape, dtype=torch.bfloat16)
            if len(shape) == 1
            else (torch.randn(shape, generator=generator) * shape[-1] ** -0.5).to(torch.bfloat16)
            for name, shape in shapes.items()
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index.update(dict.fromkeys(shapes, file))

    save("ends.safetensors", {"model.embed_tokens.weight": (words, c), "model.norm.weight": (c,), "lm_head.weight": (words, c)})
    for i in range(CONFIG["num_hidden_layers"]):
        p = f"model.layers.{i}."
        save(f"layer{i}.safetensors", {
            p + "self_attn.q_proj.weight": (c, c), p + "self_attn.k_proj.weight": (kv, c),
            p + "self_attn.v_proj.weight": (kv, c), p + "self_attn.o_proj.weight": (c, c),
            p + "mlp.gate_proj.weight": (inner, c), p + "mlp.up_proj.weight": (inner, c),
            p + "mlp.down_proj.weight": (c, inner), p + "input_layernorm.weight": (c,),
            p + "post_attention_layernorm.weight": (c,),
        })  # fmt: skip
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


class Served:
    def __init__(self, echelon: pathlib.Path, model: pathlib.Path, cores: str):
        self.echelon, self.stages = echelon, len(cores.split(","))
        self.folder = tempfile.TemporaryDirectory()
        endpoints = pathlib.Path(self.folder.name) / "endpoints.json"
        words = [echelon, "run", model, f"--stages={self.stages}", f"--cores={cores}", f"--chunk-tokens={CHUNK}"]
        words += ["--http-port=0", "--grpc-port=0", "--metrics-port=0", f"--json-endpoints={endpoints}"]
        started = time.monotonic()
        self.process = subprocess.Popen([str(w) for w in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not endpoints.exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
                raise RuntimeError("echelon run ended; run it by hand to see why")
            if time.monotonic() - started > 180:
                raise RuntimeError("echelon run was not ready within 180 s")
        self.ready_s = time.monotonic() - started
        self.endpoints = json.loads(endpoints.read_text())

    def resident_mib(self) -> list[float]:
        status = [pathlib.Path(f"/proc/{pid}/status").read_text() for pid in self.endpoints["pids"]]
        return [int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024 for text in status]

    def sent(self) -> list[float]:
        pages = [urllib.request.urlopen(f"http://{at}/metrics", timeout=10).read().decode() for at in self.endpoints["metrics"]]
        return [float(found[1]) if (found := SENT.search(page)) else 0.0 for page in pages]

    def head_connections(self) -> dict[str, tuple[int, int]]:
        """Of each TCP connection of rank 0, as the kernel counts: bytes and packets with data that it sent."""
        words = ["ss", "--tcp", "--info", "--numeric", "--processes", "--no-header", "--oneline"]
        lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
        mine = [line for line in lines if f"pid={self.endpoints['pids'][0]}," in line]
        counts = {" ".join(line.split()[3:5]): [re.search(rf"{name}:(\d+)", line) for name in ("bytes_sent", "data_segs_out")] for line in mine}
        return {ends: (int(sent[1]), int(packets[1])) for ends, (sent, packets) in counts.items() if sent and packets}

    def ask(self, tokens: int) -> dict[str, float]:
        words = [self.echelon, "generate", self.endpoints["grpc"], "the " * PROMPT_WORDS, "--raw", "--ignore-eos"]
        before, connections = self.sent(), self.head_connections()
        done = subprocess.run([*map(str, words), f"--max-tokens={tokens}"], capture_output=True, text=True, timeout=300)
        found = SUMMARY.search(done.stderr)
        if not found:
            raise RuntimeError(f"echelon generate: {done.stderr.strip()}")
        sent = [after - b for after, b in zip(self.sent(), before, strict=True)]
        grown = {ends: (b - connections.get(ends, (0, 0))[0], p - connections.get(ends, (0, 0))[1]) for ends, (b, p) in self.head_connections().items()}
        packets = max(grown.values(), default=(0, 0))[1] if self.stages > 1 else 0  # the link carries most
        return {
            "prompt": int(found[1]), "first_s": float(found[2]), "tokens": int(found[3]), "rate": float(found[4]),
            "sent": sent[0], "packets": packets,
        }  # fmt: skip

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.folder.cleanup()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default_build = pathlib.Path(os.environ.get("ECHELON_BUILD", ROOT / "build"))
    parser.add_argument("--build", type=pathlib.Path, default=default_build)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    tokenizer, model = args.build / "smollm2", args.build / "bench" / "tinyllama"
    subprocess.run([sys.executable, ROOT / "examples/smollm2/convert.py", "-o", tokenizer], check=True, capture_output=True)
    if not (model / "model.safetensors.index.json").exists():
        write_model(model, tokenizer)
    # Exports it, so that no group's loading counts that.
    subprocess.run([args.build / "bin/echelon", "plan", model, "--stages=1"], check=True, capture_output=True)
    rows, samples, groups = [], {}, {}
    try:
        for name, cores in (("1 stage", "0"), ("2 stages", "0,1"), ("2 stages again (control)", "0,1")):
            groups[name] = Served(args.build / "bin/echelon", model, cores)
        for round_ in range(args.rounds):
            for name, group in groups.items() if round_ % 2 == 0 else reversed(groups.items()):
                seen = samples.setdefault(name, [])
                seen.append(group.ask(DECODED))
            print(f"  text: round {round_ + 1} of {args.rounds}", file=sys.stderr, flush=True)
        for name, group in groups.items():
            seen = samples[name]
            prefill = [s["prompt"] / s["first_s"] for s in seen]
            decode = [s["rate"] for s in seen]
            rows.append({
                "variant": name, "prompt": int(seen[0]["prompt"]),
                "prefill_tokens_s": figures.median(prefill), "prefill_range": f"{min(prefill):.1f} .. {max(prefill):.1f}",
                "decode_tokens_s": figures.median(decode), "decode_range": f"{min(decode):.1f} .. {max(decode):.1f}",
                "prefill_over_1": figures.median(figures.ratios([s["first_s"] for s in samples["1 stage"]], [s["first_s"] for s in seen])),
                "decode_over_1": figures.median(figures.ratios(decode, [s["rate"] for s in samples["1 stage"]])),
                "link_bytes_a_token": figures.median([s["sent"] / (s["prompt"] + s["tokens"] - 1) for s in seen]),
                "link_packets_a_step": figures.median([s["packets"] / (math.ceil(s["prompt"] / CHUNK) + s["tokens"] - 1) for s in seen]),
                "ready_s": group.ready_s,
                "resident_mib": " + ".join(f"{mib:.0f}" for mib in group.resident_mib()),
            })  # fmt: skip
    finally:
        for group in groups.values():
            group.stop()
    print(figures.table(rows))
    two = next(row for row in rows if row["variant"] == "2 stages")
    bar = figures.Bar("link: 4,500 bytes over those of a token", 1.0, HOP_AIM_BYTES / two["link_bytes_a_token"], 0.01)
    print(figures.table([bar.row()]))
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "bars": [bar.row()], "samples": samples}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
