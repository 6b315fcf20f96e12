"""One step over packed tokens, as a program: what is exported, and how the gate runs it."""

from __future__ import annotations

import contextlib
import gc
import operator
import traceback
from unittest import mock

import torch
from torch import nn
from torch.fx import Interpreter
from torch.utils._traceback import CapturedTraceback

from ..errors import ExportError, first_line
from .build import build, build_fake
from .reference import Batch

MAX_TOKENS, MAX_ROWS = 65536, 4096
NAMESPACES = ("aten", "prims", "echelon")
SCALARS = ("_operator", "math", "torch.sym", "torch.fx.experimental.symbolic_shapes")
WRAPPER = "model."  # Step's attribute, before every parameter's own name


class Step(nn.Module):
    """input_ids i64 [1, T], position_ids i64 [1, T], rows i64 [R] -> logits [1, R, V]."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, position_ids, rows):
        return self.model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, logits_to_keep=rows
        ).logits


@contextlib.contextmanager
def quick_tracing():
    """Halves what a trace takes: nobody reads the stack traces, and the collector walks millions
    of objects that all stay.
    """
    collecting, threads = gc.isenabled(), torch.get_num_threads()
    gc.disable()
    torch.set_num_threads(1)  # a clone's tensors are tiny: more threads only wait for each other
    try:
        with mock.patch.object(CapturedTraceback, "summary", lambda _: traceback.StackSummary()):
            yield
    finally:
        torch.set_num_threads(threads)
        if collecting:
            gc.enable()


@torch.no_grad()  # also keeps wrap_with_set_grad_enabled subgraphs out of the graph
def export_model(model, mode) -> torch.export.ExportedProgram:
    """Traces a fake model with free numbers of tokens and rows."""
    with mode:
        example = (
            torch.zeros(1, 7, dtype=torch.long),
            torch.arange(7)[None],
            torch.zeros(3, dtype=torch.long),
        )
    tokens = torch.export.Dim("tokens", min=1, max=MAX_TOKENS)
    rows = torch.export.Dim("rows", min=0, max=MAX_ROWS)
    try:
        program = torch.export.export(
            Step(model),
            example,
            strict=False,
            dynamic_shapes=({1: tokens}, {1: tokens}, {0: rows}),
        )
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} does not export: {first_line(error)}"
        ) from error
    refuse_unknown(program)
    return program


def export_config(config, dtype, max_model_len: int, build=build):
    model, mode = build_fake(config, dtype, max_model_len, build)
    return export_model(model, mode)


def place(node) -> str:
    """ at model.layers.0.conv, when the node says so."""
    paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return f" at {paths[-1].removeprefix(WRAPPER)}" if paths else ""


def refuse_unknown(program: torch.export.ExportedProgram):
    """Operators that the runtime cannot find by name."""
    for node in program.graph.nodes:
        if node.op == "get_attr":
            raise ExportError(f"the graph holds a subgraph {node.target}{place(node)}")
        if node.op != "call_function":
            continue
        target = node.target
        if isinstance(target, torch._ops.OpOverload):
            known = target.namespace in NAMESPACES
        else:
            module = getattr(target, "__module__", None) or ""
            known = target in vars(operator).values() or module.startswith(SCALARS)
        if not known:
            raise ExportError(
                f"the operator {target}{place(node)} is not one that echelon runs; it runs "
                "ATen's and its own"
            )


def bind(program, model) -> list[torch.Tensor]:
    """The graph's leading inputs: weights by name from a model, constants from the program."""
    state = {WRAPPER + name: value for name, value in model.state_dict().items()}
    specs = program.graph_signature.input_specs
    return [
        state[s.target] if s.target in state else program.constants[s.target]
        for s in specs
        if s.kind.name != "USER_INPUT"
    ]


def run(program, values, ids, positions, walker=Interpreter) -> torch.Tensor:
    """Logits of every token. ids [T], positions [T] -> [T, V]"""
    rows = torch.arange(len(ids))
    return walker(program.graph_module).run(*values, ids[None], positions[None], rows)[0][0]


def step(program, values, batch: Batch, chunks: dict) -> dict:
    """One packed step over {sequence: new token ids}; gives {sequence: logits}."""
    positions = batch.begin({s: len(ids) for s, ids in chunks.items()})
    logits = run(program, values, torch.cat(list(chunks.values())), positions)
    return dict(zip(chunks, logits.split(list(batch.spans.values())), strict=True))
