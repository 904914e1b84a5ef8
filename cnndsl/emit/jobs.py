"""From a region to what its kernels do: geometries, switches, holes, and the words of their names.

A region is one job; with a batchnorm it is three, of which training does the last two. Jobs that
differ in numbers only share their kernels: what tells them apart is the `Signature`. Knows the
contract in kernels/README.md; knows nothing of text.
"""

from collections.abc import Iterable
from typing import Literal

from cnndsl.emit.settle import Several
from cnndsl.fuse.choice import Choice
from cnndsl.fuse.pins import Role, TileOf
from cnndsl.fuse.regions import Region
from cnndsl.fuse.ways import chosen, pin
from cnndsl.graph.graph import Node
from cnndsl.layers.arguments import Pair
from cnndsl.layers.base import Pointwise
from cnndsl.layers.conv import Conv
from cnndsl.layers.fc import FullyConnected
from cnndsl.layers.norms import BatchNorm
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import ImageType, TensorType
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim

Family = Literal["conv", "fc", "norm"]
Value = int | bool | str | tuple[int, int]

_ONE, _ZERO = Pair(1, 1), Pair(0, 0)
_DEFAULTS: dict[str, Value] = {
    "stride": (1, 1),
    "pad": (0, 0),
    "dilation": (1, 1),
    "groups": 1,
    "bias": True,
    "scale": "none",
    "affine": True,
    "residual": False,
    "activation": "none",
    "size": (1, 1),
    "pool": "none",
    "pool_size": (1, 1),
    "pool_stride": (1, 1),
    "pool_pad": (0, 0),
    "pool_dilation": (1, 1),
    "ceil": False,
    "count_pad": True,
    "window": "one",
    "taps": "packed",
    "statistics": False,
    "forward": "fused",
    "backward": "fused",
}
_CONV_SWITCHES = ("pool", "window", "taps", "activation", "bias", "scale", "count_pad")
_SWITCHES: dict[Family, tuple[str, ...]] = {
    "conv": (*_CONV_SWITCHES, "residual", "statistics", "forward", "backward", "tiles"),
    "fc": ("activation", "bias", "pixels", "forward", "backward", "tiles"),
    "norm": ("affine", "residual", "activation", "pool", "count_pad"),
}


class Signature(Record):
    """All on which the text of a job's kernels depends, and the prefix of their names.

    `functions` are PyTorch's for the activation, by their names in `…Launches`.
    """

    family: Family
    name: str
    switches: tuple[tuple[str, Value | Several], ...]
    holes: tuple[tuple[str, str], ...]
    functions: tuple[tuple[str, str], ...] = ()

    def may_be(self, name: str, *values: Value) -> bool:
        """Whether a switch has one of these values, in any region that shares the text."""
        value = dict(self.switches)[name]
        return any(v in values for v in (value.of if isinstance(value, Several) else (value,)))


class Job(Record):
    """What some kernels compute: all of a region, or the `sums` or the `norm` of training.

    `geometry` has the fields of `ConvGeometry`, `FcGeometry` or `NormGeometry` in their order, but
    for `tiles`, those that were measured; `loose` names the sizes that a symbol decides, as the
    kernels call them.
    """

    role: Literal["whole", "sums", "norm"]
    signature: Signature
    geometry: tuple[tuple[str, Value], ...]
    loose: frozenset[str]
    tiles: tuple[TileOf, ...] = ()

    def written_geometry(self) -> list[str]:
        """The fields as arguments; what has its default is left out."""
        return [f"{n}={_show(v)}" for n, v in self.geometry if _DEFAULTS.get(n) != v]


def family(region: Region) -> Family:
    """Which kernels compute it, but for a batchnorm in training."""
    return "conv" if isinstance(region.anchor.layer, Conv) else "fc"


def families(regions: Iterable[Region]) -> tuple[Family, ...]:
    """Those that any of them needs, in the order of their appearance."""
    found: list[Family] = []
    for job in (job for region in regions for job in jobs(region)):
        if job.signature.family not in found:
            found.append(job.signature.family)
    return tuple(found)


def jobs(region: Region) -> tuple[Job, ...]:
    """What its kernels do; the first is all of it."""
    leaves = region.nodes[-1].output
    own: dict[str, Value]
    match region.anchor.layer:
        case Conv() as conv:
            sizes = {"": region.anchor.arrives, "conv_": region.anchor.output, "out_": leaves}
            own = _conv_geometry(region, conv)
            tiles = _tiles(region, "whole")
            whole = _job("whole", "conv", own, region.activation, sizes, tiles)
            if region.affine is None:
                return (whole,)
            before = region.affine.arrives
            own = _sums_geometry(region, conv)
            tiles = _tiles(region, "sums")
            sums = _job("sums", "conv", own, None, {**sizes, "out_": before}, tiles)
            sizes = {"": before, "out_": leaves}
            own = _norm_geometry(region, region.affine)
            return whole, sums, _job("norm", "norm", own, region.activation, sizes)
        case FullyConnected() as fc:
            ways = _chosen(region, "whole")
            own = {
                "features": _number(region.anchor.arrives.dims[-1]),
                "outputs": _number(fc.features),
                "bias": fc.bias,
                "activation": region.slope,
                "size": _size(region.arrives),
                "forward": ways.forward,
                "backward": ways.backward,
            }
            return (_job("whole", "fc", own, region.activation, {}, _tiles(region, "whole")),)
        case other:
            raise TypeError(f"{other.kind} has no kernels")


def _job(
    role: Literal["whole", "sums", "norm"],
    kind: Family,
    geometry: dict[str, Value],
    activation: Node | None,
    sizes: dict[str, TensorType],
    tiles: tuple[TileOf, ...] = (),
) -> Job:
    settled = {**geometry, "tiles": bool(tiles), "pixels": _pixels(geometry)}
    switches = tuple((name, settled[name]) for name in _SWITCHES[kind])
    layer = activation.layer if activation else None
    holes: tuple[tuple[str, str], ...] = ()
    functions: tuple[tuple[str, str], ...] = ()
    word = ""
    if isinstance(layer, Pointwise):
        word = layer.kind
        holes = _holes(kind, layer)
        functions = _functions(layer)
    signature = Signature(kind, _name(kind, geometry, word), switches, holes, functions)
    return Job(role, signature, tuple(geometry.items()), _loose(sizes), tiles)


def _tiles(region: Region, role: Role) -> tuple[TileOf, ...]:
    pinned = pin(region, role)
    return pinned.tiles if pinned is not None else ()


def _loose(sizes: dict[str, TensorType]) -> frozenset[str]:
    found: set[str] = set()
    for prefix, type_ in sizes.items():
        if isinstance(type_, ImageType):
            sides = {"height": type_.height, "width": type_.width}
            found |= {f"{prefix}{n}" for n, dim in sides.items() if dim.constant is None}
    return frozenset(found)


# ── geometries ───────────────────────────────────────────────────────────────────────────────────


def _conv_geometry(region: Region, conv: Conv) -> dict[str, Value]:
    scale = "none"
    if region.affine is not None:
        scale = "pool" if region.pools_first else "sum"
    return {
        **_window_geometry(region, conv),
        "bias": conv.bias or region.affine is not None,
        "scale": scale,
        "residual": region.merge is not None,
        "activation": region.slope,
        **_pool_geometry(region.pool),
        **_window(region.pool),
        **_ways(region, "whole"),
    }


def _sums_geometry(region: Region, conv: Conv) -> dict[str, Value]:
    """What training computes up to the batchnorm."""
    pool = region.pool if region.pools_first else None
    return {
        **_window_geometry(region, conv),
        "bias": conv.bias,
        "scale": "none",
        "residual": False,
        "activation": "none",
        **_pool_geometry(pool),
        **_window(pool),
        **_ways(region, "sums"),
    }


def _norm_geometry(region: Region, affine: Node) -> dict[str, Value]:
    """What training computes from the batchnorm on."""
    layer = affine.layer
    return {
        "channels": _number(affine.arrives.dims[-1]),
        "affine": isinstance(layer, BatchNorm) and layer.affine,
        "residual": region.merge is not None,
        "activation": region.slope,
        **_pool_geometry(None if region.pools_first else region.pool),
    }


def _window_geometry(region: Region, conv: Conv) -> dict[str, Value]:
    window = conv.geometry
    return {
        "channels": _number(region.anchor.arrives.dims[-1]),
        "filters": _number(conv.filters),
        "kernel": _pair(window.size),
        "stride": _pair(window.stride),
        "pad": _pair(window.pad),
        "dilation": _pair(window.dilation),
        "groups": _number(conv.groups),
    }


def _chosen(region: Region, role: Role) -> Choice:
    found = chosen(region, role)
    if found is None:
        raise TypeError(f"a {region.anchor.layer.kind} of {region.anchor.arrives}")
    return found


def _ways(region: Region, role: Role) -> dict[str, Value]:
    found = _chosen(region, role)
    return {
        "taps": found.taps,
        "statistics": role == "sums",
        "forward": found.forward,
        "backward": found.backward,
    }


def _pool_geometry(node: Node | None) -> dict[str, Value]:
    pool = node.layer if node else None
    if not isinstance(pool, Pool):
        return {"pool": "none", "count_pad": True}
    window = pool.geometry
    return {
        "pool": "max" if pool.function == "max" else "average",
        "pool_size": _pair(window.size),
        "pool_stride": _pair(window.stride),
        "pool_pad": _pair(window.pad),
        "pool_dilation": _pair(window.dilation),
        "ceil": window.ceil,
        "count_pad": pool.count_pad,
    }


def _window(node: Node | None) -> dict[str, Value]:
    """How the kernel of a convolution goes through the windows of a pool."""
    pool = node.layer if node else None
    if not isinstance(pool, Pool):
        return {"window": "one"}
    window = pool.geometry
    plain = window.pad == _ZERO and window.dilation == _ONE and not window.ceil
    is_quad = plain and window.size == window.stride == Pair(2, 2)
    return {"window": "quad" if is_quad else "loop"}


def _size(type_: TensorType) -> tuple[int, int]:
    """The height and width of an image; a vector is as one of one pixel."""
    if not isinstance(type_, ImageType):
        return 1, 1
    return _number(type_.height), _number(type_.width)


def _pixels(geometry: dict[str, Value]) -> Value:
    """1, or `many`: how many there are is a number in the kernels, which stay the same."""
    return 1 if geometry.get("size", (1, 1)) == (1, 1) else "many"


# ── names and holes ──────────────────────────────────────────────────────────────────────────────


def _name(kind: Family, found: dict[str, Value], activation: str) -> str:
    """Words for what tells it apart; two with the same words are numbered by the emitter."""
    words: list[str] = [kind, "" if _pixels(found) == 1 else "flat"]
    pool = {"none": "", "max": "max", "average": "mean"}[str(found.get("pool", "none"))]
    if pool and found.get("window") == "quad":
        pool += "2"
    words.append({"packed": "few", "rows": "rows"}.get(str(found.get("taps")), ""))
    if found.get("scale", "none") == "pool":
        words += [pool, "scale", activation]
    else:
        if found.get("scale", "none") == "sum":
            words.append("scale")
        elif not found.get("bias", True):
            words.append("nobias")
        elif not found.get("affine", True):
            words.append("plain")
        if found.get("residual"):
            words.append("add")
        words += [activation, pool]
    if found.get("statistics"):
        words.append("sums")
    return "_".join(word for word in words if word)


def _holes(kind: Family, layer: Pointwise) -> tuple[tuple[str, str], ...]:
    title = f"Apply {layer.kind}"
    back = f"Take a gradient back through {layer.kind}"
    name = f"{kind}_activation"
    gradient = layer.triton_gradient("saved", "gradient")
    return (
        (name, _hole(title, name, ("z",), layer.triton("z"))),
        (f"{name}_gradient", _hole(back, f"{name}_gradient", ("saved", "gradient"), gradient)),
    )


def _functions(layer: Pointwise) -> tuple[tuple[str, str], ...]:
    """What second derivatives need of an activation; for ReLU, what the kernels keep is enough."""
    if layer.slope_from == "relu":
        return ()
    has_inverse = layer.slope_from == "output" and layer.inverse
    before = (("before", layer.inverse),) if has_inverse else ()
    return (("activation", layer.function), *before)


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
