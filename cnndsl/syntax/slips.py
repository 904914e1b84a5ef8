"""Mistakes that the grammar can read, but nobody means: `conv 6 5 x 5`, `input HxWx3`.

Looks at one finished layer or shape; knows no layer's arguments.
"""

from cnndsl.diagnostics.model import Diagnostic
from cnndsl.syntax import tree


def in_layer(call: tree.LayerCall) -> Diagnostic | None:
    """A size that its blanks made three arguments: `5 x 5`, or two: `5 x5`."""
    arguments = call.arguments
    for before, middle, after in zip(
        arguments, arguments[1:], (*arguments[2:], None), strict=False
    ):
        if isinstance(before, tree.Like) or not isinstance(before.value, tree.Integer):
            continue
        match middle, after:
            case (
                tree.Positional(value=tree.Reference(name="x")),
                tree.Positional(value=tree.Integer()) as last,
            ):
                pass
            case tree.Positional(value=tree.Reference(name=word)) as last, _ if (
                word[0] == "x" and word[1:].isdigit()
            ):
                pass
            case _:
                continue
        from cnndsl.syntax import errors  # noqa: PLC0415 (most files have no mistakes)

        if meant := errors.near_statement(call.name.text):
            return errors.misspelt(call.name.span, meant)
        return errors.spread_size(before.value.span.to(last.span))
    return None


def in_shape(shape: tree.Shape) -> Diagnostic | None:
    """A row of dims that is one word."""
    for dim in shape.dims:
        if not isinstance(dim, tree.Reference) or not {"x", "×"} & set(dim.name):
            continue
        from cnndsl.syntax import spelling  # noqa: PLC0415 (most files have no mistakes)

        if fixed := spelling.spaced_dims(dim.name):
            return spelling.letters_in_size(dim.span, fixed)
    return None
