"""Sizes as expressions in symbols, and conditions on them. The only room that imports islpy.

`Condition` is loaded when first used: a file without symbols never pays for isl.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cnndsl.sizes.limits import SizeError, TooHard, TooLarge, Undecidable, UndefinedDivision

if TYPE_CHECKING:
    from cnndsl.sizes.condition import Condition

__all__ = ["Condition", "SizeError", "TooHard", "TooLarge", "Undecidable", "UndefinedDivision"]


def __getattr__(name: str) -> object:
    if name == "Condition":
        return import_module("cnndsl.sizes.condition").Condition
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
