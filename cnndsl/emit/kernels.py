"""From a region to its kernels: which files, which switches, which holes, which geometry.

Regions that differ in numbers only share their kernels: what tells them apart is the `Signature`.
Knows the contract in kernels/README.md; knows nothing of the file around the kernels.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from cnndsl.emit import splice
from cnndsl.emit.prune import prune
from cnndsl.fuse.regions import Region
from cnndsl.layers.arguments import Pair
from cnndsl.layers.base import Pointwise
from cnndsl.layers.conv import Conv
from cnndsl.layers.fc import FullyConnected
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import ImageType
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim

SIZES = ("height", "width", "conv_height", "conv_width", "out_height", "out_width")
# With fewer channels in a group than this, one step of the sum takes several taps of the filter.
FEW_CHANNELS = 16

Family = Literal["conv", "fc"]
Value = int | bool | str | tuple[int, int]

SHARED = "shared.py"
OPERATORS: dict[Family, str] = {"conv": "conv_op.py", "fc": "fc_op.py"}
# In the order in which they are emitted.
KERNELS: dict[Family, tuple[str, ...]] = {
    "conv": (
        "conv_epilogue.py",
        "conv_sum.py",
        "conv_pool.py",
        "conv.py",
        "conv_rebuild.py",
        "conv_input_gradient.py",
        "conv_weight_gradient.py",
        "conv_bias_gradient.py",
    ),
    "fc": ("fc.py",),
}
LAUNCHES = ("forward", "input_gradient", "weight_gradient", "bias_gradient")

_ONE, _ZERO = Pair(1, 1), Pair(0, 0)
_DEFAULTS: dict[str, Value] = {
    "stride": (1, 1),
    "pad": (0, 0),
    "dilation": (1, 1),
    "groups": 1,
    "bias": True,
    "scale": False,
    "activation": "none",
    "pool": "none",
    "pool_size": (1, 1),
    "pool_stride": (1, 1),
    "pool_pad": (0, 0),
    "pool_dilation": (1, 1),
    "ceil": False,
    "count_pad": True,
    "window": "one",
    "taps": "packed",
}
_SWITCHES: dict[Family, tuple[str, ...]] = {
    "conv": ("pool", "window", "taps", "activation", "bias", "scale", "count_pad"),
    "fc": ("activation", "bias"),
}


class Signature(Record):
    """All on which the text of a region's kernels depends, and the prefix of their names."""

    family: Family
    name: str
    switches: tuple[tuple[str, Value], ...]
    holes: tuple[tuple[str, str], ...]


def family(region: Region) -> Family:
    """Which kernels compute it."""
    return "conv" if isinstance(region.anchor.layer, Conv) else "fc"


def families(regions: Iterable[Region]) -> tuple[Family, ...]:
    """Those that any of them needs, in the order of their appearance."""
    found: list[Family] = []
    for region in regions:
        if family(region) not in found:
            found.append(family(region))
    return tuple(found)


def geometry(region: Region) -> dict[str, Value]:
    """The fields of its `ConvGeometry` or `FcGeometry`, in their order."""
    match region.anchor.layer:
        case Conv() as conv:
            return _conv_geometry(region, conv)
        case FullyConnected() as fc:
            features = region.anchor.arrives.dims[-1]
            return {
                "features": _number(features),
                "outputs": _number(fc.features),
                "bias": fc.bias,
                "activation": region.slope,
            }
        case other:
            raise TypeError(f"{other.kind} has no kernels")


def written_geometry(region: Region) -> list[str]:
    """The fields as arguments; what has its default is left out."""
    found = geometry(region)
    return [f"{n}={_show(v)}" for n, v in found.items() if _DEFAULTS.get(n) != v]


def signature(region: Region) -> Signature:
    """What its kernels depend on."""
    kind = family(region)
    found = geometry(region)
    layer = region.activation.layer if region.activation else None
    holes: list[tuple[str, str]] = []
    if isinstance(layer, Pointwise):
        title = f"Apply {layer.kind}"
        holes = [
            (f"{kind}_activation", _hole(title, f"{kind}_activation", ("z",), layer.triton("z"))),
            (
                f"{kind}_activation_gradient",
                _hole(
                    f"Take a gradient back through {layer.kind}",
                    f"{kind}_activation_gradient",
                    ("saved", "gradient"),
                    layer.triton_gradient("saved", "gradient"),
                ),
            ),
        ]
    switches = tuple((name, found[name]) for name in _SWITCHES[kind])
    return Signature(kind, _signature_name(region, found), switches, tuple(holes))


@lru_cache(maxsize=64)
def specialised(text: str, own: Signature, loose: frozenset[str]) -> str:
    """The definitions in a kernel file's text for one signature; `loose` sizes are not constant."""
    values: dict[str, object] = {}
    for name, value in own.switches:
        values |= {name.upper(): value, f"geometry.{name}": value}
    definitions, _ = splice.bare(text)
    settled = splice.settle(splice.fill(definitions, dict(own.holes)), values)
    settled = prune(settled, [f"{own.family}_launch_{name}" for name in LAUNCHES])
    return splice.loosen(settled, loose)


def prefixed(text: str, own: Signature) -> str:
    """The definitions under the signature's own names."""
    names = splice.definitions(text)
    start = f"{own.family}_"
    return splice.rename(text, {n: f"{own.name}_{n.removeprefix(start)}" for n in names})


def loose_sizes(region: Region) -> frozenset[str]:
    """The sizes that a symbol decides, by their names in the kernels."""
    found: set[str] = set()
    types = {"": region.anchor.arrives, "conv_": region.anchor.output}
    types["out_"] = region.nodes[-1].output
    for prefix, type_ in types.items():
        if isinstance(type_, ImageType):
            sides = {"height": type_.height, "width": type_.width}
            found |= {f"{prefix}{n}" for n, dim in sides.items() if dim.constant is None}
    return frozenset(found)


def _conv_geometry(region: Region, conv: Conv) -> dict[str, Value]:
    window = conv.geometry
    channels, groups = _number(region.anchor.arrives.dims[-1]), _number(conv.groups)
    return {
        "channels": channels,
        "filters": _number(conv.filters),
        "kernel": _pair(window.size),
        "stride": _pair(window.stride),
        "pad": _pair(window.pad),
        "dilation": _pair(window.dilation),
        "groups": groups,
        "bias": conv.bias or region.affine is not None,
        "scale": region.affine is not None,
        "activation": region.slope,
        **_pool_geometry(region.pool.layer if region.pool else None),
        "taps": "packed" if channels // groups < FEW_CHANNELS else "apart",
    }


def _pool_geometry(pool: object) -> dict[str, Value]:
    if not isinstance(pool, Pool):
        return {"pool": "none", "count_pad": True, "window": "one"}
    window = pool.geometry
    plain = window.pad == _ZERO and window.dilation == _ONE and not window.ceil
    is_quad = plain and window.size == window.stride == Pair(2, 2)
    return {
        "pool": "max" if pool.function == "max" else "average",
        "pool_size": _pair(window.size),
        "pool_stride": _pair(window.stride),
        "pool_pad": _pair(window.pad),
        "pool_dilation": _pair(window.dilation),
        "ceil": window.ceil,
        "count_pad": pool.count_pad,
        "window": "quad" if is_quad else "loop",
    }


def _signature_name(region: Region, found: dict[str, Value]) -> str:
    """Words for what tells it apart; two with the same words are numbered by the emitter."""
    words = [family(region)]
    if found.get("taps") == "packed":
        words.append("few")
    if found.get("scale"):
        words.append("scale")
    elif not found["bias"]:
        words.append("nobias")
    if region.activation:
        words.append(region.activation.layer.kind)
    if region.pool:
        word = "max" if found["pool"] == "max" else "mean"
        words.append(f"{word}2" if found["window"] == "quad" else word)
    return "_".join(words)


def _hole(title: str, name: str, parameters: tuple[str, ...], expression: str) -> str:
    return (
        f'@triton.jit\ndef {name}({", ".join(parameters)}):\n    """{title}."""\n'
        f"    return {expression}\n"
    )


def _number(dim: Dim) -> int:
    if dim.constant is None:
        raise ValueError(f"a region needs {dim} as a number")
    return dim.constant


def _pair(pair: Pair) -> tuple[int, int]:
    return pair.height, pair.width


def _show(value: Value) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
