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

from .shared import REMEMBERS, notes

MOST_PLANS = 256


class Plan(NamedTuple):
    """What a call does; a place is an index into the values given, then the new tensors.

    new: size, stride and type of each new tensor. copies: of which place, in which layout; these
    have the places behind the new ones. launches: kernel, programs, values, and for those
    that are tensors (index of the value, place). results: places, or None.
    """

    new: list[tuple[Sequence[int], Sequence[int], torch.dtype]]
    copies: list[tuple[int, torch.memory_format]]
    launches: list[tuple[CompiledKernel, int, list[Any], list[tuple[int, int]]]]
    results: list[int | None]
    is_single: bool


def likeness(value: object) -> object:
    """Give of a value all that a plan may depend on."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.data_ptr() % 16 == 0
    # An operator is given lists.
    return tuple(value) if isinstance(value, list) else value


def new_plan(
    given: Sequence[object],
    noted: Sequence[Any],
    copied: Sequence[tuple[Tensor, Tensor, torch.memory_format]],
    images: Sequence[Tensor],
    found: object,
) -> Plan | None:
    """Make a plan of what was noted; None where more was done than to launch kernels."""
    results = list(found) if isinstance(found, tuple) else [found]
    fresh = [t for t in results if t is not None]
    known = {id(t) for t in fresh}
    fresh += [t for t in images if id(t) not in known]
    tensors = [*given, *fresh, *[copy for _, copy, _ in copied]]
    places = {id(t): place for place, t in enumerate(tensors) if isinstance(t, Tensor)}
    launches = []
    filled = set()
    for compiled, programs, values in noted:
        plain, slots = [], []
        for index, value in enumerate(values):
            is_tensor = isinstance(value, Tensor)
            plain.append(None if is_tensor else value)
            if is_tensor:
                slots.append((index, places.get(id(value))))
                filled.add(places.get(id(value)))
        # None: it works on a copy, or a tool records launches.
        if None in filled or not isinstance(compiled, CompiledKernel):
            return None
        launches.append((compiled, programs, plain, slots))
    for place, tensor in enumerate(fresh, len(given)):
        # Each must be new, and written by kernels alone.
        if places[id(tensor)] != place or place not in filled or tensor._version:
            return None
    copies = [(places.get(id(t)), layout) for t, _, layout in copied]
    if None in [place for place, _ in copies]:
        return None
    return Plan(
        [(t.shape, t.stride(), t.dtype) for t in fresh],
        copies,
        launches,
        [None if t is None else places[id(t)] for t in results],
        not isinstance(found, tuple),
    )


def carry_out(plan: Plan, given: Sequence[object], device: torch.device) -> object:
    """Do again what was noted, with other tensors."""
    tensors = list(given)
    for size, stride, dtype in plan.new:
        tensors.append(torch.empty_strided(size, stride, dtype=dtype, device=device))
    for place, layout in plan.copies:
        tensors.append(tensors[place].contiguous(memory_format=layout))
    for compiled, programs, plain, slots in plan.launches:
        values = plain.copy()
        for index, place in slots:
            values[index] = tensors[place]
        compiled[programs, 1, 1](*values)
    results = [None if place is None else tensors[place] for place in plan.results]
    return results[0] if plan.is_single else tuple(results)


def remembered(
    function: Callable[..., Any] | None, settings: Callable[[], object] | None = None
) -> Callable[..., Any]:
    """Give a function that does the same: it looks again at the first of calls that are alike only.

    The function is given a tensor first, or a geometry and a tensor. It launches kernels on what it
    is given, on copies of `packed`, on what `new_image` allocates, and on what it gives back, which
    is new; where it does more, it is called each time. `settings` gives what else it looks at.
    """
    if not REMEMBERS or function is None:
        return function
    plans = {}

    def run(*given: object) -> object:
        like = given[0] if isinstance(given[0], Tensor) else given[1]
        device = like.device
        key = (device, *[likeness(value) for value in given])
        if settings is not None:
            key = (*key, settings())
        plan = plans.get(key)
        if plan is not None:
            with torch.cuda.device_of(like):
                return carry_out(plan, given, device)
        if key in plans:
            return function(*given)
        noted, copied, images = [], [], []
        notes.launches, notes.copies, notes.images = noted, copied, images
        try:
            found = function(*given)
        finally:
            notes.launches, notes.copies, notes.images = None, (), ()
        tensors = [id(t) for t in given if isinstance(t, Tensor)]
        if len(set(tensors)) == len(tensors):  # or it could not be told which is which
            if len(plans) >= MOST_PLANS:
                plans.clear()
            plans[key] = new_plan(given, noted, copied, images, found)
        return found

    return run
