"""All cases, by subject."""

from case import CASES, write

from . import (  # noqa: F401
    dense,
    large,
    mutation,
    naming,
    operators,
    pipelining,
    sequence,
    shapes,
    storage,
    vision,
)

__all__ = ["select", "write"]


def select(names, big):
    unknown = set(names or ()) - set(CASES)
    if unknown:
        raise SystemExit(
            f"make_models: no case named {', '.join(sorted(unknown))}; there are {', '.join(CASES)}"
        )
    return [c for c in CASES.values() if (c.name in names if names else big or not c.large)]
