"""Puts a tool into the steps of an emitted module: see `Tools` in cnndsl/rt/dispatch.py."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from torch import nn

# Emitted modules carry no types.
Untyped = Any


def always(*_: Untyped) -> bool:
    """Say yes."""
    return True


def never(*_: Untyped) -> bool:
    """Say no."""
    return False


@contextmanager
def using(model: nn.Module, **tools: Untyped) -> Generator[None]:
    """Let the module's steps ask these tools in the block; one without kernels asks none."""
    with using_in(cast("Untyped", type(model).forward).__globals__, **tools):
        yield


@contextmanager
def using_in(space: Mapping[str, Untyped], **tools: Untyped) -> Generator[None]:
    """Do the same for all that an emitted file defines."""
    run = space.get("runs_kernels")
    if run is None:
        yield
        return
    own = run.__globals__["tools"]  # of the file, or of what it shares with others
    kept = {name: getattr(own, name) for name in tools}
    try:
        for name, tool in tools.items():
            setattr(own, name, tool)
        yield
    finally:
        for name, tool in kept.items():
            setattr(own, name, tool)
