"""How `gpu.py` takes times: contenders in turns, on the GPU's clock; a dry run takes none."""

import statistics
import sys
from collections.abc import Callable

import torch

DRY = "--dry-run" in sys.argv
ROUNDS = 7
ROUND_MS = 6.0


def synchronize() -> None:
    """Wait for the GPU."""
    if not DRY:
        torch.cuda.synchronize()


def burst(calls: list[Callable[[], object]], count: int) -> float:
    """Microseconds a call, of `count` in a row; the calls take turns."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for number in range(count):
        calls[number % len(calls)]()
    end.record()
    end.synchronize()
    return 1e3 * start.elapsed_time(end) / count


def race(contenders: dict[str, list[Callable[[], object]]]) -> dict[str, dict[str, float]]:
    """Median, least and most of the rounds, in which all take turns; microseconds a call."""
    if DRY:
        for calls in contenders.values():
            calls[0]()
        return {name: {"us": 1.0, "least": 1.0, "most": 1.0} for name in contenders}
    counts, times = {}, {name: [] for name in contenders}
    for name, calls in contenders.items():
        for call in calls:
            call()
        synchronize()
        counts[name] = max(3, min(200, int(1e3 * ROUND_MS / max(1.0, burst(calls, 3)))))
    for _ in range(ROUNDS):
        for name, calls in contenders.items():
            times[name].append(burst(calls, counts[name]))
    return {
        name: {"us": statistics.median(t), "least": min(t), "most": max(t)}
        for name, t in times.items()
    }


def graphed(call: Callable[[], object]) -> Callable[[], object]:
    """The call as a CUDA graph."""
    if DRY:
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
