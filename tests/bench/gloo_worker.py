"""One rank of the same MLP under torch.distributed.pipelining, told what to run on its stdin.

A line in, {"do": "pipeline" | "eager", "chunks": M, "times": N}; a line out, {"begin": [...],
"end": [...], "sum": s} in seconds of the monotonic clock, which all processes of a machine share.
"""

import argparse
import json
import os
import sys
import time


def mlp(width: int, layers: int):
    import torch
    from torch import nn

    torch.manual_seed(0)
    return (
        nn.Sequential(
            *(part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU()))
        )
        .eval()
        .requires_grad_(False)
    )


def batch_of(width: int, rows: int):
    import torch

    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1))


class Rank:
    def __init__(self, args: argparse.Namespace):
        import torch
        import torch.distributed as dist
        from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

        torch.set_num_threads(1)
        store = dist.FileStore(args.store, args.world)
        dist.init_process_group("gloo", store=store, rank=args.rank, world_size=args.world)
        self.barrier = dist.barrier
        self.is_first, self.is_last = args.rank == 0, args.rank == args.world - 1
        self.whole = mlp(args.width, args.layers)
        self.batch = batch_of(args.width, args.rows)
        nodes = 2 * args.layers // args.world
        own = self.whole[args.rank * nodes : (args.rank + 1) * nodes]
        self.schedules = {
            chunks: ScheduleGPipe(
                PipelineStage(own, args.rank, args.world, torch.device("cpu")), chunks
            )
            for chunks in args.chunks
        }

    def pipeline(self, chunks: int):
        return self.schedules[chunks].eval(*([self.batch] if self.is_first else []))

    def eager(self, chunks: int):
        import torch

        with torch.inference_mode():
            parts = torch.tensor_split(self.batch, chunks)
            return torch.cat([self.whole(part) for part in parts])

    def run(self, do: str, chunks: int, times: int) -> dict:
        begin, end, out = [], [], None
        for _ in range(times):
            if do == "pipeline":
                self.barrier()
            begin.append(time.monotonic())
            out = getattr(self, do)(chunks)
            end.append(time.monotonic())
        return {
            "begin": begin,
            "end": end,
            "sum": None if out is None else out.double().sum().item(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("rank", "world", "core", "width", "layers", "rows"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--store", required=True, help="file through which the ranks meet")
    parser.add_argument("--chunks", type=int, nargs="+", required=True)
    args = parser.parse_args()
    # Before torch is imported: its thread pool takes the core over.
    os.sched_setaffinity(0, {args.core})
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    rank = Rank(args)
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(rank.run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
