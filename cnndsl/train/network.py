"""What training asks of a network: logits, an input shape. Any `nn.Module` that maps images does.

Modules that `cnndsl.compile` makes have `logits(x)` and `input_shape`; of others, the output is
taken for the logits. Knows no data and no files.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from cnndsl.runtime.scaling import takes_bytes
from cnndsl.train.errors import TrainError
from cnndsl.train.examples import Examples
from cnndsl.train.fit import Shape


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """What the network says of each class, before any softmax."""
    logits = cast("Callable[[Tensor], Tensor]", getattr(model, "logits", model))
    is_cast = images.dtype == torch.uint8 and not takes_bytes(model)
    return logits(images.float() if is_cast else images)


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
    learned = [p for p in model.parameters() if p.requires_grad]
    training = model.training
    try:
        logits = logits_of(model.eval(), images)
        found = torch.autograd.grad(logits.sum(), learned, allow_unused=True)
    finally:
        model.train(training)
    return any(gradient is None for gradient in cast("tuple[Tensor | None, ...]", found))


def input_shape(model: nn.Module) -> Shape | None:
    """(channels, height, width), None for what is free; None if the network does not tell."""
    return cast("Shape | None", getattr(model, "input_shape", None))


def check_fit(model: nn.Module, examples: Examples, classes: tuple[str, ...]) -> int:
    """Raise `TrainError` unless the data fits the network; gives the number of classes."""
    wanted, given = input_shape(model), examples.shape
    if len(given) != 3:
        raise TrainError(
            f"one image has the shape {given}", "give three dims: (channels, height, width)"
        )
    if wanted is not None and any(w not in (None, g) for w, g in zip(wanted, given, strict=True)):
        raise TrainError(
            f"the network takes images of {_words(wanted)}, but the data has {_words(given)}",
            *_ways_to_fit(wanted, given),
            f"let the network begin with `input {_words(given)}`",
        )
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
    if answer.ndim != 2 or answer.shape[0] != min(2, len(images)):
        raise TrainError(
            f"for each image the network gives the shape {tuple(answer.shape[1:])}",
            f"let it end in one number a class: `flatten` and `fc {len(classes) or 'N'}`",
        )
    labels = cast("tuple[str, ...]", getattr(model, "classes", ()))
    if labels and classes and labels != classes:
        statement = " ".join(["labels", *(f'"{name}"' for name in classes)])
        raise TrainError(
            f"the network's `labels` are {_list(labels)}, but the data has {_list(classes)}",
            f"write `{statement}`, or leave `labels` out",
        )
    if classes and answer.shape[1] != len(classes):
        raise TrainError(
            f"the network tells {answer.shape[1]} classes apart, but the data has {len(classes)}",
            f"let its last layer be `fc {len(classes)}`",
        )
    return answer.shape[1]


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


def _list(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:10])
    return f"{shown}, …" if len(names) > 10 else shown


def _words(shape: tuple[int | None, ...]) -> str:
    """Channels, height and width as the language writes them: height x width x channels."""
    channels, height, width = ("?" if s is None else str(s) for s in shape)
    return f"{height} x {width} x {channels}"
