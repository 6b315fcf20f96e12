"""The one error that users see: a single line that names the thing at fault and what to do."""


class ExportError(Exception):
    """Its text is one line, printed as it is."""

    def __init__(self, text: str):
        super().__init__(" ".join(str(text).split()))


def first_line(error: BaseException, limit: int = 240) -> str:
    """What went wrong, without the pages that follow it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    if text.endswith(":") and len(lines) > 1:  # a heading: what went wrong is below it
        text = f"{text} {lines[1]}"
    if len(text) > limit:
        text = text[: limit - 3] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
