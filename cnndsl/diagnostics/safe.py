"""Texts as a terminal can show them: names of tensors, class folders, files; whole messages.

Whoever made a file chose the names in it. Printed as they are, they could move the cursor, colour
the screen, forge a line of output or run from right to left.
"""

from collections.abc import Iterable

LONGEST = 300  # characters; enough for any name that a person reads
MESSAGE = 1500  # characters of a message or note


def safe(text: object, limit: int = LONGEST) -> str:
    r"""The text on one line, with its control characters escaped and its middle cut if it is long.

    Escapes are Python's (`\x1b`, `\n`, `\u202e`), so that two different names still look
    different. Letters of any script stay as they are.
    """
    name = str(text)
    if len(name) > limit:
        name = f"{name[: limit * 2 // 3 - 1]}…{name[-(limit // 3) :]}"
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def safe_list(texts: Iterable[object], most: int = 20) -> str:
    """The texts separated by commas; of more than `most`, how many more there are."""
    names = [safe(text) for text in texts]
    more = len(names) - most
    return ", ".join(names[:most]) + (f", … and {more:,} more" if more > 0 else "")
