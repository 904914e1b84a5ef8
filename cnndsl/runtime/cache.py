"""Files in the user's cache folder, in folders that nobody else may enter.

Emitted text is named by its content and compared with it before use: Triton reads the source of a
kernel from a file. Where that cannot be had, a private temporary folder does. Knows files; knows
nothing of Python.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path


def path_of(text: str, name: str) -> Path:
    """A file with exactly this text, whose name begins with `name`."""
    data = text.encode()
    file = f"{name}_{hashlib.sha256(data).hexdigest()[:24]}.py"
    for folder in _folders():
        path = folder / file
        with contextlib.suppress(OSError):
            if not _holds(path, data):
                write(path, data)
            return path
    raise OSError(f"no folder to write {file} to: neither the user's cache nor a temporary one")


def _folders() -> tuple[Path, ...]:
    """Where the file may lie, the best first."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found.append(own_folder("modules"))
    return (*found, _temporary())


def own_folder(name: str) -> Path:
    """A folder of ours in the user's cache; `OSError` where it cannot be had."""
    return ours(user_cache_path("cnndsl") / name)


def ours(folder: Path) -> Path:
    """The folder, made if need be; `OSError` unless it is ours and closed to others."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError(f"{folder} belongs to somebody else")
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
    return folder


@cache
def _temporary() -> Path:
    """A folder of this process's own; it stays until the system clears it."""
    return Path(tempfile.mkdtemp(prefix="cnndsl-"))


def _holds(path: Path, data: bytes) -> bool:
    """Whether it is a plain file of ours with this content: what is damaged is written anew."""
    try:
        found = path.lstat()
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
        return is_ours and found.st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def read_own(path: Path, most: int) -> bytes | None:
    """What a plain file of ours holds; None where it is somebody else's, or larger than `most`."""
    found = path.lstat()
    is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
    return path.read_bytes() if is_ours and found.st_size <= most else None


def write(path: Path, data: bytes) -> None:
    """Put it there in one step, so that no other process ever sees a part of it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
