"""A small language for convolutional networks and its compiler.

    report = cnndsl.check("lenet.cnn")  # report.ok, report.diagnostics, report.layers, …
    model = cnndsl.compile("lenet.cnn")  # a torch.nn.Module; raises cnndsl.CheckError
    cnndsl.train(model, (images, labels))  # or a Dataset, batches, the name of a set

Names are loaded when they are first used: `check` needs no torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnndsl.check import check
    from cnndsl.runtime.errors import CheckError
    from cnndsl.runtime.load import compile_model as compile
    from cnndsl.train.loop import train

__all__ = ["CheckError", "check", "compile", "train"]


def __getattr__(name: str) -> object:
    from importlib import import_module

    match name:
        case "check" | "train":
            return import_module(f"cnndsl.{name}")  # the package, which can be called
        case "compile":
            return import_module("cnndsl.runtime.load").compile_model
        case "CheckError":
            return import_module("cnndsl.runtime.errors").CheckError
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
