"""What is allowed but rarely meant: pixels that no window sees, a deviation of one value."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cnndsl import sizes
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Sink
from cnndsl.graph.graph import Node
from cnndsl.layers.base import Layer
from cnndsl.layers.conv import Conv
from cnndsl.layers.norms import BatchNorm
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import ImageType, TensorType, is_open
from cnndsl.layers.window import AXES, Geometry
from cnndsl.record import Record
from cnndsl.sizes.counted import counted
from cnndsl.sizes.dim import Dim
from cnndsl.source import Span
from cnndsl.syntax import tree

if TYPE_CHECKING:
    from cnndsl.sizes.condition import Condition


def skipped_pixels(layer: Layer, x: TensorType, call: tree.LayerCall, sink: Sink) -> None:
    """Report pixels between the windows."""
    if not isinstance(layer, (Conv, Pool)) or not isinstance(x, ImageType):
        return
    geometry = layer.geometry
    if geometry.size.values() == (1, 1):
        return  # one pixel with a stride is the usual shortcut: it leaves pixels out on purpose
    for axis, (_, _, lines) in enumerate(AXES):
        between = 0 if is_open(x.dims[axis]) else geometry.skipped(axis, x.dims[axis])
        if between:
            extent, stride = geometry.extent[axis], geometry.stride.values()[axis]
            what = f"{counted(between, lines[:-1])} {'is' if between == 1 else 'are'}"
            reach = counted(extent, "pixel")
            sink.add(
                Diagnostic(
                    "W602",
                    f"between two windows {what} never read",
                    call.head,
                    notes=(f"the window reaches over {reach}, its stride is {stride}",),
                    fixes=(Fix(f"use a stride of at most {extent}, or a larger window"),),
                )
            )
            return


def lost_pixels(layer: Layer, x: TensorType, call: tree.LayerCall, sink: Sink) -> "Loss | None":
    """Report pixels that a pool loses; for free sizes, say how that depends on them.

    Convolutions are left out: their windows overlap, and every framework rounds down there.
    """
    if not isinstance(layer, Pool) or not isinstance(x, ImageType):
        return None
    geometry = layer.geometry
    if geometry.size.values() == (1, 1):
        return None
    free: list[tuple[int, Dim]] = []
    for axis in range(len(AXES)):
        lost = geometry.lost(axis, x.dims[axis])
        if lost is None:
            continue
        if lost.constant is None:
            free.append((axis, lost))
        elif lost.constant >= 1:
            sink.add(_certain_loss(layer, x, call, axis, lost.constant))
            return None
    return Loss(tuple(free), geometry, x, call.head) if free else None


class Loss(Record):
    """A pool that loses pixels for some sizes: of each axis how many, where that is above 0."""

    lost: tuple[tuple[int, Dim], ...]
    geometry: Geometry
    x: ImageType
    span: Span


def warn_of_losses(
    losses: Sequence[Loss],
    valid: "Condition",
    promised: "Condition",
    after_input: Span,
    sink: Sink,
) -> None:
    """One warning for all pools of a network that lose pixels for some of its valid sizes.

    What more is promised to keep them is inserted at `after_input`.
    """
    whole, first = valid, None
    others: list[Loss] = []
    for loss in losses:
        before = whole
        for _, lost in loss.lost:
            whole = whole & sizes.Condition.compare(lost, "<=", Dim.of(0))
        if before.implies(whole):
            continue
        if first is None:
            first = loss
        else:
            others.append(loss)
    if first is None:
        return
    warning = _possible_loss(first, valid, whole)
    spans = dict.fromkeys(other.span for other in others if other.span != first.span)
    labels = tuple(Label(span, "here, too") for span in spans)
    fixes = warning.fixes
    if not whole.never:  # else there is no size of which every pixel is read
        require = f"require {', '.join(whole.given(promised).requirements())}"
        message = f"promise sizes of which every pixel is read: `{require}`"
        fixes = (Fix(message, (Edit(after_input, f"\n{require}"),)), *fixes)
    sink.add(warning.replace(labels=labels, fixes=fixes))


def _possible_loss(loss: Loss, valid: "Condition", whole: "Condition") -> Diagnostic:
    """The warning at one pool, with an example from all that are not whole."""
    found = (whole | ~valid).typical_counterexample() or {}
    example = ""
    kept = sizes.Condition.always(())
    words: list[str] = []
    for axis, lost in loss.lost:
        always = sizes.Condition.compare(lost, "<=", Dim.of(0))
        if valid.implies(always):
            continue
        kept = kept & always
        most = loss.geometry.stride.values()[axis] - 1 - loss.geometry.pad.values()[axis]
        _, _, lines = AXES[axis]
        words.append(f"up to {most} {lines}" if most > 1 else lines[:-1])
        count = lost.evaluate(found)
        if count > 0 and not example:
            at = ", ".join(f"{name} = {n}" for name, n in found.items() if name in lost.symbols)
            example = f"for example, {at} leaves {_last(count, lines)} out here"
    notes = (example,) if example else ()
    what = f"the last {' or '.join(words)}"
    if (valid & kept).never:
        message = f"whatever the size is, {what} is never read"
    else:
        message = f"{what} may never be read, unless {kept.given(valid).brief()}"
    return Diagnostic(
        "W601",
        message,
        loss.span,
        notes=(*notes, *loss.geometry.formula(loss.x)),
        fixes=(
            Fix("keep them: `ceil=yes` adds a last, smaller window"),
            Fix("or leave it so: the network is valid, and does not see these pixels"),
        ),
    )


def _certain_loss(
    layer: Pool, x: ImageType, call: tree.LayerCall, axis: int, count: int
) -> Diagnostic:
    geometry = layer.geometry
    _, _, lines = AXES[axis]
    size, stride = geometry.extent[axis], geometry.stride.values()[axis]
    verb = "are" if count > 1 else "is"
    return Diagnostic(
        "W601",
        f"{_last(count, lines)} {verb} never read: {x.dims[axis].constant} {lines} do not end with "
        f"a window of {size}, stride {stride}",
        call.head,
        notes=geometry.formula(x),
        fixes=(
            Fix("to keep them: `ceil=yes`, which adds a last, smaller window"),
            Fix("or change the size of the image above"),
        ),
    )


def _last(count: int, lines: str) -> str:
    return f"the last {lines[:-1]}" if count == 1 else f"the last {count} {lines}"


def warn_of_single_values(nodes: Iterable[Node], sink: Sink) -> None:
    """One warning for all batch norms that see one pixel of each image.

    Vectors are left out: there it is usual, and such networks are trained on larger batches.
    """
    spans = dict.fromkeys(
        node.span
        for node in nodes
        if isinstance(node.layer, BatchNorm)
        and isinstance(node.arrives, ImageType)
        and node.arrives.height.constant == node.arrives.width.constant == 1
    )
    if not spans:
        return
    first, *others = spans
    sink.add(
        Diagnostic(
            "W605",
            "this image has one pixel: training with a batch of one image fails here",
            first,
            labels=tuple(Label(span, "here, too") for span in others),
            notes=("each channel has one value then, which has no deviation to divide by",),
            fixes=(
                Fix("use `groupnorm`, or no norm, on an image of one pixel"),
                Fix("or train with two images or more in each batch, the last one, too"),
            ),
        )
    )
