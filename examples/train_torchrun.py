"""Trains `digits.cnn` in several processes, on the CPU or a GPU each.

torchrun --nproc-per-node 2 examples/train_torchrun.py
"""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import cnndsl


class Loss(nn.Module):
    """The loss as a module: DistributedDataParallel wraps `forward`, and nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Give the mean cross-entropy."""
        return self.model.loss(x, y)


def train(device: torch.device) -> None:
    """Train, each process on its part of the images; the first one tests."""
    torch.manual_seed(0)  # the same division and first weights everywhere
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels))
    test, training = order[:359], order[359:]
    data = TensorDataset(images[training], labels[training])
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=64 // dist.get_world_size(), sampler=sampler)

    model = cnndsl.compile(Path(__file__).with_name("digits.cnn")).to(device)
    loss_of = DistributedDataParallel(Loss(model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    epochs = 12
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    for epoch in range(epochs):
        sampler.set_epoch(epoch)  # or each epoch has the same order
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss = loss_of(x.to(device), y.to(device))
            loss.backward()
            optimizer.step()
        schedule.step()

        if dist.get_rank() == 0:
            model.eval()
            with torch.no_grad():
                guesses = model(images[test].to(device)).argmax(1).cpu()
            accuracy = (guesses == labels[test]).float().mean()
            print(f"epoch {epoch + 1:2}  loss {loss:.4f}  test accuracy {accuracy:.2%}")


if __name__ == "__main__":
    has_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if has_gpu else "gloo")
    train(torch.device("cuda", int(os.environ["LOCAL_RANK"])) if has_gpu else torch.device("cpu"))
    dist.destroy_process_group()
