"""From the files of kernels/ to the kernels of one signature: which files, and their text.

Knows which files there are; knows nothing of the file around the kernels.
"""

from functools import lru_cache

from cnndsl import assets
from cnndsl.emit import splice
from cnndsl.emit.jobs import Family, Signature
from cnndsl.emit.prune import prune
from cnndsl.emit.settle import settle

# In the order in which they are emitted.
KERNELS: dict[Family, tuple[str, ...]] = {
    "conv": (
        "conv_epilogue.py",
        "conv_sum.py",
        "conv_pool.py",
        "conv_stage.py",
        "conv.py",
        "conv_rebuild.py",
        "conv_input_gradient.py",
        "conv_weight_gradient.py",
        "conv_bias_gradient.py",
        "conv_unpool.py",
    ),
    "fc": ("fc.py", "fc_gradients.py"),
    "norm": (
        "norm_statistics.py",
        "norm.py",
        "norm_rebuild.py",
        "norm_sums.py",
        "norm_input_gradient.py",
    ),
}
_ACTIVATIONS = ("relu", "output", "input")
_LAUNCHES_OF_NORM = ("statistics", "forward", "gradient_sums", "input_gradient")


def read(name: str) -> str:
    """The text of a file."""
    return assets.read("kernels", name)


def launches(own: Signature) -> tuple[str, ...]:
    """The functions of its kernels' text that others call, by their names in `…Launches`."""
    if own.family == "norm":
        return _LAUNCHES_OF_NORM
    if own.family == "fc":
        found = ["forward"] if own.may_be("forward", "fused") else []
        if own.may_be("forward", "library") and own.may_be("activation", *_ACTIVATIONS):
            found.append("activate")
        if own.may_be("backward", "fused"):
            found += ["input_gradient", "weight_gradient", "bias_gradient"]
        if own.may_be("backward", "library") and own.may_be("activation", *_ACTIVATIONS):
            found.append("slope")
        return tuple(found)
    found = ["forward"]
    if own.may_be("backward", "fused"):
        found += ["input_gradient", "weight_gradient", "bias_gradient"]
    if own.may_be("backward", "library"):
        if own.may_be("pool", "max", "average"):
            found.append("unpool")
        is_shifted = own.may_be("bias", True) or own.may_be("activation", *_ACTIVATIONS)
        if own.may_be("pool", "none") and is_shifted and "bias_gradient" not in found:
            found.append("bias_gradient")
    if own.may_be("statistics", True):
        found.append("windows")
    return tuple(found)


@lru_cache(maxsize=64)
def specialised(text: str, own: Signature, loose: frozenset[str]) -> str:
    """The definitions in a kernel file's text for one signature; `loose` sizes are not constant."""
    values: dict[str, object] = {}
    for name, value in own.switches:
        values |= {f"geometry.{name}": value, f"C.{name}": value}
    definitions, _ = splice.bare(text)
    settled = settle(splice.fill(definitions, dict(own.holes)), values)
    settled = prune(settled, [f"{own.family}_launch_{name}" for name in launches(own)])
    return splice.loosen(settled, loose)
