"""A small language for convolutional networks and its compiler.

    report = cnndsl.check("lenet.cnn")  # report.ok, report.diagnostics, report.layers, …
    model = cnndsl.compile("lenet.cnn")  # a torch.nn.Module; raises cnndsl.CheckError
    cnndsl.train(model, (images, labels))  # or a Dataset, batches, the name of a set
    model = cnndsl.load("runs/lenet")  # the same with what it learned
    model = cnndsl.tune(model, images)  # with the kernels that are fastest on this GPU
    step = cnndsl.graph_step(model, optimizer)  # step(images, targets), on a GPU as a CUDA graph

Names are loaded when they are first used: `check` needs no torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnndsl.check import check
    from cnndsl.runtime.copies import copies
    from cnndsl.runtime.errors import CheckError, ExportError, WeightsError
    from cnndsl.runtime.graph import graph_step
    from cnndsl.runtime.load import compile_model as compile
    from cnndsl.tools.onnx import export_onnx
    from cnndsl.tools.program import export_program
    from cnndsl.train.loop import train
    from cnndsl.train.restore import load_model as load
    from cnndsl.tune.door import tune
    from cnndsl.tune.errors import TuneError

    __version__: str

__all__ = [
    "CheckError",
    "ExportError",
    "TuneError",
    "WeightsError",
    "__version__",
    "check",
    "compile",
    "copies",
    "export_onnx",
    "export_program",
    "graph_step",
    "load",
    "train",
    "tune",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    match name:
        case "check" | "train" | "tune":
            return import_module(f"cnndsl.{name}")  # the package, which can be called
        case "compile":
            return import_module("cnndsl.runtime.load").compile_model
        case "copies":
            return import_module("cnndsl.runtime.copies").copies
        case "graph_step":
            return import_module("cnndsl.runtime.graph").graph_step
        case "load":
            return import_module("cnndsl.train.restore").load_model
        case "export_onnx":
            return import_module("cnndsl.tools.onnx").export_onnx
        case "export_program":
            return import_module("cnndsl.tools.program").export_program
        case "TuneError":
            return import_module("cnndsl.tune.errors").TuneError
        case "CheckError" | "ExportError" | "WeightsError":
            return getattr(import_module("cnndsl.runtime.errors"), name)
        case "__version__":
            return _version()
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("cnndsl")
    except metadata.PackageNotFoundError:
        return "0+unknown"  # a checkout that is not installed


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
