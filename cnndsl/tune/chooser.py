"""Chooses for a task among its candidates: first what is right, then what is fast.

A candidate that does not compile, spills, or takes more shared memory than there is, is not run;
one that computes other values than PyTorch in float64, or fails, is not timed. So it cannot be
chosen, whatever it would have taken. Pure: all that is measured comes from a device.
"""

import math
from collections.abc import Mapping, Sequence

from cnndsl.fuse.choice import Choice
from cnndsl.fuse.pins import Pin, TileOf
from cnndsl.fuse.ways import allowed
from cnndsl.record import Record
from cnndsl.tune.candidates import candidates, combined
from cnndsl.tune.device import Device, Subject
from cnndsl.tune.errors import TuneError
from cnndsl.tune.expected import Expected, mistake
from cnndsl.tune.task import DIRECTIONS, Candidate, Direction, Row, Task, Verdict

# What is not faster than the rule by this share is noise: the rule stays.
MARGIN = 0.02


class _Tried(Record):
    """What became of the candidates of a direction, in the order in which they were tried."""

    times: Mapping[Candidate, float]
    rows: tuple[Row, ...]


def choose(task: Task, device: Device) -> Verdict:
    """Measure, and choose; raises `TuneError` where that cannot be done."""
    refuse_capture(device)
    subject = device.open(task)
    tried: dict[Direction, _Tried] = {}
    best: dict[Direction, dict[_Way, Candidate]] = {}
    for direction in DIRECTIONS:
        found = tried[direction] = _try(task, direction, subject, device)
        best[direction] = {w: _best(w, found.times) for w in {_way(c) for c in found.times}}
    choice = _choice(task, tried, best)
    chosen = [best[direction][_of(choice, direction)] for direction in DIRECTIONS]
    pinned = tuple(
        TileOf(kernel, task.dtype, task.bucket, tile) for c in chosen for kernel, tile in c.tiles
    )
    rows = tuple(row for found in tried.values() for row in found.rows)
    why = tuple(_why(c, tried[c.direction]) for c in chosen)
    return Verdict(Pin(choice, pinned), rows, why)


def refuse_capture(device: Device) -> None:
    """Raise while a CUDA graph is captured: what is launched would become part of it."""
    if device.is_capturing():
        raise TuneError(
            "kernels cannot be measured while a CUDA graph is captured",
            "tune before the capture; a tuned model can be captured as any other",
        )


def _try(task: Task, direction: Direction, subject: Subject, device: Device) -> _Tried:
    found = candidates(task, direction, subject)
    first = _timed(found, subject, device)
    more = combined(found, first.times)
    if not more:
        return first
    # Once more, with what they are to be better than: times of one run are compared.
    old = [
        c for c in first.times if (c.direction, c.choice) in {(m.direction, m.choice) for m in more}
    ]
    second = _timed([*more, *old], subject, device, known=old)
    times = {**first.times, **second.times}
    names = {row.name for row in second.rows}
    return _Tried(times, (*(r for r in first.rows if r.name not in names), *second.rows))


def _timed(
    found: Sequence[Candidate],
    subject: Subject,
    device: Device,
    known: Sequence[Candidate] = (),
) -> _Tried:
    """The times of those that are right; `known` were found so before."""
    rows: dict[Candidate, Row] = {}
    for candidate, used in zip(found, subject.static(found), strict=True):
        problem = used.error
        if not problem and used.spills:
            problem = f"spills: {used.spills} instructions move registers to memory and back"
        if not problem and used.shared_bytes > device.shared_limit:
            problem = f"takes {used.shared_bytes:,} bytes of shared memory"
            problem += f", of which a program may have {device.shared_limit:,}"
        if problem:
            rows[candidate] = Row(candidate.direction, candidate.name, None, problem)
    wanted: Sequence[Expected] = ()
    for candidate in found:
        if candidate in rows or candidate in known:
            continue
        wanted = wanted or subject.expected(candidate.direction)
        problem = _problem(candidate, wanted, subject, device)
        if problem:
            rows[candidate] = Row(candidate.direction, candidate.name, None, problem)
    right = [c for c in found if c not in rows]
    times, failed = _measured(right, subject, device)
    for candidate, problem in failed.items():
        rows[candidate] = Row(candidate.direction, candidate.name, None, problem)
    for candidate, us in times.items():
        rows[candidate] = Row(candidate.direction, candidate.name, us)
    return _Tried(times, tuple(rows[c] for c in found))


def _measured(
    right: Sequence[Candidate], subject: Subject, device: Device
) -> tuple[dict[Candidate, float], dict[Candidate, str]]:
    """The time of each; and of those that fail with the whole batch, why."""
    if not right:
        return {}, {}
    try:
        return dict(zip(right, subject.time(right), strict=True)), {}
    except Exception as error:  # one of them: by itself it tells which
        _refuse_broken(right[0], device, error)
    failed: dict[Candidate, str] = {}
    for candidate in right:
        try:
            subject.time([candidate])
        except Exception as error:  # as above: it is told, and not taken
            _refuse_broken(candidate, device, error)
            failed[candidate] = f"fails: {_first(error)}"
    rest = [c for c in right if c not in failed]
    return dict(zip(rest, subject.time(rest) if rest else (), strict=True)), failed


def _refuse_broken(candidate: Candidate, device: Device, error: Exception) -> None:
    if not device.is_alive():
        raise TuneError(
            f"`{candidate.name}` has broken this process's way to the GPU: {_first(error)}",
            "please report it, with what `nvidia-smi` says of the GPU",
        ) from error


def _problem(
    candidate: Candidate, wanted: Sequence[Expected], subject: Subject, device: Device
) -> str:
    """What is wrong with a candidate's results; empty where they are right."""
    try:
        found = subject.run(candidate)
    except Exception as error:  # a kernel may fail in any way, and is then not taken
        _refuse_broken(candidate, device, error)
        return f"fails: {_first(error)}"
    if len(found) != len(wanted):
        return f"gives {len(found)} results, not {len(wanted)}"
    mistakes = [mistake(f, w) for f, w in zip(found, wanted, strict=True)]
    return "is wrong: " + "; ".join(filter(None, mistakes)) if any(mistakes) else ""


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# ── the best ─────────────────────────────────────────────────────────────────────────────────────

_Way = tuple[str, str]


def _way(candidate: Candidate) -> _Way:
    return candidate.way, "" if candidate.way == "library" else candidate.taps


def _of(choice: Choice | None, direction: Direction) -> _Way:
    return _way(Candidate(direction, choice))


def _best(way: _Way, times: Mapping[Candidate, float]) -> Candidate:
    """The fastest of a way; one with its rule's tiles, unless that is clearly slower."""
    mine = {c: us for c, us in times.items() if _way(c) == way}
    return min(mine, key=lambda c: mine[c] * (1 - MARGIN) if not c.tiles else mine[c])


def _choice(
    task: Task,
    tried: Mapping[Direction, _Tried],
    best: Mapping[Direction, Mapping[_Way, Candidate]],
) -> Choice | None:
    """The ways whose two directions together take least."""
    options = allowed(task.region, task.role) or (None,)
    totals: dict[Choice | None, float] = {}
    for choice in options:
        total = 0.0
        for direction in DIRECTIONS:
            way = _of(choice, direction)
            chosen = best[direction].get(way)
            us = tried[direction].times[chosen] if chosen is not None else math.inf
            total += us * (1 - MARGIN) if way == _of(options[0], direction) else us
        if total < math.inf:
            totals[choice] = total
    if not totals:
        wrong = [r for found in tried.values() for r in found.rows if r.us is None]
        raise TuneError(
            f"no way through `{task.name}` computes what PyTorch computes on this device: "
            + "; ".join(f"{row.direction}, {row.name}, {row.why}" for row in wrong[:3]),
            "please report it: until then, PyTorch's operators run where TRITON_INTERPRET=0 and "
            "the tensors are on a CPU",
        )
    return min(totals, key=lambda c: totals[c])


def _why(chosen: Candidate, tried: _Tried) -> str:
    """In a sentence: what it takes, and what the best of the others takes."""
    own = tried.times[chosen]
    others = {c: us for c, us in tried.times.items() if _way(c) != _way(chosen)}
    text = f"{chosen.direction}: {chosen.name} takes {own:.1f} µs"
    if others:
        next_best = min(others, key=lambda c: others[c])
        text += f", {next_best.name} {others[next_best]:.1f}"
    plain = next((us for c, us in tried.times.items() if c == chosen.replace(tiles=())), None)
    if chosen.tiles and plain is not None:
        text += f", with its rule's tiles {plain:.1f}"
    refused = sum(row.us is None for row in tried.rows)
    return text + (f"; {refused} of {len(tried.rows)} were not timed" if refused else "")
