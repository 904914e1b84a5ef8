"""`cnndsl compile FILE`: the Python module of a network, its stages, and what its kernels use."""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cnndsl import output
from cnndsl.check import check_file
from cnndsl.check.settings import parse_setting
from cnndsl.cli import terminal
from cnndsl.cli.options import Parser
from cnndsl.diagnostics.model import Sink
from cnndsl.diagnostics.safe import safe
from cnndsl.emit.module import Written, emit, unbound
from cnndsl.fuse import text as fuse_text
from cnndsl.fuse.choices import NONE, Choices, ChoicesError, load, pinned
from cnndsl.fuse.regions import parts
from cnndsl.graph import text as graph_text
from cnndsl.graph.graph import Graph
from cnndsl.layers.arguments import Value
from cnndsl.source import Source

if TYPE_CHECKING:
    from cnndsl.runtime.target import Compiled, Usage

PLAIN = ("graph", "regions", "python")
STAGES = ("ttir", "ttgir", "ptx", "asm")
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
# How what is written begins; a file that begins so may be replaced.
_BEGINNINGS = {
    "graph": rb"graph \w+\n  input: ",
    "regions": rb"(region 1|PyTorch's operator)\n  ",
    "python": rb'"""[^"]*\nMade by cnndsl ',
}
# Kernels are chosen by sizes, of which the file leaves the batch open; a usual one.
BATCH = 32


def configure(parser: Parser) -> None:
    """Declare what the command takes."""
    parser.description = (
        "Write the network as one readable Python file: an ordinary torch.nn.Module, with the\n"
        "fused kernels that it runs on a GPU. The file imports from cnndsl what programs share;\n"
        "with --standalone it holds that, too, and needs only torch and triton."
    )
    parser.epilog = (
        "examples:\n"
        "  cnndsl compile lenet.cnn -o lenet.py      then: from lenet import LeNet\n"
        "  cnndsl compile lenet.cnn --standalone -o lenet.py   for a machine without cnndsl\n"
        "  cnndsl compile lenet.cnn --emit regions   which layers share a kernel\n"
        "  cnndsl compile lenet.cnn --stats          registers and spills of each kernel, on\n"
        "                                            any machine, for a GPU of your choice"
    )
    parser.add_argument("file", metavar="FILE", help="a .cnn file, or - for standard input")
    parser.add_output("OUT.py")
    parser.add_argument(
        "--set",
        metavar="NAME=V",
        action="append",
        default=[],
        type=_setting,
        dest="settings",
        help="a value for a param or a free size; may be given several times",
    )
    parser.add_argument(
        "--emit",
        metavar="STAGE",
        choices=(*PLAIN, *STAGES),
        default="python",
        help="graph, regions or python; ttir, ttgir, ptx or asm, of each kernel",
    )
    parser.add_argument(
        "--standalone",
        action="store_true",
        help="let the file need torch and triton only, not cnndsl",
    )
    parser.add_argument(
        "--choices",
        metavar="FILE.json",
        help="what was measured to be fastest, as `cnndsl bench --pin` and `cnndsl.tune` write it",
    )
    parser.add_argument(
        "--target",
        metavar="GPU",
        default="sm_90",
        help="for --stats and the stages of kernels: sm_80, sm_90, gfx942, … (sm_90)",
    )
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        choices=tuple(DTYPES),
        default="bf16",
        help="for the same: bf16, fp16 or fp32 (bf16)",
    )
    parser.add_argument(
        "--stats",
        action="store_true",
        help="registers, spills, shared memory and matrix instructions of each kernel",
    )
    parser.add_argument(
        "--format", metavar="FORM", choices=("text", "json"), default="text", help="of --stats"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check, then write what is asked for; status 1 if the model has errors."""
    if arguments.output:
        ours = None if arguments.force else _is_ours(arguments.emit)
        output.check(arguments.output, ours, arguments.file)
    sink = Sink()
    report, source = check_file(arguments.file, dict(arguments.settings), sink)
    graph = report.graph
    terminal.show(sink.sorted(), arguments.color, sink.dropped)
    if graph is None or source is None:
        return 1
    missing = unbound(graph)
    if missing:
        terminal.complain(
            f"`{missing[0]}` has no value, and the module needs one",
            f"give it one: `--set {missing[0]}=64`",
            color=arguments.color,
        )
        return 1
    try:
        choices = load(arguments.choices) if arguments.choices is not None else NONE
        return _emit(arguments, graph, source, choices)
    except ChoicesError as error:
        terminal.complain(error.message, *error.fixes, color=arguments.color)
        return 1


def _emit(arguments: argparse.Namespace, graph: Graph, source: Source, choices: Choices) -> int:
    if arguments.emit in STAGES or arguments.stats or arguments.emit == "python":
        written = emit(graph, source, choices, standalone=arguments.standalone)
        if arguments.emit == "python" and not arguments.stats:
            return _write(arguments, written)
        return _with_kernels(arguments, graph, written)
    if arguments.emit == "graph":
        dump = graph_text.dump(graph)
    else:
        dump = fuse_text.dump(pinned(parts(graph), choices))
    return _write(arguments, Written(f"{dump}\n", ""))


def _setting(text: str) -> tuple[str, Value]:
    try:
        return parse_setting(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# ── what is written ──────────────────────────────────────────────────────────────────────────────


def _write(arguments: argparse.Namespace, written: Written) -> int:
    if arguments.output in (None, "-"):
        sys.stdout.write(written.text)
        return 0
    path = Path(arguments.output)
    with output.replacing(arguments.output) as file:
        file.write_text(written.text, encoding="utf-8")
    use = ""
    if written.name and path.suffix == ".py" and path.stem.isidentifier():
        use = f"; use it: from {path.stem} import {written.name}"
    sys.stderr.write(f"wrote {safe(path)}{use}\n")
    return 0


def _is_ours(stage: str) -> output.IsOurs:
    """Whether a file begins as one does that an earlier run wrote for this stage."""
    begin = re.compile(_BEGINNINGS.get(stage, rb"// [^\n]*: compiled by cnndsl for "))
    return lambda head: begin.match(head) is not None


# ── kernels, compiled for a GPU that need not be there ───────────────────────────────────────────


def _with_kernels(arguments: argparse.Namespace, graph: Graph, written: Written) -> int:
    # Kernels that were made for the interpreter cannot be compiled.
    os.environ.pop("TRITON_INTERPRET", None)
    from cnndsl.runtime.target import TargetError

    if arguments.output and arguments.emit == "python":
        _write(arguments, written)
    try:
        compiled = _compiled(arguments, graph, written)
        if arguments.stats:
            _print_usage(arguments, compiled)
    except TargetError as error:
        terminal.complain(error.message, *error.fixes, color=arguments.color)
        return 1
    if arguments.emit in STAGES:
        return _write(arguments, Written(_stages(arguments, compiled), ""))
    return 0


def _compiled(arguments: argparse.Namespace, graph: Graph, written: Written) -> "list[Compiled]":
    import torch

    from cnndsl.runtime.load import import_text
    from cnndsl.runtime.target import compile_launch, gpu_target, record_model

    gpu_target(arguments.target)  # complains of an unknown one before anything is compiled
    known = dict(graph.example)
    sizes = [int(dim.constant or known[str(dim)]) for dim in graph.source.dims]
    shape = (BATCH, sizes[-1], *sizes[:-1])
    model = getattr(import_text(written), written.name)()
    dtype = getattr(torch, DTYPES[arguments.dtype])
    launches = record_model(model, shape, dtype)
    return [compile_launch(launch, arguments.target) for launch in launches]


def _print_usage(arguments: argparse.Namespace, compiled: "list[Compiled]") -> None:
    from cnndsl.runtime.target import measure

    usages = measure(compiled)
    if arguments.format == "json":
        for usage in usages:
            print(json.dumps(usage.json()))
        return
    rows = [("kernel", "registers", "spills", "shared", "matrix", "TMA", "instructions")]
    rows += [_row(usage) for usage in usages]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"{arguments.target}, {arguments.dtype}, a batch of {BATCH}")
    for name, *cells in rows:
        numbers = (f"{c:>{w}}" for c, w in zip(cells, widths[1:], strict=True))
        print("  ".join([f"{name:<{widths[0]}}", *numbers]))


def _row(usage: "Usage") -> tuple[str, ...]:
    return (
        usage.kernel,
        str(usage.registers),
        str(usage.spills),
        str(usage.shared_bytes),
        usage.mma,
        "yes" if usage.tma else "no",
        str(usage.instructions),
    )


def _stages(arguments: argparse.Namespace, compiled: "list[Compiled]") -> str:
    from cnndsl.runtime.target import stage_text

    return "\n".join(
        f"// {kernel.launch.name}: compiled by cnndsl for {kernel.target}\n"
        f"{stage_text(kernel, arguments.emit)}"
        for kernel in compiled
    )
