"""The GPU as a chooser sees it: its name, its clock, its compilers.

Each candidate is captured as a CUDA graph of its own, so that the host's time is no part of its
time; between two of them the second-level cache is overwritten. Times are those of CUDA's events,
medians of rounds in which all candidates take turns.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module, metadata
from typing import Any

import torch

from cnndsl.tune.compilers import Compilers
from cnndsl.tune.subject import Question, Subject
from cnndsl.tune.task import Static, Task

Untyped = Any
_max_shared_mem: Untyped = import_module("triton.compiler").max_shared_mem
ROUNDS, WARM_UPS = 9, 2
# So much is written between two candidates, as a multiple of the cache.
TIMES_OF_THE_CACHE = 4


class Cuda:
    """A GPU that PyTorch calls `cuda`."""

    def __init__(self, device: torch.device) -> None:
        """Use that one."""
        cuda: Untyped = torch.cuda
        index: Untyped = device.index  # None: the one that PyTorch uses now
        self.device = torch.device("cuda", cuda.current_device() if index is None else index)
        self._about: Untyped = cuda.get_device_properties(self.device)
        amd = str(getattr(self._about, "gcnArchName", "")).split(":")[0]
        nvidia = f"sm_{self._about.major}{self._about.minor}"
        self._compilers = Compilers(nvidia if torch.version.hip is None else amd)
        self._flush: torch.Tensor | None = None

    @property
    def name(self) -> str:
        """As its driver calls it."""
        return torch.cuda.get_device_name(self.device)

    @property
    def versions(self) -> Mapping[str, str]:
        """Of what computes."""
        return {
            "torch": torch.__version__,
            "triton": metadata.version("triton"),
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
            "cudnn.benchmark": str(torch.backends.cudnn.benchmark),
        }

    @property
    def shared_limit(self) -> int:
        """Of a program that asks for it, as Triton itself holds kernels against it."""
        return int(_max_shared_mem(self.device.index))

    def is_capturing(self) -> bool:
        """Whether the current stream is being captured."""
        return torch.cuda.is_current_stream_capturing()

    def is_alive(self) -> bool:
        """Whether it still adds numbers."""
        try:
            return float(torch.ones(2, device=self.device).sum()) == 2
        except RuntimeError:
            return False

    def open(self, task: Task) -> Subject:
        """The task on this GPU."""
        return Subject(task, self)

    def static(self, questions: Sequence[Question]) -> Sequence[Static]:
        """Compile in other processes."""
        return self._compilers.compile(questions)

    def time(self, calls: Sequence[Callable[[], object]]) -> Sequence[float]:
        """Microseconds of each."""
        if self.is_capturing():
            raise RuntimeError("a CUDA graph is being captured")
        with torch.cuda.device(self.device):
            pool: Untyped = torch.cuda.graph_pool_handle()
            side = torch.cuda.Stream()  # one for all: each keeps the memory that it was given
            graphs = [self._capture(call, pool, side) for call in calls]
            times: list[list[float]] = [[] for _ in graphs]
            for number in range(ROUNDS + WARM_UPS):
                for graph, found in zip(graphs, times, strict=True):
                    us = self._once(graph)
                    if number >= WARM_UPS:
                        found.append(us)
            return [statistics.median(found) for found in times]

    def _capture(
        self, call: Callable[[], object], pool: Untyped, side: torch.cuda.Stream
    ) -> torch.cuda.CUDAGraph:
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # compiles, and lets a library search
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # What one graph allocates the next may use: nobody reads it. Other threads, such as NCCL's,
        # may go on asking the GPU.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            call()
        return graph

    def _once(self, graph: torch.cuda.CUDAGraph) -> float:
        if self._flush is None:
            size = TIMES_OF_THE_CACHE * int(self._about.L2_cache_size)
            self._flush = torch.empty(max(size, 2**26), dtype=torch.uint8, device=self.device)
        start: Untyped = torch.cuda.Event(enable_timing=True)
        end: Untyped = torch.cuda.Event(enable_timing=True)
        self._flush.zero_()  # takes longer than the host needs to launch what follows
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return 1e3 * float(start.elapsed_time(end))

    def close(self) -> None:
        """End the compilers, and free what was flushed."""
        self._compilers.close()
        self._flush = None
