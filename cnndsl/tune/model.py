"""From a compiled model to one that runs other kernels on the same parameters.

Layers (`nn.Conv2d`, …) are handed over as they are; around them come the emitted classes of the
other file. Knows modules; knows nothing of kernels.
"""

import torch
from torch import nn

from cnndsl.emit.module import Written
from cnndsl.runtime.load import class_of, instance


def with_kernels(model: nn.Module, written: Written) -> nn.Module:
    """The network of `written`, with the layers, hooks and settings of `model`.

    Both have the same layers under the same names. Parameters and buffers are the same objects, so
    an optimizer of the one trains the other.
    """
    class_of(written)  # its instances can be pickled
    with torch.device("meta"):
        pattern = instance(written)
    return _dressed(model, pattern)


def _dressed(old: nn.Module, pattern: nn.Module) -> nn.Module:
    if not _is_ours(old):
        return old
    new = pattern.__new__(type(pattern))
    for name, value in vars(old).items():
        # Hooks, parameters and buffers that are added to the one later are not the other's.
        vars(new)[name] = value.copy() if isinstance(value, dict | set) else value
    modules: dict[str, nn.Module | None] = {}
    for name, child in _children(old).items():
        other = _children(pattern).get(name)
        modules[name] = child if child is None or other is None else _dressed(child, other)
    vars(new)["_modules"] = modules
    return new


def _children(module: nn.Module) -> dict[str, nn.Module | None]:
    return vars(module)["_modules"]


def _is_ours(module: nn.Module) -> bool:
    """Whether it may hold emitted code: it was emitted, or is a plain container."""
    kind = type(module)
    return kind.__module__.startswith("cnndsl_emitted_") or kind in (nn.Module, nn.ModuleDict)
