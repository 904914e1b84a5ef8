"""Mistakes that the grammar can read, but nobody means: `conv 6 5 x 5`, `input HxWx3`.

Looks at one finished layer or shape; knows no layer's arguments.
"""

from cnndsl.diagnostics.model import Diagnostic
from cnndsl.syntax import tree
from cnndsl.syntax.errors import misspelt, near_statement, spread_size
from cnndsl.syntax.spelling import letters_in_size, spaced_dims


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
        if meant := near_statement(call.name.text):
            return misspelt(call.name.span, meant)
        return spread_size(before.value.span.to(last.span))
    return None


def in_shape(shape: tree.Shape) -> Diagnostic | None:
    """A row of dims that is one word."""
    for dim in shape.dims:
        if isinstance(dim, tree.Reference) and (fixed := spaced_dims(dim.name)):
            return letters_in_size(dim.span, fixed)
    return None
