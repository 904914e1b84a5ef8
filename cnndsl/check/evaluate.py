"""Expressions of the language computed: numbers, sizes, conditions. Reports what cannot be.

A comparison of numbers gives a bool; one that depends on symbols gives a `Condition`.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, cast

from cnndsl import sizes
from cnndsl.check.scope import Scope
from cnndsl.check.suggest import nearest
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Sink
from cnndsl.layers.arguments import Labelled, Pair, Value
from cnndsl.sizes.dim import Dim
from cnndsl.source import Span
from cnndsl.syntax import tree

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from cnndsl.sizes.condition import Condition
    from cnndsl.sizes.limits import SizeError

Operator = Literal["==", "!=", "<=", ">=", "<", ">"]


class Problem(Exception):
    """Stops the evaluation of one expression; the diagnostic says why."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        """Carry what the user is to read."""
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


class _Mistaken(Exception):
    """Stops the evaluation where a name has no value because of a mistake reported before."""


class Evaluator:
    """Computes expressions with the names that are known at one place."""

    def __init__(self, names: Mapping[str, Value], sink: Sink) -> None:
        """`names` may change while it is used; problems go to `sink`."""
        self._names = names
        self._sink = sink

    def knows(self, name: str) -> bool:
        """Whether a name has a value here."""
        return name in self._names

    def value(self, expression: tree.Expression) -> "Value | Condition | None":
        """Its value; None where it has none, which has been reported."""
        try:
            return self._evaluate(expression)
        except Problem as problem:
            self._sink.add(problem.diagnostic)
        except sizes.SizeError as error:
            self._sink.add(size_problem(error, expression.span))
        except _Mistaken:
            pass
        return None

    def condition(self, expression: tree.Expression) -> "bool | Condition | None":
        """Its truth; None where it has none, which has been reported."""
        value = self.value(expression)
        if value is None or isinstance(value, bool) or is_condition(value):
            return value
        self._sink.add(
            Diagnostic(
                "E206",
                "a condition is to stand here, such as `H >= 32`",
                expression.span,
                f"this is {describe(value)}",
            )
        )
        return None

    def _evaluate(self, expression: tree.Expression) -> "Value | Condition":
        match expression:
            case tree.Integer(value):
                return Dim.of(value)
            case tree.Real(value) | tree.Text(value) | tree.Boolean(value):
                return value
            case tree.Size(height, width):
                return Pair(height, width)
            case tree.Reference(name, span):
                return self._look_up(name, span)
            case tree.Unary(operator, operand):
                return self._unary(operator, operand)
            case tree.Binary(operator, left, right, span):
                return self._binary(operator, left, right, span)
            case tree.Comparison(operands, operators):
                return self._comparison(operands, operators)
            case tree.Hole(span):
                raise Problem(
                    Diagnostic(
                        "E212",
                        "a hole `?` stands for an argument of a layer, not for a number elsewhere",
                        span,
                        fixes=(Fix("write the value"),),
                    )
                )

    def _look_up(self, name: str, span: Span) -> Value:
        if name in self._names:
            return self._names[name]
        if isinstance(self._names, Scope) and self._names.is_mistaken(name):
            raise _Mistaken
        near = None if self._sink.is_full else nearest(name, self._names)
        fixes = [Fix(f"did you mean `{near}`?", (Edit(span, near),))] if near else []
        fixes.append(Fix(f"give it a value above: `let {name} = …` or `param {name} = …`"))
        raise Problem(
            Diagnostic("E211", f"nothing is called `{name}` here", span, fixes=tuple(fixes))
        )

    def _number(self, expression: tree.Expression) -> Dim:
        value = self._evaluate(expression)
        if isinstance(value, Dim):
            return value
        raise Problem(
            Diagnostic(
                "E206",
                "a whole number is to stand here",
                expression.span,
                f"this is {describe(value)}",
            )
        )

    def _truth(self, expression: tree.Expression) -> "bool | Condition":
        value = self._evaluate(expression)
        if isinstance(value, bool) or is_condition(value):
            return value
        raise Problem(
            Diagnostic(
                "E206",
                "a condition is to stand here, such as `H >= 32`",
                expression.span,
                f"this is {describe(value)}",
            )
        )

    def _unary(self, operator: str, operand: tree.Expression) -> "Value | Condition":
        if operator == "-":
            value = self._evaluate(operand)
            return -value if isinstance(value, float) else Dim.of(0) - self._number(operand)
        truth = self._truth(operand)
        return not truth if isinstance(truth, bool) else ~truth

    def _binary(
        self, operator: str, left: tree.Expression, right: tree.Expression, span: Span
    ) -> "Value | Condition":
        if operator in ("and", "or"):
            return _join(operator, self._truth(left), self._truth(right))
        a, b = self._number(left), self._number(right)
        match operator:
            case "+":
                return a + b
            case "-":
                return a - b
            case "*":
                return a * b
            case _:
                return self._divide(operator, a, b, right, span)

    def _divide(self, operator: str, a: Dim, b: Dim, right: tree.Expression, span: Span) -> Dim:
        if b.constant is not None and b.constant > 0:
            return a // b.constant if operator == "//" else a % b.constant
        if b.constant is not None:
            message = f"`{operator}` needs a positive number on its right, not {b.constant}"
            raise Problem(Diagnostic("E207", message, right.span))
        message = f"`{operator}` by a size that is not known ({b.pretty()}) cannot be decided"
        raise Problem(
            Diagnostic(
                "E404",
                message,
                span,
                fixes=(Fix("divide by a number, or by a `param` with a value"),),
            )
        )

    def _comparison(
        self, operands: tuple[tree.Expression, ...], operators: tuple[str, ...]
    ) -> "bool | Condition":
        joined: bool | Condition = True
        for i, operator in enumerate(operators):
            left, right = self._number(operands[i]), self._number(operands[i + 1])
            one = compare(left, cast("Operator", operator), right, operands[i].span)
            joined = _join("and", joined, one)
        return joined


def compare(left: Dim, operator: Operator, right: Dim, span: Span) -> "bool | Condition":
    """Whether it holds, or for which symbols; `Problem` at `span` where that cannot be decided."""
    a, b = left.constant, right.constant
    if a is not None and b is not None:
        match operator:
            case "==":
                return a == b
            case "!=":
                return a != b
            case "<=":
                return a <= b
            case ">=":
                return a >= b
            case "<":
                return a < b
            case ">":
                return a > b
    if left == right:
        return operator in ("==", "<=", ">=")
    try:
        if operator == ">=" and _always_at_least(left - right, 0):
            return True
        return _compared(left, operator, right)
    except sizes.SizeError as error:
        raise Problem(size_problem(error, span)) from error


def _always_at_least(size: Dim, bound: int) -> bool:
    """The usual case, settled without isl: even the smallest image is large enough."""
    least = size.least()
    return least is not None and least >= bound


@lru_cache(maxsize=1024)
def _compared(left: Dim, operator: Operator, right: Dim) -> "Condition":
    """Thousands of layers ask the same few questions; isl answers each once."""
    return sizes.Condition.compare(left, operator, right)


def size_problem(error: "SizeError", span: Span) -> Diagnostic:
    """What the mathematics of sizes could not do, as a message at `span`."""
    numbers = Fix("give one of the sizes a number: in `input`, by `param NAME = …`, or `--set`")
    match error:
        case sizes.Undecidable():
            message = "this cannot be decided for all sizes: free sizes are multiplied"
            return Diagnostic("E404", message, span, notes=(str(error),), fixes=(numbers,))
        case sizes.UndefinedDivision():
            message = "a size is divided by what is no positive number"
            return Diagnostic("E207", message, span, notes=(str(error),))
        case sizes.TooHard():
            message = "deciding this for all sizes takes too many steps"
            return Diagnostic("E504", message, span, notes=(str(error),), fixes=(numbers,))
        case _:
            message = "the formula of this size outgrows what the checker handles"
            return Diagnostic("E503", message, span, notes=(str(error),), fixes=(numbers,))


def describe(value: object) -> str:
    """A value in words, for messages."""
    match value:
        case Dim():
            return f"the number {value.pretty()}"
        case bool():
            return "`yes`" if value else "`no`"
        case float():
            return f"the number {value:g}"
        case Pair():
            return f"the size {value}"
        case str():
            return f'the text "{value}"'
        case _:
            return "a condition"


def names_in(expression: tree.Expression) -> tuple[str, ...]:
    """The names that an expression uses, each once, in order."""
    match expression:
        case tree.Reference(name):
            found = (name,)
        case tree.Unary(_, operand):
            found = names_in(operand)
        case tree.Binary(_, left, right):
            found = names_in(left) + names_in(right)
        case tree.Comparison(operands):
            found = tuple(name for operand in operands for name in names_in(operand))
        case _:
            found = ()
    return tuple(dict.fromkeys(found))


def _join(operator: str, a: "bool | Condition", b: "bool | Condition") -> "bool | Condition":
    if isinstance(a, bool):
        decided = a if operator == "or" else not a
        return a if decided else b
    if isinstance(b, bool):
        return _join(operator, b, a)
    return a & b if operator == "and" else a | b


def is_condition(value: "Value | Condition | None") -> "TypeIs[Condition]":
    """Whether it is a condition on symbols, and no plain value."""
    plain = (Dim, float, bool, str, Pair, Labelled)
    return value is not None and not isinstance(value, plain)
