"""The gate: a family's export is trusted once a shrunken clone of its config, with weights that
matter, has agreed with eager transformers at every step, packed and chunked, and no node outside
the opaque operators mixes tokens.
"""

from __future__ import annotations

import dataclasses

import torch

from ..errors import ExportError, first_line
from .build import build as build_model
from .build import fix_rope
from .clone import LENGTH, randomise, shrink
from .mixing import error, mixing
from .operators import ATTENTION_OPTIONS, attention_op, name_gates
from .reference import Batch
from .step import Step, bind, export_config, quick_tracing, run, step

LENGTHS, STEPS = (5, 9, 3), 4  # prompts packed together, then single tokens
TOLERANCE = 1e-4  # f32, as a share of the largest logit; agreement is seen at 1e-6
LOW_TOLERANCE = 0.02  # bf16, against the same code in bf16; equal to the last bit is seen
SEEDS, DISTINCT = (7, 11, 13), 10
FIRST_WORD = 3  # ids below are padding, begin and end
MOST_PARAMETERS = 200_000_000  # of a clone, which is really run: a million is usual


@dataclasses.dataclass
class Verdict:
    reasons: list[str]
    layers: int = 0
    worst: float = 0.0
    operators: set[str] = dataclasses.field(default_factory=set)

    def line(self) -> str:
        return (
            f"clone of {self.layers} layers agrees ({self.worst:.0e}), packed {list(LENGTHS)}, "
            "by single tokens and in chunks; no token sees another's outside attention"
        )


def operators_of(program) -> set[str]:
    return {str(n.target) for n in program.graph.nodes if n.op == "call_function"}


class _Trial:
    """One clone with one set of weights: eager's logits, and the program's, step by step."""

    def __init__(self, small, program, build, seed: int):
        self.program = program
        self.real = randomise(build(small, torch.float32, "eager", "eager"), seed)
        fix_rope(self.real, LENGTH)
        self.values = bind(program, self.real)
        generator = torch.Generator().manual_seed(seed)
        self.ids = {
            s: torch.randint(FIRST_WORD, small.vocab_size, (n + STEPS,), generator=generator)
            for s, n in enumerate(LENGTHS)
        }
        self.want = {
            s: self.real(input_ids=ids[None], use_cache=False).logits[0]
            for s, ids in self.ids.items()
        }

    def shows_enough(self) -> bool:
        return len(torch.cat(list(self.want.values())).argmax(1).unique()) >= DISTINCT

    def schedules(self):
        """Steps of {sequence: its next ids}: packed prompts and then tokens, and odd chunks."""
        ids = self.ids
        prompts = {s: ids[s][:n] for s, n in enumerate(LENGTHS)}
        tokens = [
            {s: ids[s][n + i : n + i + 1] for s, n in enumerate(LENGTHS)} for i in range(STEPS)
        ]
        return [
            [prompts, *tokens],
            [{1: ids[1][:4]}, {1: ids[1][4:7], 0: ids[0][:2]}, {0: ids[0][2:]}],
        ]

    def worst(self) -> float:
        errors = []
        for parts in self.schedules():
            batch = Batch()
            for part in parts:
                for s, logits in step(self.program, self.values, batch, part).items():
                    end = batch.length[s]
                    errors.append(error(logits, self.want[s][end - len(part[s]) : end]))
        return max(errors) if all(e == e for e in errors) else float("nan")

    def rows_when_none_are_asked(self) -> list[int]:
        """No logits are asked for while a long prompt is still being read: R = 0."""
        batch, ids = Batch(), self.ids[0]
        positions = batch.begin({0: len(ids)})
        walker = torch.fx.Interpreter(self.program.graph_module)
        out = walker.run(*self.values, ids[None], positions[None], torch.arange(0))[0]
        return list(out.shape[:2])

    def low_precision(self, program, small, dtype, build) -> float:
        """The program in another dtype against the code it was traced from, packed. Not against
        f32: rounding sends tokens to other experts.
        """
        model = build(small, dtype)
        fix_rope(model, LENGTH)
        name_gates(model)
        for name, value in model.state_dict(keep_vars=True).items():
            value.data = self.real.state_dict()[name].to(value.dtype)
        ids, batch = torch.cat(list(self.ids.values()))[None], Batch()
        positions = batch.begin({s: len(i) for s, i in self.ids.items()})[None]
        want = Step(model)(ids, positions, torch.arange(ids.shape[1]))[0]
        Batch().begin(batch.spans)
        return error(run(program, bind(program, model), ids[0], positions[0]), want)


def _unseen(trial: _Trial) -> list[str]:
    """Options of attention whose loss the clone would not show."""
    nodes = [n for n in trial.program.graph.nodes if n.target is attention_op.default]
    reasons = []
    for name, (position, off) in ATTENTION_OPTIONS.items():
        kept = [n.args for n in nodes]
        for n in nodes:
            n.args = (*n.args[:position], off, *n.args[position + 1 :])
        changed = [n.args for n in nodes] != kept
        if changed and trial.worst() < 10 * TOLERANCE:
            reasons.append(f"the clone would not show a lost {name}")
        for n, args in zip(nodes, kept, strict=True):
            n.args = args
    return reasons


def _clone(config, build):
    """(config, program) of the clone; with the original's widths when toy widths do not fit."""
    try:
        small = shrink(config)
        return small, export_config(small, torch.float32, LENGTH, build)
    except Exception as first:
        try:
            small = shrink(config, geometry=False)
            if small.hidden_size > 1024:
                raise first
            return small, export_config(small, torch.float32, LENGTH, build)
        except Exception:
            raise first from None


def _trial(small, program, build) -> tuple[_Trial, list[str]]:
    for seed in SEEDS:
        trial = _Trial(small, program, build, seed)
        if trial.shows_enough():
            return trial, []
    return trial, ["the clone shows too little: eager repeats itself whatever its weights are"]


@quick_tracing()
@torch.no_grad()
def judge(config, dtype=torch.float32, build=build_model) -> Verdict:
    """Reasons to refuse a family; none means that its export may be trusted."""
    try:
        small, program = _clone(config, build)
    except ExportError as refusal:
        return Verdict([str(refusal)])
    except Exception as unexpected:
        return Verdict([f"its clone cannot be built: {first_line(unexpected)}"])
    size = sum(value.numel() for value in program.state_dict.values())
    if size > MOST_PARAMETERS:
        reason = f"its clone has {size:,} parameters: too many to run, by sizes of unknown names"
        return Verdict([reason])
    verdict = Verdict([], small.num_hidden_layers, 0.0, operators_of(program))
    attentions = sum(n.target is attention_op.default for n in program.graph.nodes)
    if not attentions:
        verdict.reasons.append("its attention does not go through transformers' interface")
    try:
        trial, verdict.reasons[len(verdict.reasons) :] = _trial(small, program, build)
        ids = torch.cat(list(trial.ids.values()))
        positions = torch.cat([torch.arange(len(i)) for i in trial.ids.values()])
        verdict.reasons += mixing(program, trial.values, ids, positions)
        verdict.worst = trial.worst()
        if not verdict.worst < TOLERANCE:
            verdict.reasons.append(f"packed steps differ from eager by {verdict.worst:.1g}")
        if trial.rows_when_none_are_asked() != [1, 0]:
            verdict.reasons.append("it makes rows of logits when none are asked for")
        if attentions:
            verdict.reasons += _unseen(trial)
        if dtype != torch.float32 and not verdict.reasons:
            _judge_low(verdict, trial, small, dtype, build)
    except Exception as unexpected:
        verdict.reasons.append(f"its clone does not run: {first_line(unexpected)}")
    return verdict


def _judge_low(verdict: Verdict, trial: _Trial, small, dtype, build):
    program = export_config(small, dtype, LENGTH, build)
    verdict.operators |= operators_of(program)
    far = trial.low_precision(program, small, dtype, build)
    if not far < LOW_TOLERANCE:
        verdict.reasons.append(f"its graph in {str(dtype)[6:]} is {far:.1g} away from its code")
