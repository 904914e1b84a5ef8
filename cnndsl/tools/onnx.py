"""A compiled model as an ONNX file, for programs that run without PyTorch.

Knows ONNX; what becomes of the model before that is for `program`.
"""

import json
import os
import re
import tempfile
import warnings
from importlib import import_module
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.export import ExportedProgram

from cnndsl.runtime.errors import ExportError
from cnndsl.runtime.scaling import NAMES, takes_bytes
from cnndsl.tools.program import export_with_outputs, free_sizes, name_of

_export: Any = vars(torch.onnx)["export"]
INPUT, OUTPUT = "input", "output"


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
    refuse_missing()
    program, labels = export_with_outputs(model)
    names = [OUTPUT]
    for label in labels:
        while label in (INPUT, *names):
            label += "_"
        names.append(label)
    _refuse_free_adaptive(model, program)
    with warnings.catch_warnings():
        # PyTorch's own use of what it deprecates is nothing that a user could change.
        warnings.simplefilter("ignore")
        found = _export(
            program, dynamo=True, input_names=[INPUT], output_names=names, verbose=False
        )
    _rename(found.model, _symbols(model, program))
    # What takes bytes scales them itself.
    for name in ("classes", *(() if takes_bytes(model) else NAMES)):
        value = cast("tuple[object, ...]", getattr(model, name, ()))
        if value:
            found.model.metadata_props[name] = json.dumps(value, ensure_ascii=False)
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(descriptor)
    try:
        found.save(temporary)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def describe(path: str | PathLike[str]) -> str:
    """What goes into an ONNX file and what comes out, in a line."""
    graph: Any = import_module("onnx").load(os.fspath(path), load_external_data=False).graph
    return ", ".join(
        f"{value.name} "
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
        for axis, dim in enumerate(value.shape or ()):
            text = getattr(dim, "value", None)
            if isinstance(text, str):
                value.shape[axis] = symbols.get(text) or re.sub(
                    r"\bs\d+\b", lambda found: symbols.get(found[0], found[0]), text
                )
