"""Several processes that train one network, as `torchrun` starts them. torch.distributed does it.

What a process is told lies in the environment (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`). Knows nothing
of networks or runs. Alone, a process asks nobody.
"""

import gc
import os
import traceback
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from cnndsl.record import Record
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.examples import Part
from cnndsl.train.interrupt import Watch
from cnndsl.train.recipe import choose_device

# How long a process waits for the others before it takes them for dead, where no broken
# connection tells. Generous: rank 0 may be writing a large checkpoint.
_PATIENCE = timedelta(minutes=10)


class RankError(TrainError):
    """Another process is gone, or this one alone cannot go on."""


class Ranks(Record):
    """The processes that train together; this one is number `rank` of `world`.

    `local` is its number on its machine, which is also that of its GPU.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    @property
    def part(self) -> Part:
        """Its part of each batch."""
        return Part(self.rank, self.world)

    def device(self, name: str) -> torch.device:
        """The device of that name; of several GPUs each process takes its own."""
        device = choose_device(name)
        if self.world == 1 or device.type != "cuda" or ":" in name:
            return device
        try:
            return choose_device(f"cuda:{self.local}")
        except UsageError as error:
            raise RankError(
                f"process {self.rank}: {error.message}",
                "start no more processes on a machine than it has GPUs: `--nproc-per-node`",
            ) from error

    def sum(self, values: Tensor) -> Tensor:
        """Each value, added up over all processes; in float64, whole numbers stay exact."""
        if self.world > 1:
            with naming_the_lost():
                dist.all_reduce(values)  # pyright: ignore[reportUnknownMemberType] (torch's annotation)
        return values

    def take_over(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors the values that they have in the first process."""
        if self.world == 1:
            return
        with naming_the_lost():
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self, device: torch.device) -> None:
        """Wait until all are here."""
        self.sum(torch.zeros(1, device=device)).cpu()


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Generator[Ranks]:
    """Find the other processes, if there are any; they are left again at the end.

    A process group that is there already is used and stays.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if dist.is_available() and dist.is_initialized():
        with Watch():
            yield Ranks(dist.get_rank(), dist.get_world_size(), local)
        return
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    ranks = Ranks(int(os.environ.get("RANK", "0")), world, local)
    place = ranks.device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    backend = "nccl" if place.type == "cuda" else "gloo"
    with Watch():
        with naming_the_lost():
            dist.init_process_group(backend, timeout=_PATIENCE)
        try:
            yield ranks
        except BaseException as error:
            _let_go(error)
            raise
        finally:
            # What still uses the group must go before it: else its last user takes it along, and
            # waits for gloo's threads while it holds Python's lock, which one of them may need.
            gc.collect()
            dist.destroy_process_group()


def _let_go(error: BaseException) -> None:
    """Drop what the frames of an error hold."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


@contextmanager
def naming_the_lost() -> Generator[None]:
    """Turn what torch says of a process that is gone into a `RankError`."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        known = isinstance(error, dist.DistError) or any(
            word in text.lower() for word in ("gloo", "nccl", "connection closed by peer")
        )
        if not known:
            raise
        raise RankError(
            "another process of this job has ended, so this one cannot go on",
            "look for its own message: above, or in what torchrun tells at the end",
        ) from error
