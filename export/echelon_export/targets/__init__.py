"""What can be exported. Each kind of target is a file of its own; the first that knows a target
loads it.
"""

from __future__ import annotations

from torch import nn

from ..errors import ExportError
from . import python

KINDS = (python,)


def load(target: str) -> nn.Module:
    for kind in KINDS:
        if kind.matches(target):
            return kind.load(target)
    raise ExportError(
        f"{target!r} is not something to export; " + " or ".join(kind.HELP for kind in KINDS)
    )
