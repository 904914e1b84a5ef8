"""What a chooser asks of the machine that kernels run on; `cuda` has the real one.

A test gives one that returns times from a table.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from cnndsl.fuse.choice import Choice
from cnndsl.fuse.pins import Kernel, Tile
from cnndsl.tune.expected import Expected
from cnndsl.tune.task import Candidate, Direction, Static, Task


class Subject(Protocol):
    """A task on a device, with its tensors."""

    def tiles(self, choice: Choice | None, direction: Direction) -> Mapping[Kernel, Tile]:
        """The tiles that the kernels' own rules choose, by the kernels that are launched."""
        ...

    def static(self, candidates: Sequence[Candidate]) -> Sequence[Static]:
        """Compile them, side by side, and say what each uses."""
        ...

    def expected(self, direction: Direction) -> Sequence[Expected]:
        """What PyTorch's operators give in float64."""
        ...

    def run(self, candidate: Candidate) -> Sequence[Tensor | None]:
        """The same from the candidate's kernels; raises whatever they raise."""
        ...

    def time(self, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Microseconds of each: medians of rounds in which all take turns."""
        ...


class Device(Protocol):
    """A machine that runs kernels."""

    @property
    def name(self) -> str:
        """What its maker calls it."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Of all whose change may change which candidate is best: torch, triton, cudnn."""
        ...

    @property
    def shared_limit(self) -> int:
        """Bytes of shared memory that a program may have."""
        ...

    def is_capturing(self) -> bool:
        """Whether a CUDA graph is being captured, into which nothing may be launched by us."""
        ...

    def is_alive(self) -> bool:
        """Whether it still works: a kernel that reads where it may not can end all of it."""
        ...

    def open(self, task: Task) -> Subject:
        """The task with its tensors on this device."""
        ...
