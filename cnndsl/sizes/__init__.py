"""Sizes as expressions in symbols, and conditions on them. The only room that imports islpy.

`Condition` and its errors are loaded when first used: a file without symbols never pays for isl.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnndsl.sizes.condition import Condition, TooHard, Undecidable

__all__ = ["Condition", "TooHard", "Undecidable"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("cnndsl.sizes.condition"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
