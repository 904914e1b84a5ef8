"""What a syntax error is called: from where the parser stopped to words a user knows (E1xx).

Knows the statements of the language and what people write in their stead. It asks in turn: is the
word itself none; is a bracket without its partner; is something missing behind the last word; is
there something that another language would have here.
"""

from itertools import pairwise

from cnndsl.diagnostics.model import Diagnostic, Edit, Fix
from cnndsl.source import Source, Span
from cnndsl.syntax import spelling
from cnndsl.syntax.lex import Token, lexicon
from cnndsl.syntax.missing import missing
from cnndsl.syntax.situation import LINE_ENDS, VALUES, Situation


def mistake(at: Situation) -> Diagnostic:
    """The diagnostic for one place."""
    for look in (
        _word,
        _bracket,
        _equals,
        _other_habit,
        missing,
        _shape,
        _order,
        _misspelt,
        _braces,
    ):
        if found := look(at):
            return found
    return _does_not_fit(at)


def unclosed_brace(source: Source, opener: Token, place: int) -> Diagnostic:
    """A `{` without its `}`, which belongs at `place`."""
    span = source.span(opener.start, opener.end)
    before = source.text[:place]
    text = "}\n" if before.endswith("\n") or not before else "\n}\n"
    return Diagnostic(
        "E103",
        "this `{` is never closed",
        span,
        fixes=(Fix("close it with `}`", (Edit(source.span(place, place), text),)),),
    )


# ── words and brackets ───────────────────────────────────────────────────────────────────────────


def _word(at: Situation) -> Diagnostic | None:
    match at.token.kind:
        case "BAD_CHARACTER":
            return spelling.bad_character(at.source, at.token)
        case "BAD_STRING":
            return spelling.open_string(at.source, at.token)
        case "BAD_NUMBER":
            return spelling.bad_number(at.source, at.token)
        case "LONG_NUMBER":
            return spelling.long_number(at.source, at.token)
        case _:
            return None


def _bracket(at: Situation) -> Diagnostic | None:
    span = at.span(at.token)
    match at.token.kind:
        case "UNCLOSED":
            end = at.after[-1].end if at.after else at.token.end
            close = Edit(at.source.span(end, end), ")")
            fix = Fix("close it with `)`", (close,))
            return Diagnostic("E103", "this `(` is never closed", span, fixes=(fix,))
        case "STRAY_PAREN" | "STRAY_BRACE":
            fix = Fix("delete it", (Edit(span, ""),))
            message = f"this `{span.text}` closes nothing"
            return Diagnostic("E104", message, span, fixes=(fix,))
        case _:
            return None


# ── what other languages have here ───────────────────────────────────────────────────────────────


def _other_habit(at: Situation) -> Diagnostic | None:
    span = at.span(at.token)
    match at.token.kind:
        case "OVER" if not at.before or at.last in ("NAME", "SIZE", "SHAPE", "STRING"):
            fix = Fix("write `#`", (Edit(span, "#"),))
            return Diagnostic("E112", "a comment starts with `#` here", span, fixes=(fix,))
        case "COMPARE" if at.text(at.token) == "==" and at.accepts("EQUAL"):
            fix = Fix("write `=`", (Edit(span, "="),))
            message = "`==` compares; to give a value, write `=`"
            return Diagnostic("E107", message, span, fixes=(fix,))
        case "TIMES" if at.last == "TIMES":
            power = at.span(at.before[-1]).to(span)
            fix = Fix("write the number, or multiply")
            return Diagnostic("E108", "there are no powers, `**`", power, fixes=(fix,))
        case "NAME" | "PATH" if at.first in ("LABELS", "USE"):
            return _without_quotes(at)
        case "NAME" | "INTEGER" if at.first in ("REQUIRE", "EXPECT") and at.accepts("COMMA"):
            fix = Fix("put a comma between them", (Edit(at.span(at.before[-1]).after(), ","),))
            message = "conditions are separated by commas"
            return Diagnostic("E114", message, span, fixes=(fix,))
        case "NAME" if at.first == "BLOCK" and at.accepts("COMMA"):
            fix = Fix("put a comma between them", (Edit(at.span(at.before[-1]).after(), ","),))
            message = "the parameters of a block are separated by commas"
            return Diagnostic("E114", message, span, fixes=(fix,))
        case "COMMA" if at.first in ("NAME", "DEFAULT", "LABELS", "INPUT", *_MERGES):
            return _misspelt(at) or _comma(at)
        case "MINUS" if at.first == "NAME":
            return _leading_minus(at)
        case _:
            return None


_MERGES = ("ADD", "CONCAT", "MULTIPLY")


def _equals(at: Situation) -> Diagnostic | None:
    """An `=` where none can stand."""
    if at.token.kind != "EQUAL":
        return None
    span = at.span(at.token)
    if at.first in ("REQUIRE", "EXPECT", "IF"):
        fix = Fix("write `==`", (Edit(span, "=="),))
        message = "`=` gives a value; to compare two, write `==`"
        return Diagnostic("E107", message, span, fixes=(fix,))
    if len(at.before) == 1 and at.first in ("INPUT", "MODEL", "LABELS", "USE"):
        word = at.text(at.before[0])
        fix = Fix("delete it", (Edit(at.source.span(at.before[0].end, at.token.end), ""),))
        return Diagnostic("E107", f"behind `{word}` stands no `=`", span, fixes=(fix,))
    if at.first == "NAME" and len(at.before) == 1:
        fix = Fix("write `let` in front", (Edit(at.span(at.before[0]).before(), "let "),))
        message = f"a name gets its value by `let {at.text(at.before[0])} = …`"
        return Diagnostic("E107", message, at.span(at.before[0]).to(span), fixes=(fix,))
    if at.first == "NAME":
        fix = Fix("give the argument its name, as in `pad=1`")
        message = "the name of an argument stands in front of `=`"
        return Diagnostic("E107", message, span, fixes=(fix,))
    return None


# Layers that people write behind a comma: `conv 8 3x3, relu`.
_LAYERS = frozenset(
    {"batchnorm", "dropout", "flatten", "gelu", "globalpool", "pool", "relu", "relu6", "sigmoid"}
    | {"silu", "softmax", "tanh"}
)


def _comma(at: Situation) -> Diagnostic:
    """Commas between arguments; all of the statement go at once."""
    if size := _size_in_brackets(at):
        return size
    commas = [at.token, *(t for t in at.after if t.kind == "COMMA")]
    if at.in_shape:
        edits = tuple(Edit(at.span(t), " x") for t in commas)
        fix = Fix("write `x`", edits)
        message = "the sides of a shape are joined by `x`: `28 x 28 x 1`"
        return Diagnostic("E109", message, at.span(at.token), fixes=(fix,))
    message = "arguments stand side by side, without commas"
    following = {t.start: n for t, n in pairwise((at.token, *at.after))}
    behind = [at.text(n) if (n := following.get(t.start)) else "" for t in commas]
    edits = tuple(
        Edit(at.span(t), ";" if word in _LAYERS else "")
        for t, word in zip(commas, behind, strict=True)
    )
    fix = Fix("delete the comma", edits)
    if any(word in _LAYERS for word in behind):
        message = "a layer stands on its own line, or behind a `;`"
        fix = Fix("write `;` before each layer", edits)
    return Diagnostic("E114", message, at.span(at.token), fixes=(fix,))


def _size_in_brackets(at: Situation) -> Diagnostic | None:
    """`conv 6 (5, 5)`."""
    kinds = [t.kind for t in (*at.before[-2:], at.token, *at.after[:2])]
    if kinds != ["LPAR", "INTEGER", "COMMA", "INTEGER", "RPAR"]:
        return None
    span = at.span(at.before[-2]).to(at.span(at.after[1]))
    size = f"{at.text(at.before[-1])}x{at.text(at.after[0])}"
    fix = Fix(f"write `{size}`", (Edit(span, size),))
    return Diagnostic("E109", "a size has an `x` and no brackets", span, fixes=(fix,))


def _without_quotes(at: Situation) -> Diagnostic:
    """`labels cat dog`: every word gets its quotes."""
    bare = [t for t in (at.token, *at.after) if t.kind in ("NAME", "PATH")]
    edits = tuple(Edit(at.span(t), f'"{at.text(t)}"') for t in bare)
    message = f"`{at.text(at.before[0])}` takes texts in double quotes"
    return Diagnostic("E106", message, at.span(at.token), fixes=(Fix("write quotes", edits),))


def _leading_minus(at: Situation) -> Diagnostic | None:
    if not at.after or at.after[0].kind not in ("INTEGER", "REAL", "NAME"):
        return None
    span = at.source.span(at.token.start, at.after[0].end)
    fix = Fix(f"write `({span.text})`", (Edit(span, f"({span.text})"),))
    message = "an argument that starts with a minus needs parentheses"
    return Diagnostic("E108", message, span, fixes=(fix,))


# ── shapes, order, names, braces ─────────────────────────────────────────────────────────────────


def _shape(at: Situation) -> Diagnostic | None:
    """A shape with its `x` missing, glued to a number, or in the place of a size."""
    token = at.token
    word = at.text(token)
    if at.in_shape and at.before and at.last in ("INTEGER", "NAME", "SIZE", "SHAPE", "RPAR"):
        rest = [t for t in (token, *at.after) if t.kind != "U8"]
        if len(rest) == 1 and token.kind == "NAME" and (found := _behind_input(at)):
            return found
        if token.kind in ("INTEGER", "NAME", "SIZE") and all(t.kind in VALUES for t in rest):
            glued = [t for t in rest if at.text(t).startswith("x") and at.text(t)[1:].isdigit()]
            edits = tuple(
                Edit(at.source.span(t.start, t.start + 1), "x ")
                if t in glued
                else Edit(at.span(t).before(), "x ")
                for t in rest
            )
            message = "the sides of a shape are joined by `x`, with blanks around it"
            fix = Fix("write `x` between them", edits)
            return Diagnostic("E109", message, at.span(token), fixes=(fix,))
    if token.kind == "SHAPE" and at.first == "NAME":
        parts = word.replace("×", "x").split("x")
        size = "x".join(parts[:2])
        fix = Fix(f"write `{size}`", (Edit(at.span(token), size),))
        message = f"`{spelling.shortened(word)}` is a shape; an argument takes a size of two sides"
        notes = ("a filter is as deep as its input has channels, so its depth is never written",)
        return Diagnostic("E109", message, at.span(token), notes=notes, fixes=(fix,))
    if token.kind == "CROSS" and at.last == "INTEGER" and at.after:
        return spread_size(at.span(at.before[-1]).to(at.span(at.after[0])))
    return None


def _behind_input(at: Situation) -> Diagnostic | None:
    """A word behind a shape that is whole: `input 28 x 28 x 1 uint8`."""
    sides = [at.text(t).replace("×", "x") for t in at.before if t.kind in ("X", "CROSS", "SHAPE")]
    if at.first != "INPUT" or sum(side.count("x") for side in sides) != 2:
        return None
    span = at.span(at.token)
    fix = Fix("delete it", (Edit(at.source.span(at.before[-1].end, at.token.end), ""),))
    if span.text.lower() in _BYTES:
        fix = Fix("write `u8`", (Edit(span, "u8"),))
    word = spelling.shortened(span.text)
    return Diagnostic(
        "E108",
        f"behind the shape of an input stands `u8` or nothing, not `{word}`",
        span,
        notes=("images come as floats; with `u8` as bytes, 0 to 255",),
        fixes=(fix,),
    )


_BYTES = ("u8", "uint8", "ubyte", "byte", "bytes", "int8")


def spread_size(span: Span) -> Diagnostic:
    """`5 x 5` where a size is meant."""
    size = "".join(span.text.replace("×", "x").split())
    return Diagnostic(
        "E109",
        "a size is written without blanks",
        span,
        notes=("with blanks around the `x` these are three arguments",),
        fixes=(Fix(f"write `{size}`", (Edit(span, size),)),),
    )


def _order(at: Situation) -> Diagnostic | None:
    """The parts of a layer in another order than: arguments, `as`, `->`."""
    if at.token.kind == "AS" and not at.before and at.head and at.after:
        return _late_label(at)
    if at.first not in ("NAME", *_MERGES):
        return None
    kinds = [t.kind for t in at.before]
    if at.token.kind == "AS" and "ARROW" in kinds and at.after:
        arrow = at.before[kinds.index("ARROW")]
        label = at.source.span(at.token.start, at.after[0].end)
        edits = (
            Edit(at.source.span(arrow.start, arrow.start), f"{label.text} "),
            Edit(at.source.span(at.before[-1].end, label.end), ""),
        )
        fix = Fix(f"move `{label.text}` in front of `->`", edits)
        return Diagnostic("E110", "`as` comes before `->`", label, fixes=(fix,))
    if "AS" in kinds and "ARROW" not in kinds and at.token.kind in (*VALUES, "TO", "LIKE"):
        label = at.before[kinds.index("AS") :]
        stop = next((i for i, t in enumerate(at.after) if t.kind == "ARROW"), len(at.after))
        end = at.after[stop - 1].end if stop else at.token.end
        text = at.source.text[label[0].start : label[-1].end]
        edits = (
            Edit(at.source.span(label[0].start, at.token.start), ""),
            Edit(at.source.span(end, end), f" {text}"),
        )
        fix = Fix(f"move `{text}` behind the arguments", edits)
        return Diagnostic(
            "E110", "arguments come before `as`", at.source.span(at.token.start, end), fixes=(fix,)
        )
    return None


def _late_label(at: Situation) -> Diagnostic | None:
    """`repeat 5 { … } as L`: the label stands in front of the `{`."""
    word = at.text(at.head[0])
    label = at.source.span(at.token.start, at.after[0].end)
    if at.head[0].kind != "REPEAT":
        message = f"a label names a layer, a merge or a `repeat`, not this `{word}`"
        return Diagnostic("E110", message, label, fixes=(Fix("label the layer that ends it"),))
    before = at.source.text[: at.token.start].rstrip()
    edits = (
        Edit(at.span(at.head[-1]).before(), f"{label.text} "),
        Edit(at.source.span(len(before), label.end), ""),
    )
    fix = Fix(f"move `{label.text}` in front of `{{`", edits)
    return Diagnostic(
        "E110", "the label of a `repeat` stands in front of its `{`", label, fixes=(fix,)
    )


def _misspelt(at: Situation) -> Diagnostic | None:
    """A statement whose first word is nearly one: `blok f(p) {`."""
    if at.first != "NAME":
        return None
    first = at.before[0]
    meant = near_statement(at.text(first))
    return misspelt(at.span(first), meant) if meant else None


def misspelt(span: Span, meant: str) -> Diagnostic:
    """A word that should be `meant`."""
    fix = Fix(f"did you mean `{meant}`?", (Edit(span, meant),))
    message = f"there is no statement `{spelling.shortened(span.text)}`"
    return Diagnostic("E108", message, span, fixes=(fix,))


def near_statement(word: str) -> str | None:
    """The statement that a word was to begin, one slip of the fingers away."""
    words = lexicon().words
    starters = [text for text, kind in words.items() if kind in lexicon().starters]
    return next((text for text in starters if text != word and _one_slip(word, text)), None)


def _one_slip(a: str, b: str) -> bool:
    """Whether one letter is changed, added or left out, or two neighbours are swapped."""
    if len(b) < 4 or abs(len(a) - len(b)) > 1:
        return False
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    rest_a, rest_b = a[start:], b[start:]
    swapped = len(rest_a) > 1 and rest_a[1::-1] + rest_a[2:] == rest_b
    return (
        swapped
        or rest_b in (rest_a[1:], rest_a)
        or rest_a[1:] == rest_b[1:]
        or (rest_a == rest_b[1:])
    )


_RESIDUALS = ("residual", "res", "resblock", "shortcut", "skip")


def _braces(at: Situation) -> Diagnostic | None:
    span = at.span(at.token)
    if at.token.kind == "LBRACE" and not at.before:
        message = "this `{` belongs to no statement"
        advice = "`block`, `repeat`, `if`, `add`, `concat` and `multiply` have `{ }`"
        return Diagnostic("E108", message, span, fixes=(Fix(advice),))
    if at.token.kind == "LBRACE" and at.first == "NAME":
        name = spelling.shortened(at.text(at.before[0]))
        if len(at.before) == 1 and name.lower() in _RESIDUALS:
            edit = Edit(at.span(at.before[0]), "add { skip }")
            fix = Fix("write `add { skip } { … }`", (edit,))
            message = "a residual is the sum of the input and of what is made of it"
            return Diagnostic("E108", message, at.span(at.before[0]), fixes=(fix,))
        message = f"`{name}` has no statements of its own, so no `{{`"
        advice = "`block`, `repeat`, `if`, `add`, `concat` and `multiply` have `{ }`"
        return Diagnostic("E108", message, span, fixes=(Fix(advice),))
    if at.token.kind == "ELSE":
        message = "this `else` has no `if`"
        return Diagnostic(
            "E108", message, span, fixes=(Fix("`else` stands behind the `}` of an `if`"),)
        )
    return None


# ── all others ───────────────────────────────────────────────────────────────────────────────────

# What may stand somewhere, in the order in which to name it.
_EXPECTED = (
    (("NAME",), "a name"),
    (("INTEGER",), "a number"),
    (("STRING",), "a text in quotes"),
    (("EQUAL",), "`=`"),
    (("COMMA",), "`,`"),
    (("RPAR",), "`)`"),
    (("LBRACE",), "`{`"),
    (("AS",), "`as`"),
    (("_NL",), "the end of the line"),
)


def second_statement(at: Situation) -> Diagnostic:
    """A statement right behind another."""
    span = at.span(at.token)
    fix = Fix("start a new line", (Edit(span.before(), "\n"),))
    return Diagnostic("E113", "a new statement needs a new line, or a `;`", span, fixes=(fix,))


def _does_not_fit(at: Situation) -> Diagnostic:
    if at.token.kind in LINE_ENDS:
        message = "this statement is not complete"
    else:
        message = f"{at.named} does not fit here"
    wanted = [words for kinds, words in _EXPECTED if any(map(at.accepts, kinds))]
    caption = f"expected {_either(wanted)}" if wanted else ""
    if not at.before:
        caption = "expected a layer or a statement"
    if at.token.kind == "PATH":
        fix = "only labels have dots: after `as`, `from`, `like`, `output` and in merges"
    elif at.accepts("_NL") and at.before:
        fix = "delete it, or start a new line where another statement begins"
    else:
        fix = f"`{at.text(at.before[0])}` is written otherwise" if at.before else "delete it"
    return Diagnostic("E108", message, at.place, caption=caption, fixes=(Fix(fix),))


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
