"""From a `.cnn` file to a `torch.nn.Module`: check, emit, import.

The class lies in an imported Python module of its own. The same text is imported once in a process.
A pickle of a model holds that text, so that it can be read wherever cnndsl is installed: in another
process, on another machine.
"""

import copyreg
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader
from os import PathLike
from pathlib import Path
from types import CodeType, ModuleType
from typing import cast

from torch import nn

from cnndsl.check import TEXT, check_file, check_source
from cnndsl.check.report import Report
from cnndsl.diagnostics.model import Sink
from cnndsl.emit.module import Written, emit, unbound
from cnndsl.fuse.choices import NONE, Choices
from cnndsl.graph.graph import Graph
from cnndsl.record import Record
from cnndsl.runtime import cache
from cnndsl.runtime.errors import CheckError
from cnndsl.source import Source


class Origin(Record):
    """What a module was emitted from."""

    graph: Graph
    source: Source
    choices: Choices = NONE


_ORIGINS: dict[Written, Origin] = {}
_WRITTEN: dict[str, Written] = {}  # by the names of imported modules


def remember(written: Written, origin: Origin) -> None:
    """Keep what a module was emitted from, for `origin_of`."""
    _ORIGINS[written] = origin


def origin_of(model: nn.Module) -> Origin | None:
    """What a model was emitted from; None for one that was not compiled in this process."""
    written = _WRITTEN.get(type(model).__module__)
    return _ORIGINS.get(written) if written is not None else None


def text_of(model: nn.Module) -> str | None:
    """The text of a model as a file that needs no cnndsl; None for one not compiled here."""
    origin = origin_of(model)
    return None if origin is None else standalone(origin)


def standalone(origin: Origin) -> str:
    """The emitted text as a file that needs torch and triton only."""
    return emit(origin.graph, origin.source, origin.choices, standalone=True).text


def compile_model(
    path: str | PathLike[str] | None = None,
    /,
    *,
    source: str | None = None,
    **settings: object,
) -> nn.Module:
    """Compile a `.cnn` file, or the text in `source`, to a module with fresh weights.

    `settings` give params of the file and free sizes of its input a value. Raises `CheckError`,
    with every diagnostic, for a model with errors.
    """
    return instance(write(path, source, settings))


def instance(written: Written) -> nn.Module:
    """A module of the emitted class, with fresh weights."""
    return class_of(written)()


def class_of(written: Written) -> type[nn.Module]:
    """The emitted class, whose instances and their blocks can be copied and pickled."""
    module = import_text(written)

    def reduce(model: nn.Module) -> tuple[Callable[..., nn.Module], tuple[str, ...], object]:
        # `copy` and `pickle` would name the class, which no other process could import.
        names = (written.text, written.name, type(model).__name__)
        return _without_init, names, model.__getstate__()

    own = [v for v in vars(module).values() if getattr(v, "__module__", "") == module.__name__]
    for value in own:
        if isinstance(value, type) and issubclass(value, nn.Module):
            copyreg.pickle(value, reduce)
    return cast("type[nn.Module]", getattr(module, written.name))


def _without_init(text: str, network: str, name: str) -> nn.Module:
    """An instance that waits for its state: what `pickle` calls first."""
    written = Written(text, network)
    class_of(written)
    found = cast("type[nn.Module]", getattr(import_text(written), name))
    return found.__new__(found)


def write(
    path: str | PathLike[str] | None, source: str | None, settings: Mapping[str, object]
) -> Written:
    """Check and emit."""
    if (path is None) == (source is None):
        raise TypeError("compile takes the path of a .cnn file, or source=… with its text")
    if path is not None:
        return write_file(path, settings)[0]
    read = Source(TEXT, source or "")
    return _emit(check_source(read, settings), read)


def write_file(
    path: str | PathLike[str], settings: Mapping[str, object], root: Path | None = None
) -> tuple[Written, Source, tuple[Source, ...]]:
    """Check and emit a file; also gives its text and the files that it uses.

    These are named by their paths from `root`, by default the folder of the file.
    """
    report, read = check_file(os.fspath(path), settings, Sink(), root)
    if read is None:
        raise CheckError(report.diagnostics)
    return _emit(report, read), read, report.used


def _emit(report: Report, read: Source) -> Written:
    if report.graph is None:
        raise CheckError(report.diagnostics)
    missing = unbound(report.graph)
    if missing:
        raise ValueError(f"`{missing[0]}` has no value: give it one, compile(…, {missing[0]}=…)")
    written = emit(report.graph, read)
    remember(written, Origin(report.graph, read))
    return written


def import_text(written: Written) -> ModuleType:
    """The emitted text as a Python module; under its own name in `sys.modules`."""
    path = cache.path_of(written.text, written.name)
    # Triton decides at import whether kernels are interpreted.
    kind = "_interpreted" if os.environ.get("TRITON_INTERPRET") == "1" else ""
    name = f"cnndsl_emitted_{path.stem}{kind}"
    known = sys.modules.get(name)
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _WRITTEN[name] = written
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Loader(SourceFileLoader):
    """Compiles the text each time: bytecode in a cache would not be compared with it."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the text as it is now."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)
