"""What the numbers at a network's end say of an image, and what follows: loss, answer, chances.

K numbers are logits of K classes. One number before a final `sigmoid` is the logit of the second of
two classes. K numbers before a `sigmoid` are answers to K questions, which no single class answers.
"""

from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnndsl.runtime.scaling import takes_bytes
from cnndsl.train.errors import TrainError
from cnndsl.train.examples import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["classes", "binary", "independent"]


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """What the network says of each class, before any softmax or final sigmoid.

    Images are given in the type of its parameters. Bytes become values 0 … 1, but for a network
    that takes bytes.
    """
    logits = cast("Callable[[Tensor], Tensor]", getattr(model, "logits", model))
    if takes_bytes(model):
        return logits(images)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    dtype = parameter.dtype if parameter is not None else torch.float32
    if images.dtype == torch.uint8:
        return logits(images.to(dtype) / 255)
    return logits(images.to(dtype))


def kind_of(model: nn.Module, logits: object) -> Kind:
    """What the logits of some images mean; raises `TrainError` where they name no classes."""
    if not isinstance(logits, Tensor):
        raise TrainError(
            f"the network gives a {type(logits).__name__}, not one tensor",
            "let its `forward`, or a method `logits`, give one tensor: a number for each class",
        )
    if logits.ndim != 2:
        raise TrainError(
            f"for each image the network gives the shape {tuple(logits.shape[1:])}, not one number "
            "for each class",
            *_flatter(tuple(logits.shape[1:])),
        )
    _refuse_applied(model)
    outputs = logits.shape[1]
    if ends_in_sigmoid(model):
        return "binary" if outputs == 1 else "independent"
    if outputs == 1:
        raise TrainError(
            "the network gives one number for each image, which tells no classes apart",
            "for two classes, end in `fc 1` and `sigmoid`, or in `fc 2`",
            "for another meaning of the number, write a loop with a loss of your own",
        )
    return "classes"


def refuse_independent(kind: Kind, outputs: int) -> None:
    """Raise `TrainError` for answers that no single class an image can be compared with."""
    if kind == "independent":
        raise TrainError(
            f"the network ends in `sigmoid` over {outputs} numbers, which answer {outputs} "
            "independent questions, but each image has one class",
            "for one class of several, take `softmax` in place of `sigmoid`",
            "for two classes, end in `fc 1` and `sigmoid`",
            "for several labels an image, write a loop with `model.loss`: it takes (N, "
            f"{outputs}) labels of 0 and 1",
        )


def ends_in_sigmoid(model: nn.Module) -> bool:
    """Whether `forward` applies a sigmoid to what `logits` gives."""
    return getattr(model, "ends_in", "") == "sigmoid"


def classes_of(kind: Kind, outputs: int) -> int:
    """How many classes an image can be of."""
    return 2 if kind == "binary" else outputs


def summed_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The cross-entropy, added up over images; binary where there is one logit an image.

    Passes over images that stand in for none.
    """
    if logits.shape[1] > 1:
        return functional.cross_entropy(
            logits, labels, reduction="sum", ignore_index=IGNORED, label_smoothing=smoothing
        )
    counted = labels != IGNORED
    wanted = labels.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    losses = functional.binary_cross_entropy_with_logits(logits[:, 0], wanted, reduction="none")
    return torch.where(counted, losses, 0).sum()


def taken_for(logits: Tensor) -> Tensor:
    """The likeliest class of each image."""
    return logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).long()


def chances(kind: Kind, logits: Tensor) -> Tensor:
    """The probability of each class, (N, classes); for independent answers, of each yes."""
    match kind:
        case "classes":
            return torch.softmax(logits, 1)
        case "binary":
            return torch.sigmoid(torch.cat([-logits, logits], 1))
        case "independent":
            return torch.sigmoid(logits)


def _flatter(shape: tuple[int, ...]) -> list[str]:
    if len(shape) == 3 and shape[1:] == (1, 1):
        return ["add `flatten` at its end"]
    return [
        "let it end in one number for each class: `globalpool avg`, `flatten` and `fc N`",
        "for a class for each pixel, write a loop of your own: examples/train.py shows one",
    ]


def _refuse_applied(model: nn.Module) -> None:
    """Of a module from elsewhere the output is taken for logits; some ends say that it is not."""
    last: nn.Module | None = model
    while isinstance(last, nn.Sequential) and len(last):
        last = last[-1]
    if isinstance(last, nn.Softmax | nn.Sigmoid):
        name = type(last).__name__
        raise TrainError(
            f"the network ends in `nn.{name}`, but its output is taken for logits",
            f"leave `nn.{name}` out: the loss and `predict` apply it",
        )
