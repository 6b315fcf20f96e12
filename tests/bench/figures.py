"""Medians, spreads, and what a figure next to its control is worth.

A benchmark runs its variants in turn, round after round, and one of them twice: the two runs of the
same thing are the control, and what differs between them is noise. Ratios are taken within a round,
where both sides saw the same machine, and only then is their median.
"""

import dataclasses
import statistics
from collections.abc import Sequence


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def noise(control: Sequence[float]) -> float:
    """How far apart two runs of one thing are: the spread of their ratio, or its bias if larger."""
    first, third = quartiles(control)
    return max(third - first, abs(median(control) - 1))


@dataclasses.dataclass(frozen=True)
class Bar:
    """What was aimed at, and what was seen. Figures are ratios of which more is better."""

    what: str
    aim: float
    seen: float
    noise: float

    @property
    def verdict(self) -> str:
        """A bar that allows less than the noise is unresolved, and so is what falls within it."""
        if self.seen < self.aim - self.noise:
            return "missed"
        allowed = max(1 - self.aim, self.seen - self.aim)
        return "unresolved" if self.noise > allowed or self.seen < self.aim else "met"

    def row(self) -> dict:
        return {
            "bar": self.what,
            "aim": self.aim,
            "seen": round(self.seen, 4),
            "noise": round(self.noise, 4),
            "verdict": self.verdict,
        }


def table(rows: list[dict]) -> str:
    """Rows with the same keys as text columns; numbers to the right."""
    texts = [[_cell(value) for value in row.values()] for row in rows]
    head = [key.replace("_", " ") for key in rows[0]]
    widths = [max(len(line[i]) for line in [head, *texts]) for i in range(len(head))]
    right = [isinstance(value, (int, float)) for value in rows[0].values()]
    lines = [
        "  ".join(
            text.rjust(width) if is_number else text.ljust(width)
            for text, width, is_number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [head, *texts]
    ]
    return "\n".join(lines)


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 10 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
