"""FSDP2 on compiled networks in two processes: the same step as one process makes on all images.

    python -m tests.train.sharded

With `TRITON_INTERPRET=1` the fused kernels run, in Triton's interpreter.
"""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

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


def whole() -> nn.Module:
    """One compiled network, sharded as one."""
    model = cnndsl.compile(source=STEM + "flatten\nfc 3\n")
    fully_shard(model)
    register_fsdp_forward_method(model, "loss")
    return model


class InBlocks(nn.Module):
    """Two compiled networks, one after the other, each sharded on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = cnndsl.compile(source=STEM)
        self.head = cnndsl.compile(source=HEAD)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x))

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self(x), y)


def in_blocks() -> nn.Module:
    model = InBlocks()
    fully_shard(model.stem)
    fully_shard(model.head)
    fully_shard(model)
    register_fsdp_forward_method(model, "loss")
    return model


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [getattr(p, "full_tensor", lambda p=p: p)().detach() for p in model.parameters()]


def work() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for make in (whole, in_blocks):
        model = make()
        alone = cnndsl.compile(source=STEM + "flatten\nfc 3\n")
        with torch.no_grad():
            for mine, theirs in zip(alone.parameters(), weights(model), strict=True):
                mine.copy_(theirs)
        x, y = (
            torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0)),
            torch.arange(4) % 3,
        )
        part = slice(2 * rank, 2 * rank + 2)
        optimizers = [torch.optim.SGD(m.parameters(), lr=1.0) for m in (alone, model)]
        alone.loss(x, y).backward()
        model.loss(x[part], y[part]).backward()
        for optimizer in optimizers:
            optimizer.step()
        pairs = list(zip(weights(model), weights(alone), strict=True))
        far = max(float((mine - theirs).abs().max()) for mine, theirs in pairs)
        own = sum(p.to_local().numel() for p in model.parameters())
        held = own / sum(mine.numel() for mine, _ in pairs)
        if rank == 0:
            print(f"{make.__name__}: weights within {far:.1e}, {held:.0%} of them here")
        assert far < 1e-5
        assert held < 0.8


def check() -> bool:
    cnndsl.compile(source=HEAD)  # so that only one process writes the emitted file
    return ends(side_by_side(2, work), 120) == [0, 0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(not check())
