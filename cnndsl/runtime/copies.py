"""Counts the images and weights that a step copies only to lay them out otherwise in memory.

Goes through a step on the CPU as a GPU would, but launches no kernel, so that what is computed is
nonsense, but lies where it would lie. What PyTorch's own operators copy within themselves, it does
not see.
"""

import sys
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from cnndsl.runtime.scaling import takes_bytes
from cnndsl.runtime.some_loss import some_labels, some_loss
from cnndsl.runtime.using import always, never, using

# Emitted modules carry no types.
Untyped = Any


def copies(model: nn.Module, images: Tensor) -> list[str]:
    """Name each copy that kernels ask for in a step of training on images like these (N, C, H, W).

    What kernels read lies with channels innermost and without gaps; what does not is copied, in
    each step. For channels-last images and a model of `.to(memory_format=torch.channels_last)`
    none is made for a chain of layers; docs/performance.md says for which layers some are. Only
    shape and strides of the images count. `TypeError` for a module that `cnndsl.compile` did not
    make.
    """
    if "refuse_input" not in vars(sys.modules[type(model).__module__]):
        raise TypeError(f"{type(model).__name__} is no module that cnndsl.compile made")
    found: list[str] = []

    def note(tensor: Tensor) -> None:
        found.append(f"{tuple(tensor.shape)} with strides {tensor.stride()}")

    twin: Untyped = deepcopy(model).to("cpu", torch.float32).train()
    dtype = torch.uint8 if takes_bytes(model) else torch.float32
    x = torch.empty_strided(images.shape, images.stride(), dtype=dtype)
    with using(model, takes=always, launches=never, copies=note):
        y = some_labels(twin, twin.logits(x))
        found.clear()  # a step is the loss and its gradients
        torch.autograd.backward(some_loss(twin, x, y))
    return found
