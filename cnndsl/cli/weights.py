"""`cnndsl weights MODEL --from STATE.safetensors`: weights from elsewhere, fitted to a network."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnndsl import output
from cnndsl.cli import terminal, training
from cnndsl.cli.options import USAGE, Parser
from cnndsl.diagnostics.safe import safe, safe_list

if TYPE_CHECKING:
    from cnndsl.runtime.matching import Form, Match, Uneven
    from cnndsl.runtime.weights import Weights

_FEW = 5  # as many flags as somebody would type
_BY_NAMES = "names"  # as `--order`: the file's layers stand in the order of their names
# Names that other libraries give to weights, and what to do about them.
_STRANGERS = {
    "kernel": "`kernel` is Keras's or Flax's name: their weights lie in another order of axes. "
    "Load the model into PyTorch first, and save that",
    "weight_orig": "`weight_orig` is a pruned or normalised weight: "
    "`torch.nn.utils.prune.remove` or `remove_spectral_norm` before saving",
    "weight_g": "`weight_g` is a normalised weight: `remove_weight_norm` before saving",
    "original0": "`parametrizations` are in the file: `remove_parametrizations` before saving",
}


def configure(parser: Parser) -> None:
    """Declare what the command takes."""
    parser.description = (
        "Find out which tensor of a file belongs to which layer of a network: first by name, then\n"
        "by order and shape, where the network and the file have as many layers of a shape. Says\n"
        "what it did and what did not fit; with -o, writes the result under the network's own\n"
        "names, for `train`, `eval`, `predict` and `export --weights`, and for cnndsl.load.\n"
        "Layers of the same shapes and other names are taken in order, if the file says the order\n"
        "(its metadata `order`) or you do (`--order`).\n"
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
    parser.add_output("OUT.safetensors")
    parser.add_argument(
        "--fresh",
        metavar="LAYER",
        action="append",
        default=[],
        help="a layer that keeps fresh weights, whatever the file has; may be given several times",
    )
    parser.add_argument(
        "--order",
        metavar="WHAT",
        help="the order of the file's layers, if it does not say it: `names` (that of their "
        "names, numbers as numbers), or a file with the tensors' names in order, one a line",
    )
    parser.add_argument(
        "--prefix",
        metavar="TEXT",
        help="what stands before the names that are meant, where the file has several sets",
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
    if arguments.output:
        ours = None if arguments.force else weights.is_ours
        output.check(arguments.output, ours, arguments.file, arguments.state)
    model, _ = compile_file(arguments.file, arguments.settings)
    given = weights.read(arguments.state, _order(arguments.order))
    scaling = given.scaling
    if arguments.mean is not None:
        scaling = Scaling(arguments.mean, arguments.deviation)
    if scaling is not None:
        refuse_scaling(model, scaling)
    wanted = weights.forms_of(model)
    kept = weights.below(wanted, arguments.fresh) | weights.unsaid(wanted, given)
    rest = {n: f for n, f in wanted.items() if n not in kept}
    prefix = _prefix(arguments.prefix, given)
    found = match(rest, given.forms, prefix=prefix, is_ordered=given.is_ordered)
    # What is written to a pipe or a terminal must not be mixed with what is said.
    words = sys.stderr if output.is_standard_output(arguments.output) else sys.stdout
    print("\n".join(report(type(model).__name__, given, wanted, found, kept)), file=words)
    if found.rivals or found.missing:
        terminal.complain(*_complaint(given, found), color=arguments.color)
        return 1
    tensors = weights.fitted(model, given, found)
    if arguments.output:
        weights.write(arguments.output, tensors, scaling)
        print(f"wrote {safe(arguments.output)}", file=words)
    return 0


def _order(given: str | None) -> list[str] | None:
    """The tensors' names that `--order` says; none for the order of the names themselves."""
    from cnndsl.train import UsageError

    if given is None:
        return None
    if given == _BY_NAMES:
        return []
    path = Path(given)
    if not path.is_file():
        raise UsageError(
            f"`--order` is `{_BY_NAMES}` or a file, and there is no file `{safe(given)}`"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"`{safe(given)}` is not a text file of names") from error
    return [line.strip() for line in lines if line.strip()] or [""]


def _prefix(given: str | None, weights: "Weights") -> str | None:
    """The prefix that the user gave, with its last point."""
    from cnndsl.train import UsageError

    if given is None:
        return None
    for prefix in (given, f"{given}."):
        if any(name.startswith(prefix) and prefix.endswith(".") for name in weights.forms):
            return prefix
    if given == "":
        return given
    starts = dict.fromkeys(name.partition(".")[0] for name in weights.forms)
    raise UsageError(
        f"no name in `{safe(weights.path)}` begins with `{safe(given)}.`",
        f"they begin with: {safe_list(starts)}",
    )


def _complaint(given: "Weights", found: "Match") -> list[str]:
    """What is wrong, and what would help."""
    if found.rivals:
        names = " and ".join(f"`{safe(p)}`" for p in (found.prefix, *found.rivals)[:_FEW])
        return [
            f"`{safe(given.path)}` has the weights of this network more than once: below {names}",
            f"say which to take: `--prefix {safe(found.prefix)}`",
        ]
    if found.uncertain or found.crossed:
        helps = [
            "if the file's layers stand in the order of their names: `--order names`",
            "else write the names of its tensors to a file, in the model's order: "
            "`--order NAMES.txt`",
        ]
        if given.is_ordered:
            helps = ["name the layers in the `.cnn` file as the weights do: `… as NAME`"]
        return ["it is not certain which layers belong together", *helps]
    layers = list(dict.fromkeys(n.rpartition(".")[0] for n in found.missing))
    leaves = {name.rpartition(".")[2] for name in found.unused}
    helps = [text for leaf, text in _STRANGERS.items() if leaf in leaves]
    if not helps and len(layers) <= _FEW:
        flags = " ".join(f"--fresh {safe(layer)}" for layer in layers)
        helps = [f"to let {'it' if len(layers) == 1 else 'them'} begin fresh: `{flags}`"]
    return [
        f"{len(layers)} layer{'s' * (len(layers) > 1)} of the network got nothing",
        *(helps or ["is the file that of another network? The lists above say what it has"]),
    ]


def report(
    name: str,
    given: "Weights",
    wanted: "Mapping[str, Form]",
    found: "Match",
    fresh: frozenset[str],
) -> Iterator[str]:
    """What was matched how, and what was not."""
    yield f"{name} from {safe(given.path)}, which has {len(given.forms)} tensors"
    without = f", without the file's prefix `{safe(found.prefix)}`" if found.prefix else ""
    yield f"{len(found.named):>6} by name{without}"
    if found.tensors:
        yield f"{len(found.tensors):>6} by order and shape"
    first = {p.ours.rpartition(".")[0]: p.theirs for p in found.tensors[::-1]}
    for pair in found.ordered:
        ours, theirs = (name.rstrip(".") for name in pair.values())
        yield f"         {safe(ours)} <- {safe(theirs)}   {given.forms[first[ours]]}"
    yield from _reshaped(given, wanted, found)
    if found.counters:
        yield f"{len(found.counters):>6} counters of batchnorms begin at 0: the file has none"
    yield from _unfit(found)
    if found.missing:
        yield f"  not  in the file: {_names(found.missing)}"
    unused = [name for name in found.unused if name not in fresh]
    if unused:
        yield f"  not  in the network: {_names(unused)}"
    if found.records:
        yield f"         left out, for no layer needs it: {safe_list(found.records)}"
    if fresh:
        yield f"{len(fresh):>6} keep fresh weights, as you say: {_names(sorted(fresh))}"


def _reshaped(given: "Weights", wanted: "Mapping[str, Form]", found: "Match") -> Iterator[str]:
    """Which tensors have other dimensions of size 1, so that the numbers lie alike."""
    pairs = [
        (ours, theirs)
        for ours, theirs in found.sources.items()
        if wanted[ours].shape != given.forms[theirs].shape
    ]
    if pairs:
        yield f"{len(pairs):>6} of them under another shape, with the numbers in the same order"
    for ours, theirs in pairs[:_FEW]:
        yield (f"         {safe(ours)} {wanted[ours]} <- {safe(theirs)} {given.forms[theirs]}")
    if len(pairs) > _FEW:
        yield f"         … and {len(pairs) - _FEW} more"


def _unfit(found: "Match") -> Iterator[str]:
    """What could not be matched, and why."""
    for misfit in found.misfits:
        yield (
            f"  not  `{safe(misfit.pair.ours)}`: the network has {misfit.wanted}, "
            f"the file {misfit.found}"
        )
    for uneven in found.uneven:
        yield (
            f"  not  {len(uneven.ours)} layers of the network and {len(uneven.theirs)} of the file "
            f"with {_shapes(uneven)}: which belong together cannot be told"
        )
    for group in found.uncertain:
        yield (
            f"  not  certain: {_layers(group.ours)} of the network and {_layers(group.theirs)} of "
            f"the file all have {_shapes(group)}, and the file does not say its order"
        )
    for pair in found.crossed:
        ours, theirs = (safe(name.rstrip(".")) for name in pair.values())
        yield (
            f"  not  certain: {ours} <- {theirs} fits in shape, but layers of that shape with the "
            "same names in both stand in another order"
        )


def _shapes(group: "Uneven") -> str:
    return ", ".join(f"{leaf} {form}" for leaf, form in group.forms)


def _layers(names: Sequence[str]) -> str:
    return safe_list((name.rstrip(".") for name in names), _FEW)


def _names(tensors: Sequence[str]) -> str:
    """Layers, or a tensor where it is alone."""
    layers: dict[str, list[str]] = {}
    for name in tensors:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return safe_list(names[0] if len(names) == 1 else layer for layer, names in layers.items())


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"`{safe(text)}` is not a list of numbers, such as 0.5,0.5,0.5"
        ) from error
