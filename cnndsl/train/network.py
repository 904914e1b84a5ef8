"""What training asks of a network: logits, an input shape. Any `nn.Module` that maps images does.

Modules that `cnndsl.compile` makes have `logits(x)` and `input_shape`; of others, the output is
taken for the logits. Knows no data and no files.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from cnndsl.diagnostics.safe import safe_list
from cnndsl.runtime.scaling import takes_bytes
from cnndsl.train.ending import Kind, classes_of, kind_of, logits_of, refuse_independent
from cnndsl.train.errors import TrainError
from cnndsl.train.examples import Examples
from cnndsl.train.fit import Shape
from cnndsl.train.labelled import refuse_strangers

_ONE_VALUE = "Expected more than 1 value per channel"  # torch's words, of batchnorm


class Logits(nn.Module):
    """A network whose `forward` gives the logits: what wraps modules calls nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """What the network says of each class."""
        return logits_of(self.model, images)


def leaves_out(model: nn.Module, images: Tensor) -> bool:
    """Whether some parameters have no part in the logits, as those of an extra `output`."""
    return bool(idle_parameters(model, images))


def idle_parameters(model: nn.Module, images: Tensor) -> list[str]:
    """The parameters that are to learn and have no part in the logits."""
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    training = model.training
    try:
        logits = logits_of(model.eval(), images)
        found = torch.autograd.grad(logits.sum(), list(learned.values()), allow_unused=True)
    finally:
        model.train(training)
    gradients = cast("tuple[Tensor | None, ...]", found)
    return [name for name, given in zip(learned, gradients, strict=True) if given is None]


def input_shape(model: nn.Module) -> Shape | None:
    """(channels, height, width), None for what is free; None if the network does not tell.

    Raises `TrainError` for a network that takes no images.
    """
    shape = cast("tuple[int | None, ...] | None", getattr(model, "input_shape", None))
    if shape is not None and len(shape) != 3:
        raise TrainError(
            "the network takes no images: one of its inputs has the shape "
            f"({', '.join(str(s or '?') for s in shape)})",
            "let the network begin with `input HEIGHT x WIDTH x CHANNELS`",
        )
    return shape


def check_fit(model: nn.Module, examples: Examples, classes: tuple[str, ...]) -> int:
    """Raise `TrainError` unless the data fits the network; gives the number of classes."""
    _check_shapes(model, examples.shape)
    images = next(iter(examples.batches(2, None))).images
    if takes_bytes(model) and images.dtype != torch.uint8:
        raise TrainError(
            f"the network takes bytes, `input … u8`, but the images are {images.dtype}",
            "give them as they are stored, 0 to 255: `torch.uint8`",
            "leave `u8` out of the file: then images are floats, scaled as you like",
        )
    parameter = next(model.parameters(), None)
    device = parameter.device if parameter is not None else images.device
    training = model.training
    try:
        with torch.no_grad():
            answer = logits_of(model.eval(), images[:2].to(device))
    finally:
        model.train(training)
    kind = kind_of(model, answer)
    outputs = answer.shape[1]
    refuse_independent(kind, outputs)
    count = classes_of(kind, outputs)
    _check_classes(cast("tuple[str, ...]", getattr(model, "classes", ())), classes, kind)
    if classes and count != len(classes):
        raise TrainError(
            f"the network tells {count} classes apart, but the data has {len(classes)}: "
            f"{safe_list(classes)}",
            f"let its last layer be `fc {len(classes)}`",
        )
    labels = getattr(examples, "labels", None)
    if isinstance(labels, Tensor):
        refuse_strangers(labels, count)
    return count


def _check_shapes(model: nn.Module, given: tuple[int, ...]) -> None:
    if len(given) != 3:
        raise TrainError(
            f"one image has the shape {given}", "give three dims: (channels, height, width)"
        )
    wanted = input_shape(model)
    if wanted is not None and any(w not in (None, g) for w, g in zip(wanted, given, strict=True)):
        raise TrainError(
            f"the network takes images of {_words(wanted)}, but the data has {_words(given)}",
            *_ways_to_fit(wanted, given),
            f"let the network begin with `input {_words(given)}`",
        )


def _check_classes(labels: tuple[str, ...], classes: tuple[str, ...], kind: Kind) -> None:
    """The names in the network's file must be those of the data, in their order."""
    # The one number of a network for two classes says how likely the second is.
    wanted = classes[1:] if kind == "binary" and len(labels) == 1 else classes
    if labels and classes and labels != wanted:
        statement = " ".join(["labels", *(f'"{name}"' for name in wanted)])
        raise TrainError(
            f"the network's `labels` are {safe_list(labels)}, but the data has {safe_list(wanted)}",
            f"write `{statement}`, or leave `labels` out",
        )


def refuse_idle_heads(model: nn.Module, images: Tensor) -> None:
    """Raise `TrainError` where an `output` of the file has layers that would learn nothing."""
    if not hasattr(model, "outputs"):
        return
    idle = idle_parameters(model, images)
    if idle:
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in idle))
        raise TrainError(
            f"{_either(layers)} would learn nothing: only the network's last output is trained, "
            "and they have no part in it",
            "to train several outputs, write a loop over `model.outputs(x)` with a loss for each",
            "to train the last one alone, take the others out of the file, or freeze what they "
            f"have: `model.get_submodule({layers[0]!r}).requires_grad_(False)`",
        )


def refuse_single(model: nn.Module, image: Tensor, helps: str) -> None:
    """Raise `TrainError` if the network cannot learn from one image (1, C, H, W) alone.

    Batchnorm of a vector cannot: it has one value for each channel.
    """
    copy = deepcopy(model).cpu().train()
    drawn = torch.get_rng_state()  # dropout draws numbers, which would change those of the training
    try:
        with torch.no_grad(), naming_one_image(helps):
            logits_of(copy, image.cpu())
    finally:
        torch.set_rng_state(drawn)


@contextmanager
def naming_one_image(
    helps: str = "let each batch have at least two images, for example with `drop_last=True`",
) -> Generator[None]:
    """Turn what torch says of a batchnorm that sees one value only into a `TrainError`."""
    try:
        yield
    except ValueError as error:
        if _ONE_VALUE not in str(error):
            raise
        raise TrainError(
            "a batch of the training has one image only, and a batchnorm of this network needs "
            "at least two to take statistics of",
            helps,
        ) from error


def _ways_to_fit(wanted: Shape, given: tuple[int, ...]) -> list[str]:
    """Which options would bring the images to what the network takes."""
    options: list[str] = []
    words: list[str] = []
    if any(w not in (None, g) for w, g in zip(wanted[1:], given[1:], strict=True)):
        options.append("--resize")
        words.append("bring the images to its size")
    if {wanted[0], given[0]} == {1, 3}:
        options.append("--recolor")
        words.append("make them RGB" if wanted[0] == 3 else "make them grey")
    elif wanted[0] not in (None, given[0]):
        return []
    flags = " ".join(options)
    return [f"{' and '.join(words)}: `{flags}` (from Python: {_keywords(options)})"]


def _keywords(options: list[str]) -> str:
    return ", ".join(f"`{option.removeprefix('--')}=True`" for option in options)


def first_not_finite(model: nn.Module, images: Tensor) -> str | None:
    """Where nan or infinity comes from: the images, a parameter, or the first layer to give it.

    A copy on the CPU is asked: there, every layer of an emitted module runs on its own.
    """
    if not _finite(images):
        return "the images already hold nan or infinity"
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"`{name}` is not finite"
    culprits: list[str] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> None:
            if isinstance(output, Tensor) and not _finite(output):
                culprits.append(name)

        return hook

    copy = deepcopy(model).cpu()
    for name, layer in cast("Iterable[tuple[str, nn.Module]]", copy.named_modules()):
        if name:
            layer.register_forward_hook(note(name))
    with torch.no_grad():
        logits_of(copy, images.cpu())
    return f"the first layer to give nan or infinity is `{culprits[0]}`" if culprits else None


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _either(layers: list[str]) -> str:
    shown = ", ".join(f"`{layer}`" for layer in layers[:5])
    return f"{shown}, …" if len(layers) > 5 else shown


def _words(shape: tuple[int | None, ...]) -> str:
    """Channels, height and width as the language writes them: height x width x channels."""
    channels, height, width = ("?" if s is None else str(s) for s in shape)
    return f"{height} x {width} x {channels}"
