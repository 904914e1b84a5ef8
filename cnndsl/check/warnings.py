"""What is allowed but rarely meant: pixels that no window sees."""

from cnndsl.diagnostics.model import Diagnostic, Fix, Sink
from cnndsl.layers.base import Layer
from cnndsl.layers.conv import Conv
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import ImageType, TensorType
from cnndsl.layers.window import AXES
from cnndsl.syntax import tree


def warn(layer: Layer, x: TensorType, call: tree.LayerCall, sink: Sink) -> None:
    """Report lost and skipped pixels of a window on `x`."""
    if not isinstance(layer, (Conv, Pool)) or not isinstance(x, ImageType):
        return
    if layer.geometry.size.values() == (1, 1):
        return  # with a stride it is the usual shortcut: it leaves pixels out on purpose
    _skipped(layer, call, sink)
    if isinstance(layer, Pool):
        _lost(layer, x, call, sink)


def _skipped(layer: Conv | Pool, call: tree.LayerCall, sink: Sink) -> None:
    geometry = layer.geometry
    for axis, (_, _, lines) in enumerate(AXES):
        between = geometry.skipped(axis)
        if between:
            extent, stride = geometry.extent[axis], geometry.stride.values()[axis]
            what = f"{between} {lines} are" if between > 1 else f"1 {lines[:-1]} is"
            sink.add(
                Diagnostic(
                    "W602",
                    f"between two windows {what} never read",
                    call.head,
                    notes=(f"the window reaches over {extent} pixels, its stride is {stride}",),
                    fixes=(Fix(f"use a stride of at most {extent}, or a larger window"),),
                )
            )
            return


def _lost(layer: Pool, x: ImageType, call: tree.LayerCall, sink: Sink) -> None:
    """Convolutions are left out: their windows overlap, and every framework rounds down there."""
    geometry = layer.geometry
    for axis, (_, _, lines) in enumerate(AXES):
        length = x.dims[axis]
        lost = geometry.lost(axis, length)
        if lost is None or lost.constant is None or lost.constant < 1:
            continue
        count = lost.constant
        what = f"the last {lines[:-1]} is" if count == 1 else f"the last {count} {lines} are"
        size, stride = geometry.extent[axis], geometry.stride.values()[axis]
        sink.add(
            Diagnostic(
                "W601",
                f"{what} never read: {length} {lines} do not end with a window of {size}, "
                f"stride {stride}",
                call.head,
                notes=geometry.formula(x),
                fixes=(
                    Fix("to keep them: `ceil=yes`, which adds a last, smaller window"),
                    Fix("or change the size of the image above"),
                ),
            )
        )
        return
