"""A network run by PyTorch, layer by layer, from the texts that the layers say of themselves."""

import torch

from cnndsl.layers.types import TensorType
from tests.layers.drawing import Case, Holder, image, refuse, tensor, vector

IMAGES = 2


def type_of(value: torch.Tensor) -> TensorType:
    sizes = list(value.shape[1:])
    return vector(*sizes) if len(sizes) == 1 else image(sizes[1], sizes[2], sizes[0])


def arranged(value: torch.Tensor) -> list[int]:
    """The sizes as the language says them: height, width, channels."""
    sizes = list(value.shape[1:])
    return sizes if len(sizes) == 1 else [*sizes[1:], sizes[0]]


class Ran:
    """What came out: each layer's sizes and parameters, up to one that PyTorch refuses."""

    def __init__(self, source: TensorType, nodes) -> None:
        """`nodes` are pairs of a layer and what it reads, by number; −1 is the input."""
        self.sizes: list[list[int]] = []
        self.params = self.buffers = 0
        self.refusal: str | None = None
        values = {-1: tensor(source, IMAGES)}
        for number, (layer, inputs) in enumerate(nodes):
            read = [values[i] for i in inputs]
            case = Case(layer, tuple(type_of(value) for value in read))
            try:
                refuse(case, read)
                holder = Holder(case).eval()
                with torch.no_grad():
                    out = holder(*read)
            except (RuntimeError, TypeError, ValueError, IndexError) as error:
                self.refusal = f"{layer.write()}: {error}"
                return
            if not out.numel():
                self.refusal = f"{layer.write()}: the output is empty"
                return
            values[number] = out
            self.sizes.append(arranged(out))
            self.params += sum(p.numel() for p in holder.parameters())
            self.buffers += sum(b.numel() for b in holder.buffers() if b.ndim)
