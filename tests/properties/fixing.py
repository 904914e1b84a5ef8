"""`cnndsl check --fix` through its door, and what a text says of sizes and counts."""

import re
from collections import Counter
from pathlib import Path

from cnndsl.check import check_source
from cnndsl.cli.main import main
from cnndsl.source import Source

# What stands by place behind a layer's name; options and assertions are something else.
_SIZES = re.compile(r"(?<= )\d+x\d+\b")
_COUNTS = re.compile(r"\b(?:(?:conv|deconv|fc|groupnorm|shuffle) |pool (?:max|avg) |groups=)\d+")
_INPUT = re.compile(r"^input .*$", re.MULTILINE)


def fix(text: str, folder: Path) -> str:
    """The text after `--fix`."""
    path = folder / "broken.cnn"
    path.write_text(text, encoding="utf-8")
    main(["check", str(path), "--fix"])
    return path.read_text(encoding="utf-8")


def errors(text: str):
    return [d for d in check_source(Source("a.cnn", text)).diagnostics if d.severity == "error"]


def numbers(text: str) -> Counter[str]:
    """The sizes of windows and the counts that the text gives."""
    body = _INPUT.sub("", text)
    return Counter(_SIZES.findall(body)) + Counter(_COUNTS.findall(body))


def keeps_numbers(before: str, after: str) -> bool:
    return not numbers(before) - numbers(after)
