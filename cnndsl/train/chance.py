"""Random numbers: Python's, numpy's and torch's generators, and the seeds that they are given.

Every epoch and every step starts from a seed of its own, which follows from the run's seed and the
place in the run alone. So nothing about random numbers has to be kept: whoever knows how far a run
has come, in however many processes, draws what an unbroken run draws.
"""

import hashlib
import random

import numpy as np
import torch


def seed_for(seed: int, *place: int) -> int:
    """A seed for a place in a run (epoch, step, …); those of neighbours have no relation."""
    text = " ".join(["cnndsl", str(seed), *(str(number) for number in place)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators, on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType] (torch's annotation)
