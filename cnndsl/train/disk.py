"""Writing so that a crash at any moment leaves the old content or the new, never a part.

A file or folder is written under another name, forced to the disk, and then renamed: the rename
is what makes it exist. Names that start with a dot are unfinished, or on their way out.
"""

import os
import shutil
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it. It is not yet there under a final name."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_below(folder: Path, name: Path, content: bytes) -> None:
    """Write a file into a folder within a folder, which is made if need be."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    write(folder / name, content)
    for inner in name.parents:
        settle(folder / inner)


def replace(path: Path, content: bytes) -> None:
    """Put a file in place, or another content in the place of its old one, in one step."""
    fresh = path.with_name(f".{path.name}.new")
    write(fresh, content)
    fresh.rename(path)
    settle(path.parent)


def publish(fresh: Path, path: Path) -> None:
    """Give a finished folder its name; what was there under it goes."""
    settle(fresh)
    if path.exists():
        discard(path)
    fresh.rename(path)
    settle(path.parent)


def discard(path: Path) -> None:
    """Remove a folder: first its name, then its content, so that no half of it is ever seen."""
    doomed = path.with_name(f".{path.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a process that was killed has left unfinished in a folder."""
    for leftover in folder.glob(".*"):
        if not leftover.name.endswith((".new", ".old")):
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def settle(folder: Path) -> None:
    """Wait until the disk knows the names in a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
