"""What a `.cnn` file says, statement by statement, each with its place. Knows no layers.

Expressions keep the operators as written; nothing is computed here. `Broken` stands where a
statement could not be read, so that what follows knows that something is missing.
"""

from typing import Literal

from cnndsl.record import Record
from cnndsl.source import Source, Span


class Name(Record):
    """An identifier, or a label: a dotted path such as `layer1.0.conv1`."""

    text: str
    span: Span


# ── expressions ──────────────────────────────────────────────────────────────────────────────────


class Integer(Record):
    """A whole number, its unit (`k`, `MiB`, …) multiplied in."""

    value: int
    span: Span


class Real(Record):
    """A number with a point or an exponent."""

    value: float
    span: Span


class Text(Record):
    """A string, without its quotes."""

    value: str
    span: Span


class Boolean(Record):
    """`yes` or `no`."""

    value: bool
    span: Span


class Reference(Record):
    """A name that stands for a value: a symbol, a param, `height`, or a word such as `max`."""

    name: str
    span: Span


class Unary(Record):
    """`-x` or `not x`."""

    operator: Literal["-", "not"]
    operand: "Expression"
    span: Span


class Binary(Record):
    """`left operator right`."""

    operator: Literal["+", "-", "*", "//", "%", "and", "or"]
    left: "Expression"
    right: "Expression"
    span: Span


class Comparison(Record):
    """`a < b`; a chain `a < b < c` has two operators and three operands."""

    operands: tuple["Expression", ...]
    operators: tuple[str, ...]
    span: Span


class Size(Record):
    """`HxW` with numbers, such as `5x5`."""

    height: int
    width: int
    span: Span


class Hole(Record):
    """`?`: an argument that the checker is to find."""

    span: Span


Expression = Integer | Real | Text | Boolean | Reference | Unary | Binary | Comparison | Size | Hole


class Shape(Record):
    """`28 x 28 x 1`, or one dim for a vector."""

    dims: tuple[Expression, ...]
    span: Span


# ── arguments of a layer ─────────────────────────────────────────────────────────────────────────


class Positional(Record):
    """An argument by its place."""

    value: Expression
    span: Span


class Keyword(Record):
    """`pad=same`."""

    name: Name
    value: Expression
    span: Span


class To(Record):
    """`to 7x7`."""

    value: Expression
    span: Span


class Like(Record):
    """`like enc4`."""

    label: Name
    span: Span


Argument = Positional | Keyword | To | Like


# ── statements ───────────────────────────────────────────────────────────────────────────────────


class Body(Record):
    """The statements between braces."""

    statements: tuple["Statement", ...]
    span: Span


class Model(Record):
    """`model NAME`."""

    name: Name
    span: Span


class Input(Record):
    """`input H x W x C`; with `u8` behind it, of bytes."""

    shape: Shape
    is_bytes: bool
    span: Span


class Require(Record):
    """`require COND, …`."""

    conditions: tuple[Expression, ...]
    span: Span


class Expect(Record):
    """`expect COND, …`."""

    conditions: tuple[Expression, ...]
    span: Span


class Param(Record):
    """`param NAME = EXPR`, or without a value."""

    name: Name
    value: Expression | None
    span: Span


class Let(Record):
    """`let NAME = EXPR`."""

    name: Name
    value: Expression
    span: Span


class Default(Record):
    """`default LAYER ARG=…`."""

    layer: Name
    arguments: tuple[Keyword, ...]
    span: Span


class LayerCall(Record):
    """`LAYER args [as LABEL] [-> SHAPE]`; also the use of a block. `head` ends before `as`."""

    name: Name
    arguments: tuple[Argument, ...]
    label: Name | None
    expected: Shape | None
    head: Span
    span: Span


class BlockParameter(Record):
    """A block's parameter, perhaps with a value for when it is left out."""

    name: Name
    default: Expression | None
    span: Span


class Block(Record):
    """`block NAME(p, q=1) { … }`."""

    name: Name
    parameters: tuple[BlockParameter, ...]
    body: Body
    span: Span


class Repeat(Record):
    """`repeat N [as LABEL] { … }`."""

    count: Expression
    label: Name | None
    body: Body
    head: Span
    span: Span


class If(Record):
    """`if COND { … } else { … }`; `else if` is an `If` alone in `otherwise`."""

    condition: Expression
    then: Body
    otherwise: Body | None
    span: Span


class From(Record):
    """`from LABEL`."""

    label: Name
    span: Span


class Merge(Record):
    """`add { … } { … }` or `add LABEL …`: exactly one of `branches` and `others` is filled."""

    kind: Name
    branches: tuple[Body, ...]
    others: tuple[Name, ...]
    label: Name | None
    expected: Shape | None
    head: Span
    span: Span


class Output(Record):
    """`output LABEL`."""

    label: Name
    span: Span


class Labels(Record):
    """`labels "a" "b" …`."""

    names: tuple[Text, ...]
    span: Span


class Use(Record):
    """`use "PATH"`."""

    path: Text
    span: Span


class Broken(Record):
    """A statement with a syntax error, which was reported."""

    span: Span


Statement = (
    Model
    | Input
    | Require
    | Expect
    | Param
    | Let
    | Default
    | LayerCall
    | Block
    | Repeat
    | If
    | From
    | Merge
    | Output
    | Labels
    | Use
    | Broken
)


class File(Record):
    """A whole file."""

    source: Source
    statements: tuple[Statement, ...]
