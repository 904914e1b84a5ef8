"""Files that commands write: in one step, through links, into devices, and never over a stranger's.

    check(path, is_ours)            # before any work: would writing succeed, and lose nothing?
    with replacing(path) as file:   # `file` is a new file beside the old one
        file.write_text(text)       # when the block ends, it takes the old one's place

Knows files; knows nothing of what is in them.
"""

import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from errno import EACCES, EISDIR, ENOENT, ENOTDIR, EPERM
from pathlib import Path

from cnndsl.diagnostics.helpful import OutputError
from cnndsl.diagnostics.safe import safe

# Whether a file begins as those do that cnndsl writes; it is given up to `_HEAD` bytes.
IsOurs = Callable[[bytes], bool]
STANDARD_OUTPUT = "-"
_STANDARD_OUTPUTS = (STANDARD_OUTPUT, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_HEAD = 2**20
# What stands for a descriptor that is open already.
_OPEN = re.compile(r"/dev/(stdout|stderr|fd/\d+)|/proc/self/fd/\d+")


def check(path: str | os.PathLike[str], is_ours: IsOurs | None = None, *reads: str) -> None:
    """Raise where writing would fail or lose a file that cnndsl did not write.

    `is_ours` None means that any file may be replaced. `reads` are the command's input files.
    Raises `OutputError`, and `OSError` with the path that the user wrote.
    """
    if is_stream(path):
        return
    target = _target(path)
    if not target.exists():
        return
    for name in reads:
        if Path(name).exists() and target.samefile(name):
            what = "the model itself" if name.endswith(".cnn") else "what is read"
            raise OutputError(
                f"`-o {safe(os.fspath(path))}` is {what}, which would be lost",
                "write to another file",
            )
    if is_ours is None:
        return
    with target.open("rb") as file:
        head = file.read(_HEAD)
    if head and not is_ours(head):
        raise OutputError(
            f"`{safe(os.fspath(path))}` exists, and cnndsl did not write it",
            "write to another file, or replace it: `--force`",
        )


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether it takes what is written as it comes: `-`, a pipe, a terminal, `/dev/null`."""
    name = os.fspath(path)
    if name == STANDARD_OUTPUT or _OPEN.fullmatch(name):
        return True
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116 (a `Path` drops a slash at the end)
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def is_standard_output(path: str | os.PathLike[str] | None) -> bool:
    """Whether it is where the command's own words would go, too."""
    return path is not None and os.fspath(path) in _STANDARD_OUTPUTS


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Generator[Path]:
    """Give a new file to write to, which then takes the place of `path` in one step.

    A link stays a link: what it points to is replaced. A file keeps its mode. What is no file,
    such as a pipe, gets the content instead. If the block raises, nothing has changed.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory(prefix="cnndsl-") as folder:
            fresh = Path(folder) / "output"
            yield fresh
            _pour(fresh, os.fspath(path))
        return
    target = _target(path)
    # A short name, for that of the target may be as long as names can be.
    fresh = target.with_name(f".cnndsl-{secrets.token_hex(6)}.tmp")
    try:
        fresh.touch(exist_ok=False)  # with the mode that new files get
        if target.exists():
            fresh.chmod(stat.S_IMODE(target.stat().st_mode))
        yield fresh
        fresh.replace(target)
    except OSError as error:
        if error.filename in (str(fresh), fresh):  # which the user has never heard of
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from error
        raise
    finally:
        fresh.unlink(missing_ok=True)


def _target(path: str | os.PathLike[str]) -> Path:
    """The file that would be written, behind all links; `OSError` if it cannot be."""
    name = os.fspath(path)
    target = Path(os.path.realpath(name))
    if target.is_dir() or name.endswith("/"):
        raise IsADirectoryError(EISDIR, "this is a folder: name a file in it", name)
    folder = Path(name).parent
    if not target.parent.exists():
        is_link = Path(name).is_symlink()
        missing = target.parent if is_link else folder
        raise FileNotFoundError(ENOENT, f"there is no folder `{safe(missing)}`", name)
    if not target.parent.is_dir():
        raise NotADirectoryError(ENOTDIR, f"`{safe(folder)}` is a file, not a folder", name)
    if not target.exists():
        if Path(name).is_symlink() and target.is_symlink():
            raise OSError(EPERM, "this link points to itself", name)
        return target
    if not target.is_file():
        raise PermissionError(EPERM, "this is a disk, not a file", name)
    if not os.access(target, os.W_OK):
        raise PermissionError(EACCES, "this file is read-only", name)
    return target


def _pour(source: Path, name: str) -> None:
    """Write a file's content into what is no file."""
    # A descriptor of our own goes on where it stands; opened anew, it would begin at the start.
    with source.open("rb") as content:
        if is_standard_output(name):
            shutil.copyfileobj(content, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        opened: str | int = name
        if name == "/dev/stderr":
            opened = os.dup(2)
        elif _OPEN.fullmatch(name):
            opened = os.dup(int(name.rpartition("/")[2]))
        with open(opened, "wb") as stream:  # noqa: PTH123 (a `Path` is no descriptor)
            shutil.copyfileobj(content, stream)
