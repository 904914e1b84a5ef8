"""A compiled model as a `torch.export.ExportedProgram`, with the file's symbols as its free sizes.

The program consists of PyTorch's own operators, not of fused kernels, so that any program that
reads one can run it. Knows `torch.export` and its limits; knows no file formats.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any, cast

import torch
from torch import nn
from torch.export import ExportedProgram, export
from torch.fx.experimental import _config

from cnndsl.diagnostics.safe import safe
from cnndsl.runtime.errors import ExportError
from cnndsl.runtime.scaling import takes_bytes
from cnndsl.runtime.using import never, using_in

Shapes = Mapping[int, Any]  # by axis, what torch.export calls a Dim
_patch = cast("Any", _config).patch


def export_program(model: nn.Module) -> ExportedProgram:
    """Export a model that `cnndsl.compile` or `cnndsl.load` gave, in evaluation mode, on the CPU.

    The batch and the symbols of the file stay free, within the bounds that the network needs; the
    program asserts them. The model itself stays as it is. `ExportError` where `torch.export` cannot
    keep them free: give them a value then, `cnndsl.compile(…, H=224, W=224)`.
    """
    return _export(model, has_outputs=False)


def export_with_outputs(model: nn.Module) -> tuple[ExportedProgram, tuple[str, ...]]:
    """The same for a program that also gives what the file puts out by `output`; and the labels.

    Where there are any, it gives a tuple: the result, then these tensors in the labels' order.
    """
    if not hasattr(model, "outputs"):
        return export_program(model), ()
    with _pytorchs_operators(model), torch.no_grad():
        copy = cast("Any", deepcopy(model).cpu().eval())
        labels = tuple(cast("dict[str, torch.Tensor]", copy.outputs(_example(model))))
    return _export(model, has_outputs=True), labels


def _export(model: nn.Module, *, has_outputs: bool) -> ExportedProgram:
    free = free_sizes(model)
    with _pytorchs_operators(model):
        try:
            return _exported(model, free, has_outputs=has_outputs, proves=True)
        except Exception as error:  # torch.export raises errors of many kinds, some of them sympy's
            if set(free) == {0}:
                raise _refusal(model, free, error) from error
            first = error
        try:
            # What sympy cannot prove of all sizes, as of pools with ceil=yes, the program asserts.
            return _exported(model, free, has_outputs=has_outputs, proves=False)
        except Exception as error:  # as above; all of them are told
            raise _refusal(model, free, error) from first


def _exported(
    model: nn.Module, free: Shapes, *, has_outputs: bool, proves: bool
) -> ExportedProgram:
    copy = deepcopy(model).cpu().eval()
    if has_outputs:
        result, outputs = copy.forward, cast("Any", copy).outputs

        def forward(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return result(x), *outputs(x).values()

        copy.forward = forward
    shapes = {"x": dict(free)}
    # Else each size is asserted not to be 1, which the smallest images are on their way.
    with _patch(backed_size_oblivious=True):
        return export(
            copy,
            (_example(model),),
            dynamic_shapes=shapes,
            prefer_deferred_runtime_asserts_over_guards=not proves,
        )


def _refusal(model: nn.Module, free: Shapes, error: Exception) -> ExportError:
    names = tuple(dict.fromkeys(name_of(dim) for axis, dim in free.items() if axis))
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    if not names:
        return ExportError(f"torch.export cannot express {type(model).__name__}: {safe(reason)}")
    flags = " ".join(f"--set {name}=224" for name in names)
    settings = ", ".join(f"{name}=224" for name in names)
    return ExportError(
        f"torch.export cannot keep {' and '.join(names)} free in {type(model).__name__}: "
        f"{safe(reason)}",
        f"give each a value: `{flags}`, or compile(…, {settings})",
    )


def free_sizes(model: nn.Module) -> Shapes:
    """The free axes of the model's input, with what `torch.export` calls their Dims."""
    shapes = getattr(model, "dynamic_shapes", None)
    if not callable(shapes):
        raise TypeError(f"a {type(model).__name__} was not made by cnndsl.compile or cnndsl.load")
    return cast("Callable[[], dict[str, Shapes]]", shapes)()["x"]


def name_of(dim: Any) -> str:  # noqa: ANN401 (torch.export does not type what it derives)
    """The symbol of the file that a Dim stands for; that of `16*_H` is `H`."""
    root = getattr(dim, "root", None)
    return str(dim.__name__) if root is None else str(root.__name__).removeprefix("_")


def _example(model: nn.Module) -> torch.Tensor:
    """A batch of a valid size, each symbol with another value."""
    free = free_sizes(model)
    values: dict[str, int] = {}
    for dim in free.values():
        values.setdefault(name_of(dim), _size(dim, len(values) + 2))
    shape = (None, *cast("tuple[int | None, ...]", model.input_shape))
    sizes = [
        values[name_of(free[axis])] if axis in free else cast("int", size)
        for axis, size in enumerate(shape)
    ]
    if takes_bytes(model):
        return torch.zeros(sizes, dtype=torch.uint8)
    parameter = next(model.parameters(), None)
    return torch.zeros(sizes, dtype=torch.float32 if parameter is None else parameter.dtype)


def _size(dim: Any, times: int) -> int:  # noqa: ANN401 (see `name_of`)
    """So many times the smallest, so that nothing on the way has one pixel only."""
    root = getattr(dim, "root", dim)
    if not hasattr(root, "min"):
        return 224  # Dim.AUTO
    # The largest is a number of sympy's where there is none.
    value = int(min(times * max(root.min, 1), root.max))
    return value if root is dim else int(dim.fn(value))


def _pytorchs_operators(model: nn.Module) -> AbstractContextManager[None]:
    """Run the layers as PyTorch's operators on the CPU, also where kernels are interpreted."""
    space = cast("Any", model).dynamic_shapes.__func__.__globals__
    return using_in(space, takes=never)
