"""`cnndsl export FILE|RUN -o OUT.onnx`: a network as an ONNX file."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cnndsl import output
from cnndsl.check.settings import parse_setting
from cnndsl.cli import terminal, training
from cnndsl.cli.options import Parser
from cnndsl.diagnostics.safe import safe

if TYPE_CHECKING:
    from torch import nn

_SYSTEM = 74  # the status for a package that is not installed


def configure(parser: Parser) -> None:
    """Declare what the command takes."""
    parser.description = (
        "Write a network as an ONNX file, which onnxruntime and many others run without PyTorch.\n"
        "The batch and the free sizes of the file stay free, under their names. What comes out is\n"
        "what the file says, in evaluation mode; images go in as the network was trained on them:\n"
        "the metadata say how they were scaled."
    )
    parser.epilog = (
        "examples:\n"
        "  cnndsl export runs/digits -o digits.onnx\n"
        "  cnndsl export resnet18.cnn --weights resnet18.safetensors -o resnet18.onnx"
    )
    training.add_network(parser, with_device=False)
    parser.add_output("OUT.onnx", required=True)


def run(arguments: argparse.Namespace) -> int:
    """Write the file; status 1 where the model or the weights do not allow it."""
    from cnndsl.tools.onnx import is_ours, refuse_missing

    try:
        refuse_missing()
    except ModuleNotFoundError as error:
        message, *helps = str(error).split("\n  help: ")
        terminal.complain(message, *helps, color=arguments.color)
        return _SYSTEM
    reads = [name for name in (arguments.run, arguments.weights) if name is not None]
    output.check(arguments.output, None if arguments.force else is_ours, *reads)
    if Path(arguments.run).is_dir():
        return training.guarded(_export_run, arguments)
    return _export_file(arguments)


def _export_run(arguments: argparse.Namespace) -> int:
    from cnndsl.train import UsageError, open_run
    from cnndsl.train.restore import model_of

    if arguments.weights is not None or arguments.settings:
        raise UsageError("a run has its own weights and settings: give its folder alone")
    model, skipped = model_of(open_run(Path(arguments.run)))
    training.tell_skipped(skipped)
    return _write(arguments, model)


def _export_file(arguments: argparse.Namespace) -> int:
    """A file needs nothing that training does."""
    import cnndsl
    from cnndsl.runtime import weights
    from cnndsl.runtime.load import instance, write
    from cnndsl.runtime.scaling import tell_scaling

    try:
        settings = dict(parse_setting(text) for text in arguments.settings)
        model = instance(write(arguments.run, None, settings))
        if arguments.weights is None:
            print("note: without --weights the network has random ones", file=sys.stderr)
        else:
            given = weights.read(arguments.weights)
            weights.load_into(model, given)
            tell_scaling(model, given.scaling)
    except cnndsl.CheckError as error:
        terminal.show(error.diagnostics, arguments.color)
        return 1
    except cnndsl.WeightsError as error:
        terminal.complain(error.message, *error.fixes, color=arguments.color)
        return 1
    return _write(arguments, model)


def _write(arguments: argparse.Namespace, model: "nn.Module") -> int:
    import cnndsl
    from cnndsl.tools import onnx

    try:
        what = onnx.write(model, arguments.output)
    except cnndsl.ExportError as error:
        terminal.complain(error.message, *error.fixes, color=arguments.color)
        return 1
    # What is written to a pipe or a terminal must not be mixed with what is said.
    words = sys.stderr if output.is_standard_output(arguments.output) else sys.stdout
    print(f"wrote {safe(arguments.output)}: {what}", file=words)
    return 0
