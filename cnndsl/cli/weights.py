"""`cnndsl weights MODEL --from STATE.safetensors`: weights from elsewhere, fitted to a network."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnndsl.cli import terminal, training
from cnndsl.cli.options import USAGE

if TYPE_CHECKING:
    from cnndsl.runtime.matching import Match
    from cnndsl.runtime.weights import Weights

_FEW = 5  # as many flags as somebody would type
_LISTED = 20  # names in a list; a network has hundreds, and all but a few say the same


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = (
        "Find out which tensor of a file belongs to which layer of a network: first by name, then\n"
        "by order and shape, where the network and the file have as many layers of a shape. Says\n"
        "what it did and what did not fit; with -o, writes the result under the network's own\n"
        "names, for `train`, `eval`, `predict` and `export --weights`, and for cnndsl.load.\n"
        "A .pth or .pt file is a pickle, which can run code: the message says how to convert it."
    )
    parser.epilog = (
        "examples:\n"
        "  cnndsl weights resnet18.cnn --from state.safetensors        what would fit?\n"
        "  cnndsl weights resnet18.cnn --from state.safetensors -o resnet18.safetensors \\\n"
        "      --mean 0.485,0.456,0.406 --deviation 0.229,0.224,0.225\n"
        "  cnndsl weights pets.cnn --from state.safetensors --fresh fc -o trunk.safetensors"
    )
    parser.add_argument("file", metavar="MODEL", help="a .cnn file")
    parser.add_argument(
        "--from", metavar="STATE.safetensors", dest="state", required=True, help="the weights"
    )
    parser.add_argument("-o", metavar="OUT.safetensors", dest="output", help="the file to write")
    parser.add_argument(
        "--fresh",
        metavar="LAYER",
        action="append",
        default=[],
        help="a layer that is to begin anew, whatever the file has; may be given several times",
    )
    training.add_settings(parser)
    for name, text in (("mean", "subtracted from"), ("deviation", "what is left is divided by")):
        parser.add_argument(
            f"--{name}",
            metavar="R,G,B",
            type=_numbers,
            help=f"how images were scaled: {text}, a number a channel, of values in 0 … 1",
        )


def run(arguments: argparse.Namespace) -> int:
    """Match, say so, and write; status 1 where a tensor of the network got nothing."""
    return training.guarded(_fit, arguments)


def _fit(arguments: argparse.Namespace) -> int:
    from cnndsl.runtime import weights
    from cnndsl.runtime.matching import match
    from cnndsl.runtime.scaling import Scaling, refuse_scaling
    from cnndsl.train.compiled import compile_file

    if (arguments.mean is None) != (arguments.deviation is None):
        terminal.complain("`--mean` and `--deviation` need each other", color=arguments.color)
        return USAGE
    model, _ = compile_file(arguments.file, arguments.settings)
    scaling = None
    if arguments.mean is not None:
        scaling = Scaling(arguments.mean, arguments.deviation)
        refuse_scaling(model, scaling)
    if arguments.output and _is_input(arguments):
        return USAGE
    given = weights.read(arguments.state)
    wanted = weights.forms_of(model)
    kept = weights.below(wanted, arguments.fresh) | weights.unsaid(wanted, given)
    found = match({n: f for n, f in wanted.items() if n not in kept}, given.forms)
    print("\n".join(report(type(model).__name__, given, found, kept)))
    if found.missing:
        layers = list(dict.fromkeys(n.rpartition(".")[0] for n in found.missing))
        helps = ["is the file that of another network? The lists above say what it has"]
        if len(layers) <= _FEW:
            flags = " ".join(f"--fresh {layer}" for layer in layers)
            helps = [f"to let {'it' if len(layers) == 1 else 'them'} begin anew: `{flags}`"]
        terminal.complain(
            f"{len(layers)} layer{'s' * (len(layers) > 1)} of the network got nothing",
            *helps,
            color=arguments.color,
        )
        return 1
    if arguments.output:
        weights.write(arguments.output, model, given, found, scaling)
        print(f"wrote {arguments.output}")
    return 0


def _is_input(arguments: argparse.Namespace) -> bool:
    """Whether what would be written is what is read; says so."""
    path = Path(arguments.output)
    for name in (arguments.file, arguments.state):
        if path.exists() and Path(name).exists() and path.samefile(name):
            terminal.complain(
                f"`-o {path}` is what is read, which would be lost",
                "write to another file",
                color=arguments.color,
            )
            return True
    return False


def report(name: str, given: "Weights", found: "Match", fresh: frozenset[str]) -> Iterator[str]:
    """What was matched how, and what was not."""
    yield f"{name} from {given.path}, which has {len(given.forms)} tensors"
    without = f", without the file's prefix `{found.prefix}`" if found.prefix else ""
    yield f"{len(found.named):>6} by name{without}"
    if found.tensors:
        yield f"{len(found.tensors):>6} by order and shape"
    first = {p.ours.rpartition(".")[0]: p.theirs for p in found.tensors[::-1]}
    for pair in found.ordered:
        ours, theirs = (name.rstrip(".") for name in pair.values())
        yield f"         {ours} <- {theirs}   {given.forms[first[ours]]}"
    if found.ordered and not given.is_ordered:
        yield "         check these: the file does not tell in which order its layers stood, so"
        yield "         they were taken in that of their names"
    if found.counters:
        yield f"{len(found.counters):>6} counters of batchnorms begin at 0: the file has none"
    for misfit in found.misfits:
        yield (
            f"  not  `{misfit.pair.ours}`: the network has {misfit.wanted}, the file {misfit.found}"
        )
    for uneven in found.uneven:
        shapes = ", ".join(f"{leaf} {form}" for leaf, form in uneven.forms)
        yield (
            f"  not  {len(uneven.ours)} layers of the network and {len(uneven.theirs)} of the file "
            f"with {shapes}: which belong together cannot be told"
        )
    if found.missing:
        yield f"  not  in the file: {_names(found.missing)}"
    unused = [name for name in found.unused if name not in fresh]
    if unused:
        yield f"  not  in the network: {_names(unused)}"
    if fresh:
        yield f"{len(fresh):>6} begin anew, as you say: {_names(sorted(fresh))}"


def _names(tensors: Sequence[str]) -> str:
    """Layers, or a tensor where it is alone."""
    layers: dict[str, list[str]] = {}
    for name in tensors:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    names = [names[0] if len(names) == 1 else layer for layer, names in layers.items()]
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f", … and {more} more" if more > 0 else "")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"`{text}` is no list of numbers, such as 0.5,0.5,0.5"
        ) from error
