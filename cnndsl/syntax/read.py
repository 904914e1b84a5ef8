"""From a path to a `Source`: the only place where bytes of a `.cnn` file are read.

Knows files and UTF-8; knows nothing of what stands in the text. A file that cannot be read has no
place to point at, so its diagnostic stands at the start of an empty source with the file's name.
"""

import errno
import os
import stat
import sys

from cnndsl.diagnostics.model import Diagnostic, Fix, Sink
from cnndsl.source import Source
from cnndsl.syntax.limits import MAX_BYTES, too_large

STANDARD_INPUT = "-"
_CHUNK = 1 << 16


def read_source(path: str, sink: Sink) -> Source | None:
    """The text at `path` (`-`: standard input), or None after saying why there is none."""
    if foreign := _foreign(path):
        sink.add(foreign)
        return None
    try:
        content = _standard_input() if path == STANDARD_INPUT else _file(path)
    except (OSError, ValueError) as error:
        sink.add(_unreadable(path, error))
        return None
    name = "<standard input>" if path == STANDARD_INPUT else path
    if len(content) > MAX_BYTES:
        sink.add(too_large(Source(name, ""), None))
        return None
    return decode(name, content, sink)


def decode(name: str, content: bytes, sink: Sink) -> Source | None:
    """Strict UTF-8, without the mark that some editors put in front."""
    try:
        return Source(name, content.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        sink.add(_not_utf8(name, content, error.start))
        return None


def _standard_input() -> bytes:
    return _at_most(sys.stdin.fileno())


def _file(path: str) -> bytes:
    # Without O_NONBLOCK, opening a pipe nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "a folder")
        if not stat.S_ISREG(mode):
            raise ValueError("it is a device or a pipe, not a file")
        return _at_most(descriptor)
    finally:
        os.close(descriptor)


def _at_most(descriptor: int) -> bytes:
    """What can be read, up to one byte past the limit."""
    parts: list[bytes] = []
    left = MAX_BYTES + 1
    while left > 0 and (part := os.read(descriptor, min(left, _CHUNK))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _unreadable(path: str, error: OSError | ValueError) -> Diagnostic:
    match error:
        case FileNotFoundError():
            return _no_file(path)
        case NotADirectoryError():
            why, fix = "a part of its path is a file", "check the path"
        case IsADirectoryError():
            why, fix = "it is a folder", "name the `.cnn` files in it, such as `FOLDER/*.cnn`"
        case PermissionError():
            why, fix = "you may not read it", "ask its owner, or change its mode with `chmod`"
        case OSError():
            why, fix = (error.strerror or str(error)).lower(), "check the path"
        case _ if "\0" in path:
            why, fix = "its name has a NUL character", "check the path"
        case _:
            why, fix = str(error), "pass it through standard input: `cnndsl check -`"
    return _without_place(path, f"`{path}` cannot be read: {why}", fix)


def _no_file(path: str) -> Diagnostic:
    if not path.endswith(".cnn") and os.path.exists(path + ".cnn"):  # noqa: PTH110 (pathlib's import costs more than this file)
        return _without_place(path, f"there is no file `{path}`", f"did you mean `{path}.cnn`?")
    return _without_place(path, f"there is no file `{path}`", "check the path")


_COPY = (
    "copy its layers into a `.cnn` file; there, `cnndsl check --fix` writes them as lines of cnndsl"
)
_WEIGHTS = (
    "it goes with a network: `cnndsl weights NETWORK.cnn FILE` fits weights, `--weights` uses them"
)
_DESCRIBE = "describe the network in a `.cnn` file: `input 28 x 28 x 1`, then a layer on each line"
# What the files of other programs are, by the ends of their names, and what to do with them.
FORMATS: dict[str, tuple[str, str]] = {
    ".cfg": ("a Darknet network or settings", _COPY),
    ".prototxt": ("a Caffe network", _COPY),
    ".py": ("a Python program", _COPY),
    ".ipynb": ("a notebook", _COPY),
    ".onnx": (
        "an ONNX network",
        f"cnndsl writes such files but does not read them; {_DESCRIBE}",
    ),
    ".pb": ("a TensorFlow network", _DESCRIBE),
    ".tflite": ("a TensorFlow Lite network", _DESCRIBE),
    ".keras": ("a Keras network", _DESCRIBE),
    ".h5": ("a Keras network or its weights", _DESCRIBE),
    ".hdf5": ("a Keras network or its weights", _DESCRIBE),
    ".pt": ("a file of PyTorch", _WEIGHTS),
    ".pth": ("a file of PyTorch", _WEIGHTS),
    ".ckpt": ("a file of weights", _WEIGHTS),
    ".safetensors": ("a file of weights", _WEIGHTS),
    ".caffemodel": ("a file of Caffe's weights", _DESCRIBE),
    ".weights": ("a file of Darknet's weights", _DESCRIBE),
    ".npz": ("a file of arrays", _DESCRIBE),
    ".npy": ("a file of arrays", _DESCRIBE),
    ".png": ("a picture", "`cnndsl predict RUN PICTURE` classifies it with a trained network"),
    ".jpg": ("a picture", "`cnndsl predict RUN PICTURE` classifies it with a trained network"),
    ".jpeg": ("a picture", "`cnndsl predict RUN PICTURE` classifies it with a trained network"),
}
# How files begin that have another name.
_BEGINNINGS = (
    (b"\x89HDF", "it is an HDF5 file, such as Keras writes"),
    (b"PK\x03\x04", "it is a zip archive, such as PyTorch and Keras write"),
    (b"\x89PNG", "it is a picture"),
    (b"\xff\xd8\xff", "it is a picture"),
    (b"\x1f\x8b", "it is compressed: unpack it first"),
)


def _foreign(path: str) -> Diagnostic | None:
    """What to say of an existing file whose name says that it is no network of this language."""
    known = FORMATS.get(os.path.splitext(path)[1].lower())  # noqa: PTH122 (pathlib's import costs more than this file)
    if known is None or not os.path.isfile(path):  # noqa: PTH113 (as above)
        return None
    what, advice = known
    return _without_place(path, f"`{path}` is {what}, not a `.cnn` file", advice)


def _without_place(name: str, message: str, fix: str) -> Diagnostic:
    return Diagnostic("E117", message, Source(name, "").span(0, 0), fixes=(Fix(fix),))


def _not_utf8(name: str, content: bytes, offset: int) -> Diagnostic:
    """Point at the first byte that is not UTF-8, in the text as far as it can be shown."""
    before = content[:offset].decode("utf-8")
    source = Source(name, before + content[offset:].decode("utf-8", errors="replace"))
    return Diagnostic(
        "E115",
        "this file is not UTF-8 text",
        source.span(len(before), len(before) + 1),
        caption=f"byte 0x{content[offset]:02x}",
        fixes=(Fix(_encoded(content)),),
    )


def _encoded(content: bytes) -> str:
    """What to do with a file that is not text, or not in UTF-8."""
    for beginning, what in _BEGINNINGS:
        if content.startswith(beginning):
            return what
    return "save the file as UTF-8 in your editor"
