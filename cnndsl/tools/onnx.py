"""A compiled model as an ONNX file, for programs that run without PyTorch.

Knows ONNX; what becomes of the model before that is for `program`.
"""

import io
import json
import os
import re
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from os import PathLike
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from cnndsl import output
from cnndsl.diagnostics.safe import safe
from cnndsl.runtime.errors import ExportError
from cnndsl.runtime.scaling import NAMES, takes_bytes
from cnndsl.tools.program import export_with_outputs, free_sizes, name_of

_export: Any = vars(torch.onnx)["export"]
INPUT, OUTPUT = "input", "output"
WRITER = "cnndsl"  # who made the file, as it says itself


def export_onnx(model: nn.Module, path: str | PathLike[str]) -> None:
    """Write a model that `cnndsl.compile` or `cnndsl.load` gave as an ONNX file, in one step.

    It has an input `input` (N, C, H, W) and an output `output`, what `forward` gives in evaluation
    mode; then one for each `output LABEL` of the file, called as the label is (`input_` and
    `output_` for the labels `input` and `output`). Its free axes are called `batch` and
    as the file's symbols are. The names of the classes and the scale of images are in its metadata,
    as JSON: `classes`, `input_mean`, `input_deviation`. A model of `input … u8` takes bytes there,
    too, and has only the classes in its metadata.

    Raises `ExportError` as `export_program` does, and `ModuleNotFoundError` where onnx or
    onnxscript is not installed.
    """
    write(model, path)


def write(model: nn.Module, path: str | PathLike[str]) -> str:
    """The same; tells in a line what goes in and what comes out."""
    refuse_missing()
    program, labels = export_with_outputs(model)
    names = [OUTPUT]
    for label in labels:
        while label in (INPUT, *names):
            label += "_"
        names.append(label)
    _refuse_free_adaptive(model, program)
    found = _translated(model, program, names)
    _rename(found.model, _symbols(model, program))
    found.model.producer_name = WRITER
    # What takes bytes scales them itself.
    for name in ("classes", *(() if takes_bytes(model) else NAMES)):
        value = cast("tuple[object, ...]", getattr(model, name, ()))
        if value:
            # In ASCII, for the name of a folder need not be UTF-8.
            found.model.metadata_props[name] = json.dumps(value)
    with output.replacing(path) as file:
        found.save(str(file))
        return describe(file)


def is_ours(head: bytes) -> bool:
    """Whether a file begins as one does that `export_onnx` wrote."""
    return f"\x12\x06{WRITER}".encode() in head[:64]  # field 2 of a model: its producer


def _translated(model: nn.Module, program: ExportedProgram, names: Sequence[str]) -> Any:  # noqa: ANN401 (torch.onnx has few types)
    """The program in ONNX's operators; `ExportError` where there are none."""
    # What the exporter prints on its way speaks of its own insides.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        # PyTorch's own use of what it deprecates is nothing that a user could change.
        warnings.simplefilter("ignore")
        try:
            return _export(
                cast("Any", program).run_decompositions({_ADAPTIVE_MAX: _adaptive_max_pool}),
                dynamo=True,
                input_names=[INPUT],
                output_names=names,
                verbose=False,
            )
        except Exception as error:  # torch.onnx raises errors of many kinds
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = str(cause).strip().partition("\n")[0] or type(cause).__name__
            raise ExportError(
                f"PyTorch cannot write {type(model).__name__} in ONNX's operators: {safe(reason)}",
                "`cnndsl.export_program` may: it keeps PyTorch's own operators",
            ) from error


_ADAPTIVE_MAX = torch.ops.aten.adaptive_max_pool2d.default


def _adaptive_max_pool(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`pool max to HxW` by its windows, for which ONNX has no operator; without the indices."""
    for axis, count in zip((-2, -1), sizes, strict=True):
        size = x.shape[axis]
        windows = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        parts = [x.narrow(axis, start, end - start) for start, end in windows]
        x = torch.cat([part.amax(axis, keepdim=True) for part in parts], axis)
    return x, torch.zeros_like(x, dtype=torch.int64)


def describe(path: str | PathLike[str]) -> str:
    """What goes into an ONNX file and what comes out, in a line."""
    graph: Any = import_module("onnx").load(os.fspath(path), load_external_data=False).graph
    return ", ".join(
        f"{safe(value.name)} "
        + " x ".join(d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.output)
    )


def refuse_missing() -> None:
    """Raise `ModuleNotFoundError`, with what would help, unless the extra `onnx` is installed."""
    absent = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if absent:
        raise ModuleNotFoundError(
            f"export needs {' and '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not "
            "installed\n  help: pip install 'cnndsl[onnx]'",
            name=absent[0],
        )


def _refuse_free_adaptive(model: nn.Module, program: ExportedProgram) -> None:
    """Raise for `pool … to HxW` of free sizes: ONNX has no such operator.

    The exporter would write the windows of one size, without a word.
    """
    for node in program.graph.nodes:
        if "adaptive" not in str(node.target) or node.op != "call_function":
            continue
        sizes: tuple[Any, ...] = tuple(node.args[0].meta["val"].shape[2:])
        is_whole = all(size == 1 for size in node.args[1])
        if not is_whole and any(not isinstance(size, int) for size in sizes):
            names = dict.fromkeys(name_of(d) for axis, d in free_sizes(model).items() if axis)
            raise ExportError(
                f"ONNX has no `pool … to` for free sizes, which {type(model).__name__} needs",
                f"give each a value: `{' '.join(f'--set {name}=224' for name in names)}`",
            )


def _symbols(model: nn.Module, program: ExportedProgram) -> dict[str, str]:
    """What the exporter calls a size, and the file's expression for it."""
    shape = next(
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name == "x"
    )
    found: dict[str, str] = {}
    for axis, dim in free_sizes(model).items():
        name, text = name_of(dim), str(shape[axis])
        found[text] = name
        root = re.search(r"\bs\d+\b", text)
        if root is not None and root[0] != text:  # 16*s3
            divisor, rest = int(dim.fn(1)) - int(dim.fn(0)), int(dim.fn(0))
            found[root[0]] = f"(({name} - {rest})//{divisor})" if rest else f"({name}//{divisor})"
    return found


def _rename(model: Any, symbols: dict[str, str]) -> None:  # noqa: ANN401 (onnx_ir has few types)
    """Give the sizes in the model the file's names."""
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    for value in values:
        if value.shape is not None:  # some are frozen, so each gets a new one
            value.shape = type(value.shape)([_renamed(dim, symbols) for dim in value.shape])


def _renamed(dim: Any, symbols: dict[str, str]) -> Any:  # noqa: ANN401 (see `_rename`)
    text = getattr(dim, "value", None)
    if not isinstance(text, str):
        return dim
    return symbols.get(text) or re.sub(
        r"\bs\d+\b", lambda found: symbols.get(found[0], found[0]), text
    )
