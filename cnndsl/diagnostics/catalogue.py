"""The page of each code: what it means, a wrong example with its message, and the right one.

Knows the form of the pages in `codes/`; knows nothing of what the checker does with the examples
(`tests/diagnostics/test_codes.py` holds the two together).
"""

from pathlib import Path

from cnndsl.record import Record

_PAGES = Path(__file__).parent / "codes"


class Example(Record):
    """A fenced block: its first line's words (`cnn`, settings) and its text."""

    info: str
    text: str


class Page(Record):
    """One code: `prose` explains it; `output` is the message that `wrong` gives."""

    code: str
    title: str
    prose: str
    wrong: Example
    output: str
    right: Example
    markdown: str


def codes() -> tuple[str, ...]:
    """Every code that has a page, in order."""
    return tuple(sorted(path.stem for path in _PAGES.glob("*.md")))


def page(code: str) -> Page:
    """The page of a code; `KeyError` for one that has none."""
    if code not in codes():
        raise KeyError(code)
    return parse(code, (_PAGES / f"{code}.md").read_text(encoding="utf-8"))


def near(code: str) -> tuple[str, ...]:
    """Codes that somebody may have meant: all but one character the same, or the same family."""
    known = codes()
    alike = [
        c
        for c in known
        if c[1:] == code[1:]
        or (len(c) == len(code) and sum(a != b for a, b in zip(c, code, strict=True)) == 1)
    ]
    return tuple(alike or [c for c in known if c[:2] == code[:2]])[:5]


def parse(code: str, text: str) -> Page:
    """Read a page; `ValueError` names what is missing."""
    heading, _, rest = text.partition("\n")
    if not heading.startswith(f"# {code}: "):
        raise ValueError(f"{code}.md must start with `# {code}: title`")
    prose, found, rest = rest.partition("\n## Wrong\n")
    wrong, found_right, right = rest.partition("\n## Right\n")
    if not found or not found_right:
        raise ValueError(f"{code}.md needs `## Wrong`, then `## Right`")
    wrongs, rights = blocks(wrong), blocks(right)
    if [block.info for block in wrongs][1:] != ["text"] or len(rights) != 1:
        raise ValueError(
            f"{code}.md needs an example and its ```text under Wrong, an example under Right"
        )
    return Page(
        code,
        heading.removeprefix(f"# {code}: ").strip(),
        prose.strip(),
        wrongs[0],
        wrongs[1].text,
        rights[0],
        text,
    )


def blocks(text: str) -> list[Example]:
    """The fenced blocks of a piece of Markdown."""
    blocks: list[Example] = []
    info: str | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("```"):
            lines.append(line)
        elif info is None:
            info, lines = line[3:].strip(), []
        else:
            blocks.append(Example(info, "".join(f"{part}\n" for part in lines)))
            info = None
    return blocks
