"""FSDP2 on compiled networks in two processes: the same step as one process makes on all images.

    python -m tests.train.sharded

With `TRITON_INTERPRET=1` the fused kernels run, in Triton's interpreter.
"""

import os
import sys
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

import cnndsl
from tests.train.forked import ends, side_by_side

STEM = """\
input 6 x 6 x 1
block stage(filters) {
    conv filters 3x3 pad=same; relu
}
stage 2 as first
pool max 2
stage 4 as second
"""
HEAD = "input 3 x 3 x 4\nflatten\nfc 3\n"
WHOLE = STEM + "flatten\nfc 3\n"
# A pool and a sum that kernels of blocks compute, too, and blocks that share a class.
RESIDUAL = """\
input 6 x 6 x 1
block residual(filters) {
    add {
        conv filters 3x3 pad=1 as conv1; batchnorm as bn1; relu
        conv filters 3x3 pad=1 as conv2; batchnorm as bn2
    } {
        if channels == filters { skip } else { conv filters 1x1 as shortcut.0 }
    }
    relu
}
block plain(filters) {
    conv filters 3x3 pad=1; relu
}
repeat 3 as stage { residual 4 }
plain 3 as last
pool max 2
globalpool avg
flatten
fc 3 as fc
"""
RESNET = (Path(__file__).parents[2] / "examples/zoo/resnet18.cnn").read_text("utf-8")


@cache
def compiled(text: str) -> nn.Module:
    return cnndsl.compile(source=text, **({"classes": 3} if text == RESNET else {}))


def new(text: str) -> nn.Module:
    """As `compile` gives it; compiled once, before the processes are forked."""
    return deepcopy(compiled(text))


def whole() -> nn.Module:
    """One compiled network, sharded as one."""
    model = new(WHOLE)
    fully_shard(model)
    register_fsdp_forward_method(model, "loss")
    return model


class InBlocks(nn.Module):
    """Two compiled networks, one after the other, each sharded on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = new(STEM)
        self.head = new(HEAD)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x))

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self(x), y)


def in_blocks() -> nn.Module:
    model = InBlocks()
    return shard_blocks(model, (model.stem, model.head))


def shard_blocks(model: nn.Module, blocks: Iterable[nn.Module]) -> nn.Module:
    for block in blocks:
        fully_shard(block)
    fully_shard(model)
    register_fsdp_forward_method(model, "loss")
    return model


def own_blocks() -> nn.Module:
    """The blocks of one compiled network, each sharded on its own."""
    model = new(RESIDUAL)
    return shard_blocks(model, [model.stage[key] for key in "012"] + [model.last])


def resnet18() -> nn.Module:
    model = new(RESNET)
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    return shard_blocks(model, (stage[key] for stage in stages for key in "01"))


def full(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: full(parameter) for name, parameter in model.named_parameters()}


def halves(images: int) -> list[slice]:
    return [slice(0, images // 2), slice(images // 2, images)]


def compare(
    make: Callable[[], nn.Module], alone: nn.Module, x: torch.Tensor, steps: int, rate: float
) -> None:
    """Both make the same steps; batchnorm sees half of the images at once, in both."""
    rank, y = dist.get_rank(), torch.arange(len(x)) % 3
    model = make()
    with torch.no_grad():
        for name, theirs in weights(model).items():
            alone.get_parameter(name).copy_(theirs)
    first = {name: tensor.clone() for name, tensor in weights(alone).items()}
    parts = halves(len(x))
    optimizers = [torch.optim.SGD(m.parameters(), lr=rate) for m in (alone, model)]
    apart = 0.0
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        losses = [alone.loss(x[part], y[part]) for part in parts]
        (sum(losses) / len(losses)).backward()
        loss = model.loss(x[parts[rank]], y[parts[rank]])
        loss.backward()
        apart = max(apart, abs(loss.item() - losses[rank].item()))
        for optimizer in optimizers:
            optimizer.step()
    ours, theirs = weights(model), weights(alone)
    assert list(ours) == list(theirs)
    far = max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)
    held = sum(p.to_local().numel() for p in model.parameters())
    part = held / sum(theirs[name].numel() for name in theirs)
    if rank == 0:
        print(
            f"{make.__name__}, {steps} steps: weights within {far:.1e}, losses within {apart:.1e}, "
            f"{part:.0%} of them here"
        )
    moved = max(float((first[name] - theirs[name]).abs().max()) for name in theirs)
    assert far < 1e-5 < 1e-3 < moved
    assert apart < 1e-4
    assert part < 0.8


def work() -> None:
    dist.init_process_group("gloo")
    x = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    compare(whole, new(WHOLE), x, steps=1, rate=1.0)
    compare(in_blocks, InBlocks(), x, steps=1, rate=1.0)
    is_slow = os.environ.get("TRITON_INTERPRET") == "1"
    compare(own_blocks, new(RESIDUAL), x, steps=1 if is_slow else 3, rate=0.1)
    if is_slow:
        return  # it would take minutes
    x = torch.rand(4, 3, 33, 33, generator=torch.Generator().manual_seed(0))
    compare(resnet18, new(RESNET), x, steps=3, rate=0.01)


def check() -> bool:
    for text in (WHOLE, STEM, HEAD, RESIDUAL, RESNET):
        compiled(text)
    return ends(side_by_side(2, work), 240) == [0, 0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(not check())
