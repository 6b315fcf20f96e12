"""The opaque operators computed plainly, for the gate: attention over packed sequences with what
each has cached, and experts one after the other.
"""

from __future__ import annotations

import torch
from torch import nn

from .operators import apply_gate


class Batch:
    """What a step's metadata says: whose the packed tokens are, and what each sequence has cached.

    The operator finds it in `current`, as the runtime's finds its own.
    """

    current: Batch | None = None

    def __init__(self):
        self.spans: dict[object, int] = {}
        self.length: dict[object, int] = {}
        self._cache: dict[tuple, tuple[torch.Tensor, torch.Tensor]] = {}

    def begin(self, spans: dict[object, int]) -> torch.Tensor:
        """Starts a step over {sequence: new tokens}; gives the tokens' positions."""
        Batch.current = self
        positions = [torch.arange(n) + self.length.get(s, 0) for s, n in spans.items()]
        self.spans = spans
        self.length |= {s: self.length.get(s, 0) + n for s, n in spans.items()}
        return torch.cat(positions)

    def extend(self, key, k, v):
        if key in self._cache:
            k = torch.cat([self._cache[key][0], k], 2)
            v = torch.cat([self._cache[key][1], v], 2)
        self._cache[key] = k, v
        return k, v


@torch.library.impl("echelon::attention", "CPU")
def _attention(q, k, v, sinks, alibi_slopes, layer, scale, window, softcap):
    parts, start, groups = [], 0, q.shape[1] // k.shape[1]
    for sequence, count in Batch.current.spans.items():
        here = slice(start, start + count)
        keys, values = Batch.current.extend((layer, sequence), k[:, :, here], v[:, :, here])
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
        total = keys.shape[2]
        scores = (q[:, :, here] @ keys.transpose(2, 3)).float() * scale
        if softcap:
            scores = (scores / softcap).tanh() * softcap
        distance = torch.arange(total - count, total)[:, None] - torch.arange(total)
        if alibi_slopes is not None:
            scores = scores - alibi_slopes.float()[:, None, None] * distance
        scores = scores.masked_fill((distance < 0) | (distance >= (window or total)), -torch.inf)
        if sinks is not None:
            column = sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            scores = torch.cat([scores, column], 3)
        weights = scores.softmax(3)[..., :total].to(q.dtype)
        parts.append((weights @ values).transpose(1, 2))
        start += count
    return torch.cat(parts, 1).contiguous()


@torch.library.impl("echelon::experts", "CPU")
def _experts(
    x, index, weight, gate_up, gate_up_bias, down, down_bias, transposed, activation, *gate
):
    def linear(h, matrix, bias, expert):
        h = h @ matrix[expert] if transposed else nn.functional.linear(h, matrix[expert])
        return h if bias is None else h + bias[expert]

    out = torch.zeros_like(x)
    for expert in index.unique().tolist():
        slot, token = torch.where(index.T == expert)
        h = linear(x[token], gate_up, gate_up_bias, expert)
        h = linear(apply_gate(h, activation, *gate), down, down_bias, expert)
        out.index_add_(0, token, (h * weight[token, slot, None]).to(out.dtype))
    return out
