"""Does the thinking of a call once for all calls that are alike.

Which kernels a region launches, with which numbers, follows from the shapes, types and layouts of
what it is given alone. So the first call of its kind is noted, and for the next only memory is new.
This file knows launches and memory; it knows nothing of what is computed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.compiler import CompiledKernel

from .shared import REMEMBERS, Step, is_lazy, notes

MOST_PLANS = 256
PLAIN = (bool, int, float, str, torch.dtype, torch.device, torch.memory_format)


class Plan(NamedTuple):
    """What a call does; a place is an index into the values given, then the new tensors.

    new: size, stride and type of each tensor that kernels fill. steps: what to call, its values,
    for those that are tensors (index of the value, place), and whether what it gives is new: that
    has the next place behind those before. results: places, or None. is_elsewhere: whether there
    are several GPUs, of which another may be the current one.
    """

    new: list[tuple[Sequence[int], Sequence[int], torch.dtype]]
    steps: list[tuple[Callable[..., Any], list[Any], list[tuple[int, int]], bool]]
    results: list[int | None]
    is_single: bool
    is_elsewhere: bool


def likeness(given: Sequence[object], settings: object) -> tuple[object, ...]:
    """Give of values all that a plan may depend on, in a row: it is made in each call."""
    found = [settings]
    for value in given:
        if isinstance(value, Tensor):
            found += (value.shape, value.stride(), value.dtype, value.device)
            found += (value.data_ptr() % 16 == 0, is_lazy(value))
        elif isinstance(value, list):  # as an operator is given them
            found.append(tuple(value))
        else:
            found.append(value)
    return tuple(found)


def in_a_row(found: object) -> list[object]:
    """Give what a function gave as a list."""
    return list(found) if isinstance(found, tuple) else [found]


def is_plain(value: object) -> bool:
    """Say whether a value is the same in each call that is alike; others may hold tensors."""
    if isinstance(value, (tuple, list)):
        return not any(not is_plain(element) for element in value)
    return value is None or isinstance(value, PLAIN)


def is_changed(tensor: Tensor | None) -> bool:
    """Say whether PyTorch wrote to it, where that is told."""
    return tensor is not None and not tensor.is_inference() and tensor._version > 0


def new_plan(
    given: Sequence[object],
    noted: Sequence[Step],
    filled: Sequence[Tensor],
    found: object,
) -> Plan | None:
    """Make a plan of the steps that were noted; None where more was done than that."""
    made = [t for step in noted if not step.programs for t in in_a_row(step.found)]
    results = in_a_row(found)
    known = {id(t) for t in (*made, None)}
    fresh = {id(t): t for t in (*results, *filled) if id(t) not in known}
    places = {}
    for place, value in enumerate((*given, *fresh.values(), *made)):
        if isinstance(value, Tensor) and places.setdefault(id(value), place) != place:
            return None  # a step or a call gave what there was before: it is not new
    steps, written = [], set()
    for step in noted:
        plain, slots = [], []
        for index, value in enumerate(step.values):
            is_tensor = isinstance(value, Tensor)
            if not is_tensor and not is_plain(value):
                return None
            plain.append(None if is_tensor else value)
            if is_tensor:
                slots.append((index, places.get(id(value))))
        if None in [place for _, place in slots]:
            return None  # it works on something else
        run = step.function
        if step.programs:
            if not isinstance(run, CompiledKernel):
                return None  # a tool records launches
            written.update(place for _, place in slots)
            run = run[step.programs, 1, 1]
        steps.append((run, plain, slots, not step.programs))
    if any(is_changed(t) for t in (*fresh.values(), *made)):
        return None
    if not written.issuperset(places[key] for key in fresh):
        return None
    return Plan(
        [(t.shape, t.stride(), t.dtype) for t in fresh.values()],
        steps,
        [None if t is None else places[id(t)] for t in results],
        not isinstance(found, tuple),
        torch.cuda.device_count() > 1,
    )


def carry_out(plan: Plan, given: Sequence[object], device: torch.device) -> object:
    """Do again what was noted, with other tensors."""
    tensors = list(given)
    for size, stride, dtype in plan.new:
        tensors.append(torch.empty_strided(size, stride, dtype=dtype, device=device))
    for run, plain, slots, is_new in plan.steps:
        values = plain.copy()
        for index, place in slots:
            values[index] = tensors[place]
        found = run(*values)
        if is_new:
            tensors += found if isinstance(found, tuple) else (found,)
    results = [None if place is None else tensors[place] for place in plan.results]
    return results[0] if plan.is_single else tuple(results)


def remembered(
    function: Callable[..., Any] | None, settings: Callable[[], object] | None = None
) -> Callable[..., Any]:
    """Give a function that does the same: it looks again at the first of calls that are alike only.

    The function is given a tensor first. It launches kernels on what it is given, on what is
    `allocated`, on what is `done`, and on what it gives back, which is new; where it does more, it
    is called each time. `settings` gives what else it looks at, for float32.
    """
    if not REMEMBERS or function is None:
        return function
    plans = {}

    def run(*given: object) -> object:
        device = given[0].device
        is_set = settings is not None and given[0].dtype == torch.float32
        key = likeness(given, (device, settings() if is_set else None))
        plan = plans.get(key)
        if plan is not None:
            if plan.is_elsewhere:
                with torch.cuda.device_of(given[0]):
                    return carry_out(plan, given, device)
            return carry_out(plan, given, device)
        if key in plans:
            return function(*given)
        noted, filled = [], []
        notes.steps, notes.allocated = noted, filled
        try:
            found = function(*given)
        finally:
            notes.steps, notes.allocated = None, ()
        tensors = [id(t) for t in given if isinstance(t, Tensor)]
        if len(set(tensors)) == len(tensors):  # or it could not be told which is which
            if len(plans) >= MOST_PLANS:
                plans.clear()
            plans[key] = new_plan(given, noted, filled, found)
        return found

    return run
