"""Writes a PyTorch model as a .pt2 file that Echelon serves. The file is what torch.export.save
writes, and a .pt2 made by plain torch.export.export and torch.export.save
serves just as well.

    from echelon_export import InputSpec, Options, export_module
    export_module(net, Options(inputs=[InputSpec.parse("x=4x128:f32")]), "net.pt2")

A Hugging Face decoder is exported from its directory, without its weights, after a clone of it has
agreed with transformers: export_directory("SmolLM2-135M", "model.pt2").
"""

import importlib

from .errors import ExportError

_HOMES = {"DynamicDim": "inputs", "InputSpec": "inputs"}
_HOMES |= dict.fromkeys(("Options", "Report", "export_module"), "program")
_HOMES |= dict.fromkeys(("export_cached", "export_directory"), "text.command")
__all__ = ["ExportError", *_HOMES]
__version__ = "0.1.0"


def __getattr__(name: str):
    """Imported when asked for: torch takes seconds, and a cached export needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
