"""`use "PATH"`: another file's blocks. The only way in which a file reaches another one.

Paths are relative to the file that says them and stay below the folder of the main file: never
absolute, never out by `..`, never through a link.
"""

import os
from pathlib import Path

from cnndsl.diagnostics.model import Diagnostic, Fix, Sink
from cnndsl.record import Record
from cnndsl.source import Source
from cnndsl.syntax import tree
from cnndsl.syntax.parse import parse
from cnndsl.syntax.read import read_source

MAX_FILES = 64
MAX_DEPTH = 8


class Location(Record):
    """A file: the folder to which its paths are relative, and the files that led there.

    The last of these is itself; each is named by where it really is.
    """

    folder: Path
    chain: tuple[str, ...]


class Library:
    """The files below the folder of the main one, each read at most once."""

    def __init__(self, root: Path | None, sink: Sink) -> None:
        """`root` is None for a text that lies in no folder: it can use nothing."""
        self._root = os.path.realpath(root) if root is not None else None
        self._sink = sink
        self._files: dict[str, tree.File] = {}

    def main(self, source: Source) -> Location:
        """Where the main file is: in the root, also where it lies elsewhere."""
        real = os.path.realpath(source.name)
        folder = Path(real).parent
        if self._root is not None and not self._holds(str(folder)):
            folder = Path(self._root)
        return Location(folder, (real,))

    def used(self) -> tuple[Source, ...]:
        """The files that were read, named by their paths from the root."""
        root = self._root or ""
        return tuple(
            Source(Path(real).relative_to(root).as_posix(), file.source.text)
            for real, file in self._files.items()
        )

    def open(self, statement: tree.Use, at: Location) -> tuple[tree.File, Location] | None:
        """The file that a `use` names, or None after reporting why there is none."""
        path = statement.path.value
        refusal = self._refusal(path, at)
        if refusal is not None:
            message, fix = refusal
            fixes = (Fix(fix),)
            self._sink.add(Diagnostic("E216", message, statement.path.span, fixes=fixes))
            return None
        real = os.path.realpath(at.folder / path)
        if real not in self._files:
            source = read_source(real, self._sink)
            if source is None:
                return None
            # Messages show the path as the user wrote it, not where it lies on this machine.
            self._files[real] = parse(Source(path, source.text), self._sink)
        return self._files[real], Location(Path(real).parent, (*at.chain, real))

    def _holds(self, path: str) -> bool:
        """Whether a path, without links, is that of the root or lies below it."""
        return os.path.commonpath([path, self._root or path]) == self._root

    def _refusal(self, path: str, at: Location) -> tuple[str, str] | None:
        """Why a path may not be used, and what to do."""
        if self._root is None:
            return "a text that is no file has no folder to look in", "check it as a file"
        if path.startswith(("/", "\\")) or "\\" in path or ":" in path or "\0" in path:
            return (
                "`use` takes a path relative to this file, with `/`",
                'such as `use "blocks.cnn"`',
            )
        plain = os.path.normpath(at.folder / path)
        real = os.path.realpath(at.folder / path)
        if not self._holds(real) or not self._holds(plain):
            return (
                "this path leads out of the folder of the main file",
                "put the blocks below the folder of the file that you check",
            )
        if real != plain:
            return "this path goes through a link, which is not followed", "name the file itself"
        if not Path(real).is_file():
            return f"there is no file `{path}`", "check its name; it is relative to this file"
        if real in at.chain:
            return "this file is using itself, perhaps through others", "remove one of the `use`"
        if len(at.chain) > MAX_DEPTH:
            return f"files use each other more than {MAX_DEPTH} deep", "use the blocks directly"
        if len(self._files) >= MAX_FILES and real not in self._files:
            return f"more than {MAX_FILES} files are used", "put the blocks into fewer files"
        return None
