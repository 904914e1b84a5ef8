"""How far a kernel's result may be from that of PyTorch's operators in float64.

4·2⁻²⁴·√K·Σ|a||b| + u_out·|result|, with K the terms of a sum. Trials are of whole numbers, so that
sums and products are exact in every type (also in TF32), and what differs at all differs by one or
more: far beyond that.
"""

import math

import torch
from torch import Tensor

from cnndsl.record import Record

UNITS = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


class Expected(Record):
    """A result by name, in float64, and for each value how far one may be from it.

    None: the result is not asked for, and nothing must come.
    """

    name: str
    value: Tensor | None
    bound: Tensor | None = None


def coefficient(terms: int, rounded: float = 0.0) -> float:
    """The share of Σ|a||b| by which a sum of so many terms may be off; `rounded` is that of `a`."""
    return 4 * 2.0**-24 * math.sqrt(terms) + rounded


def mistake(found: Tensor | None, expected: Expected) -> str:
    """What is wrong with a result, in words; empty where it is right."""
    wanted, name = expected.value, expected.name
    if wanted is None or found is None:
        return "" if found is wanted else f"{name} is {'there' if found is not None else 'missing'}"
    if tuple(found.shape) != tuple(wanted.shape):
        return f"{name} has shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
    if wanted.numel() == 0:
        return ""
    bound = UNITS.get(found.dtype, 0.0) * wanted.abs() + 1e-40
    if found.dtype == torch.float16:
        bound = bound + 2.0**-25  # half of the least subnormal
    if expected.bound is not None:
        bound = bound + expected.bound
    error = (found.to(torch.float64) - wanted).abs()
    wrong = ~(error <= bound)  # also where it is no number
    if not bool(wrong.any()):
        return ""
    count = int(wrong.sum())
    worst = float(torch.nan_to_num(error, math.inf, math.inf).max())
    return f"{count:,} of {wanted.numel():,} values of {name} are wrong, by up to {worst:.3g}"
