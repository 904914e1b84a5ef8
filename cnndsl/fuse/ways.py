"""The ways that a region goes: those that were pinned, or else those of the rule in `choice`.

And all others that it could go. Knows what the kernels accept; knows nothing of their text.
"""

from cnndsl.fuse.choice import (
    CHANNELS_OF_A_ROW,
    FEW_CHANNELS,
    OF_FC,
    WIDTH_OF_A_ROW,
    Choice,
    Taps,
    Way,
    choice,
)
from cnndsl.fuse.pins import Kernel, Pin, Role
from cnndsl.fuse.regions import Region
from cnndsl.graph.graph import Node
from cnndsl.layers.conv import Conv
from cnndsl.layers.fc import FullyConnected
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import ImageType
from cnndsl.layers.window import ONE
from cnndsl.sizes.dim import Dim


def roles(region: Region) -> tuple[Role, ...]:
    """What of it can be chosen: all, and where training has a batchnorm, what stands before."""
    return ("whole",) if region.affine is None else ("whole", "sums")


def pin(region: Region, role: Role) -> Pin | None:
    """What is pinned for it."""
    return dict(region.pins).get(role)


def pool_of(region: Region, role: Role) -> Node | None:
    """The pool that its convolution's kernel computes."""
    return region.pool if role == "whole" or region.pools_first else None


def chosen(region: Region, role: Role) -> Choice | None:
    """Whose products are taken each way."""
    pinned = pin(region, role)
    return pinned.choice if pinned is not None else ruled(region, role)


def ruled(region: Region, role: Role) -> Choice | None:
    """The same by the rule alone."""
    layer, arrives = region.anchor.layer, region.anchor.arrives
    if isinstance(layer, FullyConnected):
        return OF_FC
    if not isinstance(layer, Conv) or not isinstance(arrives, ImageType):
        return None
    node = pool_of(region, role)
    pooled = node.layer if node else None
    return choice(layer, arrives, pooled if isinstance(pooled, Pool) else None)


def allowed(region: Region, role: Role) -> tuple[Choice, ...]:
    """All ways that its kernels can go; that of the rule is the first."""
    rule = ruled(region, role)
    layer, arrives = region.anchor.layer, region.anchor.arrives
    if rule == OF_FC:
        both: tuple[Way, ...] = ("fused", "library")
        return tuple(Choice("none", f, b) for f in both for b in both)
    if rule is None or not isinstance(layer, Conv) or not isinstance(arrives, ImageType):
        return ()
    groups, channels = _number(layer.groups), _number(arrives.channels)
    taps: tuple[Taps, ...] = ("apart",) if channels // groups >= FEW_CHANNELS else ("packed",)
    if groups == 1 and 1 < channels <= CHANNELS_OF_A_ROW and layer.dilation == ONE:
        taps = (*taps, "rows") if layer.size.width <= WIDTH_OF_A_ROW else taps
    forward: tuple[Way, ...] = (
        ("fused", "library", "staged") if groups == 1 else ("fused", "library")
    )
    found = [Choice(t, f, b) for t in taps for f in forward for b in ("fused", "library")]
    # Where nothing of ours multiplies, taps say nothing.
    plain = [c for c in found if c.taps == rule.taps or (c.forward, c.backward) != _LIBRARY]
    return (rule, *(c for c in plain if c != rule))


_LIBRARY = ("library", "library")


def fixed_sides(region: Region, choice: Choice | None, kernel: Kernel) -> dict[str, int]:
    """The sides of a kernel's tile that follow from its form: with others it computes nonsense."""
    layer = region.anchor.layer
    if choice is None or not isinstance(layer, Conv):
        return {}
    if kernel == "forward" and choice.forward != "fused":
        return {"terms": 16}  # it multiplies nothing
    if choice.taps != "rows" or kernel == "input_gradient":
        return {}
    row = max(16, power_of_two(CHANNELS_OF_A_ROW * layer.size.width))
    if kernel == "weight_gradient":
        return {"columns": row * power_of_two(layer.size.height)}
    return {"terms": row}


def power_of_two(size: int) -> int:
    """The least that is no less."""
    return 1 << max(0, size - 1).bit_length()


def _number(dim: Dim) -> int:
    if dim.constant is None:
        raise ValueError(f"a region needs {dim} as a number")
    return dim.constant
