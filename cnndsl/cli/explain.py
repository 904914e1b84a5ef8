"""`cnndsl explain E301`: the page of a code, laid out for a terminal."""

import argparse
import sys

from cnndsl.cli import options, terminal
from cnndsl.diagnostics import catalogue
from cnndsl.diagnostics.style import Role, Style, cells


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = "Show what a message means, with a wrong example and the right one."
    parser.epilog = (
        "examples:\n"
        "  cnndsl explain          list every code\n"
        "  cnndsl explain E301     explain one"
    )
    parser.add_argument(
        "code", metavar="CODE", nargs="?", help="such as E301; without it, all are listed"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the page, or the list."""
    style = terminal.style(arguments.color, sys.stdout)
    if arguments.code is None:
        print(listing(style))
        return 0
    code = str(arguments.code).strip().upper()
    if code not in catalogue.codes():
        near = catalogue.near(code)
        terminal.complain(
            f"there is no message with the code `{arguments.code}`",
            *([f"near it are {', '.join(near)}"] if near else []),
            "`cnndsl explain` lists all of them",
            color=arguments.color,
        )
        return options.USAGE
    print(show(catalogue.page(code), style, min(terminal.width(sys.stdout), 100)))
    return 0


_FAMILIES = {
    "E1": "syntax",
    "E2": "names and arguments",
    "E3": "shapes",
    "E4": "conditions on sizes",
    "E5": "limits",
    "W6": "warnings",
}


def listing(style: Style) -> str:
    """Every code with its title, by family."""
    lines: list[str] = []
    family = ""
    for code in catalogue.codes():
        if code[:2] != family:
            family = code[:2]
            lines += ["", style.paint("strong", _FAMILIES[family])]
        lines.append(f"  {style.paint(_role(code), code)}  {catalogue.page(code).title}")
    return "\n".join(lines[1:])


def show(page: catalogue.Page, style: Style, width: int) -> str:
    """A page with its prose filled to the width and its examples indented."""
    title = style.paint(_role(page.code), page.code) + style.paint("strong", f": {page.title}")
    parts = [
        title,
        *(_paragraph(text, width) for text in page.prose.split("\n\n") if text.strip()),
        style.paint("strong", "Wrong"),
        _indented(page.wrong.text),
        _indented(page.output),
        style.paint("strong", "Right"),
        _indented(page.right.text),
    ]
    return "\n\n".join(parts)


def _role(code: str) -> Role:
    return "warning" if code.startswith("W") else "error"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.rstrip("\n").split("\n"))


def _paragraph(text: str, width: int) -> str:
    """A paragraph of Markdown filled to the width; lists, tables and code stay as they are."""
    if text.lstrip().startswith(("- ", "* ", "|", "```", "    ")) or text.lstrip()[:2] == "1.":
        return text.strip("\n")
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])
