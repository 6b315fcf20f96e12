"""Writes a PyTorch model as a .pt2 file that Echelon serves. The file is what torch.export.save
writes: nothing in it is ours, and a .pt2 made by plain torch.export.export and torch.export.save
serves just as well.

    from echelon_export import InputSpec, Options, export_module
    export_module(net, Options(inputs=[InputSpec.parse("x=4x128:f32")]), "net.pt2")
"""

from .errors import ExportError
from .inputs import DynamicDim, InputSpec
from .program import Options, Report, export_module

__all__ = ["DynamicDim", "ExportError", "InputSpec", "Options", "Report", "export_module"]
__version__ = "0.1.0"
