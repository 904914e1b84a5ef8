"""Which pictures a folder holds, of which classes, and in which parts. Reads none of them.

animals/cat/1.png        or, with a division of its own,
animals/dog/7.jpg        animals/train/cat/1.png, animals/valid/cat/2.png, animals/test/cat/3.png
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from cnndsl.diagnostics.safe import safe, safe_list
from cnndsl.record import Record
from cnndsl.train.errors import TrainError

# What people call the parts of a set, in small letters.
_PARTS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
# Pictures that people train on. Which of them pillow decodes depends on how it was built.
_ENDINGS = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".tif"),
    *(".tiff", ".pgm", ".ppm", ".pbm", ".pnm", ".pfm", ".jp2", ".tga", ".avif"),
}
# What cameras, phones and editors write, and pillow does not decode.
_FOREIGN = {
    ".heic",
    ".heif",
    ".jxl",
    ".svg",
    ".psd",
    ".raw",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
}
# What systems leave in folders.
_LITTER = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
_LISTED = 10


class Listing(Record):
    """Picture files and the numbers of their classes, in the order of the classes and names."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]


class Found(Record):
    """What a folder holds; `notes` say what was left out, a sentence each."""

    classes: tuple[str, ...]
    train: Listing
    valid: Listing | None
    test: Listing | None
    notes: tuple[str, ...]


def find(path: Path, known: tuple[str, ...] = ()) -> Found:
    """The pictures below a folder; raises `TrainError`.

    `known` are the classes of a network that was trained before, in its order.
    """
    litter: Counter[str] = Counter()
    notes: list[str] = []
    parts = _parts(path, notes)
    main = parts.get("train", path)
    classes = known or tuple(p.name for p in _class_folders(main))
    listings = {
        name: _listing(folder, classes, litter, is_whole=name == "train" and not known)
        for name, folder in (parts or {"train": path}).items()
    }
    for name in ("valid", "test"):
        if name in listings:
            notes += _without(parts[name], listings[name], classes)
    if litter:
        total = sum(litter.values())
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in litter.most_common(_LISTED))
        notes.insert(0, f"left out {total:,} file{'s' * (total > 1)}: {kinds}")
    loose = len(_loose(main))
    if loose:
        notes.append(f"left out {loose:,} picture{'s' * (loose > 1)} outside of the class folders")
    return Found(
        classes, listings["train"], listings.get("valid"), listings.get("test"), tuple(notes)
    )


def _parts(path: Path, notes: list[str]) -> dict[str, Path]:
    """The folders of the parts, by name; empty where the folder's own folders are classes."""
    found: dict[str, Path] = {}
    others: list[Path] = []
    for folder in _folders(path):
        name = next((n for n, words in _PARTS.items() if folder.name.lower() in words), None)
        if name is None:
            others.append(folder)
        elif name in found:
            raise TrainError(
                f"`{safe(found[name])}` and `{safe(folder)}` both seem to be the {name} part",
                "keep one of them, or give the folder of one part alone",
            )
        else:
            found[name] = folder
    if "train" not in found or not _folders(found["train"]):
        return {}
    if any(_holds_pictures(folder) for folder in others):
        if len(found) == 1:
            return {}  # a class of pictures of trains, say
        names = ", ".join(f"`{safe(folder.name)}`" for folder in others if _holds_pictures(folder))
        notes.append(f"`{safe(path)}` is divided into parts, so {names} beside them is left out")
    for name in ("valid", "test"):
        if name in found and not _folders(found[name]):
            notes.append(f"`{safe(found[name])}` has no class folders, so it is left out")
            del found[name]
    return found


def _class_folders(path: Path) -> list[Path]:
    """The folders of the classes, at least two."""
    folders = _folders(path)
    if len(folders) >= 2:
        return folders
    if len(folders) == 1:
        inner = _folders(folders[0])
        helps = ["for example: animals/cat/1.png, animals/dog/1.png"]
        if len(inner) >= 2:
            helps.insert(0, f"it has folders of its own: give `{safe(folders[0])}`")
        raise TrainError(
            f"`{safe(path)}` needs a folder for each class, at least two; it has only "
            f"`{safe(folders[0].name)}`",
            *helps,
        )
    loose = len(_loose(path))
    what = "none"
    if loose:
        what = f"none, but {loose:,} picture{'s' * (loose > 1)} outside of any"
    raise TrainError(
        f"`{safe(path)}` needs a folder for each class, at least two; it has {what}",
        "for example: animals/cat/1.png, animals/dog/1.png",
    )


def _listing(
    path: Path, classes: tuple[str, ...], litter: Counter[str], *, is_whole: bool
) -> Listing:
    """The pictures of each class; `is_whole` refuses a class that has none."""
    strangers = [folder for folder in _folders(path) if folder.name not in classes]
    if strangers:
        raise TrainError(
            f"`{safe(strangers[0])}` is none of the classes that are trained",
            f"these are: {safe_list(classes, _LISTED)}",
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        here: Counter[str] = Counter()
        pictures = list(_pictures(path / name, here)) if (path / name).is_dir() else []
        if not pictures and is_whole:
            has = ", ".join(f"{n:,} {kind}" for kind, n in here.most_common(_LISTED)) or "nothing"
            raise TrainError(
                f"the class `{safe(path / name)}` has no picture that can be read; it has {has}",
                "convert its files to png or jpg, or take the folder away",
                f"known endings: {', '.join(sorted(endings()))}",
            )
        litter.update(here)
        paths += pictures
        labels += [label] * len(pictures)
    if not paths:
        raise TrainError(
            f"no images were found below `{safe(path)}`",
            f"known endings: {', '.join(sorted(endings()))}",
        )
    return Listing(tuple(paths), tuple(labels))


def _without(path: Path, listing: Listing, classes: tuple[str, ...]) -> Iterator[str]:
    absent = tuple(name for i, name in enumerate(classes) if i not in set(listing.labels))
    if absent:
        yield f"`{safe(path)}` has no picture of {safe_list(absent, _LISTED)}"


def endings() -> set[str]:
    """The endings of files that this pillow can decode."""
    return _ENDINGS & Image.registered_extensions().keys()


def _folders(path: Path) -> list[Path]:
    """The folders in a folder, but for hidden ones and what systems leave."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not _is_litter(p.name))


def _loose(path: Path) -> list[Path]:
    """The pictures that lie in a folder itself."""
    known = endings()
    return [file for file in path.iterdir() if _kind(file, known) is None]


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _holds_pictures(path: Path) -> bool:
    return next(_pictures(path, Counter()), None) is not None


def _pictures(path: Path, litter: Counter[str]) -> Iterator[Path]:
    """The picture files below a folder, in the order of their names; counts all other files."""
    known = endings()
    for folder, inner, names in os.walk(path):
        if hidden := sum(_is_litter(name) for name in inner):
            litter["hidden"] += hidden
        inner[:] = sorted(name for name in inner if not _is_litter(name))
        for name in sorted(names):
            file = Path(folder, name)
            kind = _kind(file, known)
            if kind is None:
                yield file
            else:
                litter[kind] += 1


def _kind(file: Path, known: set[str]) -> str | None:
    """What keeps a file from being read as a picture; None for a picture."""
    ending = file.suffix.lower()
    if _is_litter(file.name):
        return "hidden"
    if not file.is_file():
        return "special (a pipe, a device or a broken link)"
    if ending in known:
        return None
    if ending in _FOREIGN or ending in _ENDINGS:
        return f"{ending} (pillow cannot decode them)"
    return safe(ending, 20) if ending else "without an ending"
