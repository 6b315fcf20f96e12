"""Finds nodes outside the opaque operators through which tokens see each other, or their place in
the batch: tokens of several users are packed there.
"""

from __future__ import annotations

import torch
from torch.fx import Interpreter

from .operators import attention_op
from .step import place, run

POISONED_TOKEN = 6


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value; NaN when there is one."""
    return ((got - want).abs().max() / want.abs().max()).item()


class Alone(Interpreter):
    """Runs a graph with attention replaced by a function of each token alone."""

    def call_function(self, target, args, kwargs):
        if target is not attention_op.default:
            return super().call_function(target, args, kwargs)
        q, groups = args[0], args[0].shape[1] // args[1].shape[1]
        k, v = (t.repeat_interleave(groups, 1) for t in args[1:3])
        return (v + q.mean(3, True) * k.mean(3, True)).transpose(1, 2).contiguous()


class Poisoned(Alone):
    """Makes NaN of whatever float first arises from the integers of one token, and notes each node
    where NaN shows in another token's rows, or that is tokens x tokens. NaN survives all float
    arithmetic, also a product with 0.
    """

    def __init__(self, module):
        super().__init__(module)
        inputs = [n.meta["val"] for n in module.graph.nodes if n.op == "placeholder"]
        self.symbols = {str(inputs[-3].shape[1]), str(inputs[-1].shape[0])}
        self.found: list[str] = []
        self.tokens = 0

    def token_dims(self, node) -> list[int]:
        shape = getattr(node.meta.get("val"), "shape", ())
        return [
            dim
            for dim, size in enumerate(shape)
            if isinstance(size, torch.SymInt)
            and self.symbols & {str(symbol) for symbol in size.node.expr.free_symbols}
        ]

    def run_node(self, node):
        out, dims = super().run_node(node), self.token_dims(node)
        if not isinstance(out, torch.Tensor) or node.op != "call_function":
            return out
        if len(dims) > 1:
            self.note(node, "is tokens x tokens")
        elif dims and out.shape[dims[0]] % self.tokens:
            self.note(node, "makes other rows of tokens")
        elif out.is_floating_point():
            out = self.spread(node, out, dims)
        return out

    def spread(self, node, out, dims):
        if "empty" in str(node.target):
            out.zero_()  # what memory held may be NaN
        if not dims:
            if out.isnan().any():
                self.note(node, "spreads one token to others")
            return out
        rows = out.movedim(dims[0], 0).unflatten(0, (self.tokens, -1)).clone()
        inputs = [n.meta["val"] for n in node.all_input_nodes if self.token_dims(n)]
        if inputs and not any(t.is_floating_point() for t in inputs):
            rows[POISONED_TOKEN] = torch.nan
            out = rows.flatten(0, 1).movedim(0, dims[0])
            out = out.clone(memory_format=torch.contiguous_format)
        rows[POISONED_TOKEN] = 0
        if rows.isnan().any():
            self.note(node, "spreads one token to others")
        return out

    def note(self, node, what: str):
        self.found.append(f"{node.target}{place(node)} {what}")

    def run(self, *args):
        self.tokens = len(args[-1])
        logits = super().run(*args)[0]
        if not logits[0, POISONED_TOKEN].isnan().all():
            self.found.append("the poisoned token does not reach its own logits")
        return [logits, self.found]


def mixing(program, values, ids, positions) -> list[str]:
    """Reasons to believe that tokens see each other outside the opaque operators."""
    together = run(program, values, ids, positions, Alone)
    alone = torch.cat(
        [
            run(program, values, ids[i : i + 1], positions[i : i + 1], Alone)
            for i in range(len(ids))
        ]
    )
    rows = torch.arange(len(ids))
    walker = Poisoned(program.graph_module)
    found = walker.run(*values, ids[None], positions[None], rows)[1]
    reasons = []
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        reasons.append(f"tokens of different users would mix: {found[0]}{more}")
    if not error(together, alone) < 1e-4:
        reasons.append(f"a token alone differs from itself packed by {error(together, alone):.1g}")
    return reasons
