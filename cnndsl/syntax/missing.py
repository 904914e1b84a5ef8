"""Statements with something left out: a value, a name, `=`, a body (E106, E107, E111)."""

from cnndsl.diagnostics.model import Diagnostic, Edit, Fix
from cnndsl.syntax.situation import LINE_ENDS, VALUES, Situation
from cnndsl.syntax.spelling import shortened

# What must stand behind a word, and an example.
_NEEDS = {
    "ARROW": ("the shape that comes out", "-> 28 x 28 x 16"),
    "AS": ("a name for this tensor", "as features"),
    "LIKE": ("the label of the tensor to be like", "like enc4"),
    "TO": ("the size to reach", "to 7x7"),
    "FROM": ("the label of a tensor", "from features"),
    "OUTPUT": ("the label of a tensor", "output features"),
    "MODEL": ("the model's name", "model LeNet"),
    "INPUT": ("the shape of the input", "input 28 x 28 x 1"),
    "LABELS": ("the class names, in quotes", 'labels "cat" "dog"'),
    "USE": ("the path of a file, in quotes", 'use "blocks.cnn"'),
    "LET": ("a name", "let width = 64"),
    "PARAM": ("a name", "param width = 64"),
    "DEFAULT": ("the name of a layer", "default conv pad=same"),
    "REQUIRE": ("a condition", "require H >= 32"),
    "EXPECT": ("a condition", "expect params <= 5M"),
    "BLOCK": ("a name", "block residual(f) { … }"),
    "REPEAT": ("how often", "repeat 3 { … }"),
    "IF": ("a condition", "if stride > 1 { … }"),
    "ADD": ("branches in `{ }` or labels", "add { skip } { conv 64 3x3 pad=same }"),
    "CONCAT": ("branches in `{ }` or labels", "concat enc4"),
    "MULTIPLY": ("branches in `{ }` or labels", "multiply gate"),
    "X": ("a number or a name", "28 x 28 x 1"),
    "CROSS": ("a number or a name", "28 x 28 x 1"),
    "LPAR": ("a value", "(height + 1)"),
}
_OPERATORS = ("PLUS", "MINUS", "TIMES", "OVER", "MODULO", "COMPARE", "AND", "OR", "NOT")
_HEADS = ("BLOCK", "REPEAT", "IF")


def missing(at: Situation) -> Diagnostic | None:
    """Something that had to come behind the last word."""
    if not at.before:
        return None
    last = at.before[-1]
    word = at.text(last)
    if last.kind == "EQUAL" and len(at.before) > 1:
        name = at.text(at.before[-2])
        found = _incomplete(at, f"`{name}=` has no value", "")
        if at.token.kind in LINE_ENDS:
            return found.replace(span=at.span(at.before[-2]).to(found.span))
        return found
    if last.kind == "COMMA":
        return _incomplete(at, "something is missing after this comma", "")
    if last.kind == "MODULO" and (found := _percent(at)):
        return found
    if last.kind in _OPERATORS:
        return _incomplete(at, f"`{word}` needs a value on its right", "")
    if last.kind == "LPAR" and at.first == "BLOCK":
        return _incomplete(at, "`(` needs the names of parameters", "`block residual(f) { … }`")
    if last.kind in _NEEDS and not at.accepts("_NL"):
        what, example = _NEEDS[last.kind]
        return _incomplete(at, f"`{word}` needs {what}", f"for example `{example}`")
    return _missing_in_statement(at)


def _missing_in_statement(at: Situation) -> Diagnostic | None:
    """Something that this kind of statement has to have."""
    word = at.text(at.before[-1])
    if at.first in ("LET", "PARAM") and len(at.before) == 2:
        return _missing_equal(at)
    if at.first == "DEFAULT" and len(at.before) == 2:
        message = f"`default {word}` needs an argument with its name"
        return _incomplete(at, message, f"for example `default {word} pad=same`")
    if at.first in _HEADS and at.accepts("LBRACE") and at.token.kind in LINE_ENDS:
        return _missing_body(at)
    if at.last == "ELSE":
        message = "`else` needs a `{ }` or another `if`"
        return Diagnostic("E111", message, at.place, fixes=(Fix("for example `else { relu }`"),))
    return None


def _percent(at: Situation) -> Diagnostic | None:
    """`dropout 20%`."""
    if at.first != "NAME" or len(at.before) < 3 or at.before[-2].kind != "INTEGER":
        return None
    digits = at.text(at.before[-2])
    if not digits.isdigit() or len(digits) > 3:
        return None
    part = f"{int(digits) / 100:g}"
    span = at.span(at.before[-2]).to(at.span(at.before[-1]))
    fix = Fix(f"write `{part}`", (Edit(span, part),))
    return Diagnostic("E105", "a part is written as a number, not in percent", span, fixes=(fix,))


def _incomplete(at: Situation, message: str, advice: str) -> Diagnostic:
    place = at.place
    caption = ""
    if at.token.kind not in LINE_ENDS:
        caption = f"instead of {at.named}"
    fixes = (Fix(advice),) if advice else (Fix("write what is missing, or delete the rest"),)
    return Diagnostic("E106", message, place, caption=caption, fixes=fixes)


def _missing_equal(at: Situation) -> Diagnostic:
    """`let k 3` or `let k`."""
    word, name = (at.text(token) for token in at.before)
    if at.token.kind in VALUES:
        insert = Edit(at.span(at.token).before(), "= ")
        fix = Fix("put `=` between the name and its value", (insert,))
        message = f"`{word} {name}` needs `=` before its value"
        return Diagnostic("E107", message, at.span(at.token), fixes=(fix,))
    message = f"`{word} {name}` needs a value"
    return Diagnostic("E107", message, at.place, fixes=(Fix(f"for example `{word} {name} = 3`"),))


def _missing_body(at: Situation) -> Diagnostic:
    word = at.text(at.before[0])
    head = at.source.span(at.before[0].start, at.before[-1].end)
    example = f"for example `{shortened(head.text)} {{ relu }}`"
    message = f"`{word}` needs its statements in `{{ }}`"
    return Diagnostic("E111", message, head, fixes=(Fix(example),))
