"""What layers claim about their input, looked at: held, failed, or a need on the symbols."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cnndsl.check.bind import Bound
from cnndsl.check.conditions import Need
from cnndsl.check.evaluate import Problem, compare
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Sink
from cnndsl.layers.base import Claim, Layer
from cnndsl.layers.types import ImageType, TensorType, VectorType, is_known, is_open, show
from cnndsl.record import Record
from cnndsl.sizes.counted import counted
from cnndsl.sizes.limits import SizeError
from cnndsl.source import Span
from cnndsl.syntax import tree

if TYPE_CHECKING:
    from cnndsl.sizes.condition import Condition


class Context(Record):
    """Other places that belong to a claim's story, and what its layer cannot know."""

    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()


def examine(
    claim: Claim,
    call: tree.LayerCall | tree.Merge,
    bound: Bound,
    context: Callable[[Claim], Context],
    sink: Sink,
) -> "Need | bool":
    """True: it holds for every size; False: it fails, reported; else what it needs.

    `context` gives what a message about a claim has to say beside it.
    """
    left, right = claim.left.constant, claim.right.constant
    if left is not None and right is not None:
        if left == right or (left > right and claim.operator == ">="):
            return True
    elif claim.left == claim.right:
        return True
    span = bound.places.get(claim.argument or "", call.head)
    try:
        holds = _decided(claim, span)
    except Problem as problem:
        sink.add(problem.diagnostic)
        return False
    if holds is True or (holds is not False and holds.holds):
        return True

    def tell() -> Diagnostic:
        return _diagnostic(claim, call, bound, context(claim))

    if holds is False or holds.never:
        if sink.is_full:
            sink.count()
        else:
            sink.add(tell())
        return False
    return Need(holds, claim.left, claim.right, claim.code, span, tell)


def _decided(claim: Claim, span: Span) -> "bool | Condition":
    """Whether it holds; what a mistake above leaves open is taken to be as it has to be."""
    if not is_open(claim.left) and not is_open(claim.right):
        return compare(claim.left, claim.operator, claim.right, span)
    try:
        apart = (claim.left - claim.right).constant
    except SizeError:
        return True
    return apart is None or apart == 0 or (apart > 0 and claim.operator == ">=")


def depends(claim: Claim, failed: Sequence[Claim], last: int) -> bool:
    """Whether a claim speaks of numbers of which one that failed said already that they are wrong.

    Channels have nothing to do with height and width. `last` is the index of the channels.
    """
    for other in failed:
        if claim.argument is not None and claim.argument == other.argument:
            return True
        alike = _is_about_channels(claim, last) == _is_about_channels(other, last)
        if alike and claim.about is not None and (other.about is None or claim.argument is None):
            return True
    return False


def _is_about_channels(claim: Claim, last: int) -> bool:
    return claim.about == last or (claim.about is None and claim.argument in ("groups", "end"))


def accepted(layer: Layer, call: tree.LayerCall, x: TensorType, sink: Sink) -> bool:
    """Whether a layer reads that type of tensor at all; reports it if not."""
    if isinstance(x, layer.accepts):
        return True
    if isinstance(x, ImageType):
        from cnndsl.check.edits import insert_above  # noqa: PLC0415 (most files have no mistakes)

        fixes = (
            Fix("make it a vector first: `flatten`", (insert_above(call.span, "flatten"),)),
            Fix(
                "or average each channel first: `globalpool avg`, then `flatten`",
                (insert_above(call.span, "globalpool avg", "flatten"),),
            ),
        )
        message = f"`{layer.kind}` needs a vector, but gets an image of {show(x)}"
        sink.add(Diagnostic("E303", message, call.name.span, "", (), (), fixes))
    else:
        message = f"`{layer.kind}` needs an image, but gets a vector of {_features(x)}"
        help_ = "put it above the `flatten`, where the image still has rows and columns"
        if "flatten" not in call.span.source.text:
            help_ = "an image has three sizes, joined by `x`: `input 28 x 28 x 1`"
        fixes = (Fix(help_),)
        sink.add(Diagnostic("E302", message, call.name.span, "", (), (), fixes))
    return False


def weights_are_fixed(
    layer: Layer, call: tree.LayerCall, x: TensorType, sizes: tuple[str, ...], sink: Sink
) -> bool:
    """Weights have one size for all images: they must not depend on a symbol of the input."""
    free = {s for w in layer.weights(x) for dim in w.shape for s in dim.symbols if s in sizes}
    if not free:
        return True
    names = " and ".join(sorted(free, key=sizes.index))
    what = _features(x) if isinstance(x, VectorType) else f"an input of {show(x)}"
    fixes = [Fix(f"fix the size in `input`, or by `--set {sorted(free)[0]}=…`")]
    if isinstance(x, VectorType):
        fixes.insert(
            0, Fix("put `globalpool avg` above the `flatten`: one value a channel, for every size")
        )
        known = "say how many features there are, as in `flatten -> 400`: the sizes follow"
        fixes.append(Fix(known))
    sink.add(
        Diagnostic(
            "E309",
            f"the weights of this `{layer.kind}` would depend on {names}",
            call.head,
            f"it would have weights for {what}",
            (),
            (),
            tuple(fixes),
        )
    )
    return False


def mismatch(
    expected: tree.Shape, wanted: TensorType, got: TensorType, formula: tuple[str, ...]
) -> Diagnostic:
    """An assertion `-> SHAPE` that is not so: the output is `got`, as far as it is known."""
    fixes: tuple[Fix, ...] = ()
    if is_known(got) or type(got) is type(wanted):
        pairs = zip(got.dims, wanted.dims if type(got) is type(wanted) else got.dims, strict=True)
        text = " x ".join(str(want if is_open(dim) else dim) for dim, want in pairs)
        edit = Edit(expected.span, text)
        fixes = (Fix(f"if that is what you want: `-> {text}`", (edit,)),)
    return Diagnostic(
        "E305",
        f"this layer's output is {show(got)}, not {show(wanted)}",
        expected.span,
        f"it is {show(got)}",
        (),
        formula,
        fixes,
    )


def _diagnostic(
    claim: Claim, call: tree.LayerCall | tree.Merge, bound: Bound, context: Context
) -> Diagnostic:
    from cnndsl.check.edits import suggested  # noqa: PLC0415 (most files have no mistakes)

    span = bound.places.get(claim.argument or "", call.head)
    return Diagnostic(
        claim.code,
        claim.message,
        span,
        claim.caption,
        context.labels,
        (*claim.notes, *context.notes),
        (*context.fixes, *(suggested(s, call, bound) for s in claim.suggestions)),
    )


def _features(x: TensorType) -> str:
    return counted(x.dims[0], "feature")
