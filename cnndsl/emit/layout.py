"""Python source as the formatter lays it out, at 88 columns as well as at 100.

What does not fit well into a line goes one element a line behind a trailing comma, a form that the
formatter leaves alone at any width.
"""

import ast
from collections.abc import Iterable, Sequence

from cnndsl.emit.lines import tidy

WIDTH = 88  # the formatter's default; the project's own is 100


def literal(text: str) -> str:
    """A string literal, with the quotes that the formatter prefers."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + "".join(_escaped(c, quote) for c in text) + quote


def _escaped(character: str, quote: str) -> str:
    if character in (quote, "\\"):
        return f"\\{character}"
    if character.isprintable():
        return character
    return repr(character)[1:-1]


def call(start: str, arguments: Sequence[str], end: str = ")", column: int = 0) -> str:
    """`start(a, b)` in one line, or one argument a line.

    `column` is where it will stand: its lines still want that much in front (see `indent`).
    """
    line = f"{start}({', '.join(arguments)}{end}"
    if "\n" not in line and column + len(line) <= WIDTH:
        return line
    inside = "".join(f"{indent(argument)},\n" for argument in arguments)
    return f"{start}(\n{inside}{end}"


def indent(text: str, by: int = 4) -> str:
    """The same further to the right."""
    return "\n".join(f"{' ' * by}{line}" if line else "" for line in text.split("\n"))


def spread(start: str, expression: str, end: str = "", column: int = 0) -> str:
    """A statement or element with an expression in it; a call that is too long is spread."""
    line = f"{start}{expression}{end}"
    tree = ast.parse(expression, mode="eval").body
    if column + len(line) <= WIDTH or not isinstance(tree, ast.Call):
        return line
    function = ast.get_source_segment(expression, tree.func) or ""
    arguments = (*tree.args, *tree.keywords)
    texts = [expression[a.col_offset : a.end_col_offset] for a in arguments]
    return call(f"{start}{function}", texts, f"){end}", column)


def strings(texts: Iterable[str], column: int = 0) -> str:
    """A tuple of string literals."""
    found = [literal(text) for text in texts]
    if len(found) == 1:
        return f"({found[0]},)"
    return call("", found, column=column)


def function(
    start: str, parameters: Sequence[str], result: str, body: Iterable[str], column: int = 0
) -> str:
    """A function: `start` is `def name`, `body` its statements, which know where they stand."""
    head = call(start, parameters, f") -> {result}:", column)
    return "\n".join([head, *(indent(statement) for statement in body)]) + "\n"


def method(name: str, parameters: Sequence[str], result: str, body: Iterable[str]) -> str:
    """A function in a class."""
    return function(f"def {name}", parameters, result, body, column=4).rstrip("\n")


def banner(title: str) -> str:
    """A line that starts a section."""
    line = f"# ── {title} "
    return line + "─" * max(2, WIDTH - len(line))


def comment(lines: Iterable[str], margin: str = "#   ") -> str:
    """Comment lines; long ones are folded between words."""
    return "\n".join(part for line in lines for part in folded(line, margin))


def folded(line: str, margin: str = "") -> list[str]:
    """A line of words as several that are not too long."""
    if len(margin) + len(line) <= WIDTH:
        return [f"{margin}{line}".rstrip()]
    start = " " * (len(line) - len(line.lstrip()))
    found: list[str] = []
    current = ""
    for word in line.split():
        longer = f"{current} {word}" if current else word
        if current and len(margin) + len(start) + len(longer) > WIDTH:
            found.append(current)
            longer = word
        current = longer
    return [f"{margin}{start}{text}" for text in (*found, current)]


def blocks(parts: Iterable[str]) -> str:
    """Definitions at the top of a file, two blank lines between them."""
    return "\n\n\n".join(tidy(part).rstrip("\n") for part in parts if part.strip()) + "\n"
