"""Lines of PyTorch whose meaning differs from ours in more than words.

Each function takes the arguments of a layer and gives the line here. What cannot be said exactly it
reports by `Given.lack`, with the difference; nothing is dropped in silence.
"""

from cnndsl.syntax.foreign.call import (
    Name,
    Unwritable,
    count,
    flag,
    number,
    pair,
    shown,
    window,
)
from cnndsl.syntax.foreign.given import Given, Line, factor, numbers, option, same


def conv(given: Given) -> str:
    """`padding` may be a word; `same` puts one row more below where the extent is even."""
    before, pad = "", given["padding"]
    text = "0"
    if pad == "same":
        if numbers(given["stride"]) != (1, 1):
            given.lack("PyTorch has no `padding='same'` with a stride")
        before, text = same(given["kernel_size"], given["dilation"])
    elif pad != "valid":
        text = pair(pad)
    return (
        f"{before}conv {count(given['out_channels'])} {window(given['kernel_size'])}"
        + option("stride", pair(given["stride"]), "1")
        + option("pad", text, "0")
        + option("dilation", pair(given["dilation"]), "1")
        + option("groups", count(given["groups"]), "1")
        + option("bias", flag(given["bias"]), "yes")
    )


def _pool(given: Given, function: str) -> str:
    size = pair(given["kernel_size"])
    stride = size if given["stride"] is None else pair(given["stride"])
    return (
        f"pool {function} {size}"
        + option("stride", stride, size)
        + option("pad", pair(given["padding"]), "0")
    )


def max_pool(given: Given) -> str:
    """The stride is the window's size unless given, as here."""
    line = _pool(given, "max") + option("dilation", pair(given["dilation"]), "1")
    return line + option("ceil", flag(given["ceil_mode"]), "no")


def avg_pool(given: Given) -> str:
    """With what the padding counts for."""
    line = _pool(given, "avg") + option("ceil", flag(given["ceil_mode"]), "no")
    return line + option("count_pad", flag(given["count_include_pad"]), "yes")


def adaptive(function: str) -> Line:
    """To one pixel it is the global pool."""

    def line(given: Given) -> str:
        size = given["output_size"]
        if isinstance(size, tuple) and None in size:
            raise Unwritable("`None`, for a side that stays, cannot be said here")
        text = window(size)
        return f"globalpool {function}" if text == "1x1" else f"pool {function} to {text}"

    return line


def instance_norm(given: Given) -> str:
    """A group norm with a group for each channel, which has weights."""
    if given["affine"] is not True:
        given.lack("`groupnorm` learns a factor and a shift for each channel; this layer does not")
    given.used.add("momentum")  # of running statistics, which it keeps only when told to
    return "groupnorm channels" + option("eps", number(given["eps"]), "1e-05")


def layer_norm(given: Given) -> str:
    """Over the last dimension: that of a vector are its features, of an image its columns."""
    shape = given["normalized_shape"]
    if isinstance(shape, tuple) and len(shape) > 1:
        given.lack(f"`layernorm` takes the channels of each pixel, not `{shown(shape)}`")
    given.notes.append("of an image, `layernorm` takes the channels of each pixel")
    eps = number(given["eps"])
    return "layernorm" if eps == "1e-05" else f"layernorm {eps}"


def prelu(given: Given) -> str:
    """One slope for all channels is the default there."""
    if given["num_parameters"] == 1:
        given.lack("`prelu` learns a slope for each channel; this layer has one for all")
    return "prelu"


def flatten(given: Given) -> str:
    """As a function it takes the batch in, too, unless it is told otherwise."""
    if given["start_dim"] != 1 and given.get("input") is not None:
        given.lack("`flatten` keeps the images of a batch apart: PyTorch's `start_dim=1`")
    return "flatten"


def softmax(given: Given) -> str:
    """Over the channels or features, which are PyTorch's dimension 1."""
    if given["dim"] == -1:
        given.notes.append("`softmax` takes the features of a vector, and the channels of an image")
    elif given["dim"] not in (1, None):
        given.lack(f"`softmax` takes the channels, not dimension {shown(given['dim'])}")
    return "softmax"


def upsample(given: Given) -> str:
    """By a factor, or to a size."""
    mode = given.get("mode", "nearest")
    if mode not in ("nearest", "bilinear"):
        raise Unwritable(f"`upsample` is `nearest` or `bilinear`, not `{mode}`")
    if given.get("align_corners"):
        given.lack("`align_corners=True`: `upsample` has the corners of pixels, not their centres")
    if given["size"] is not None:
        to = f"upsample to {window(given['size'])}"
        return to if mode == "nearest" else f"{to} {mode}"
    return f"upsample {factor(given['scale_factor'])} {mode}"


def pad(given: Given) -> str:
    """Left, right, top, bottom there; top, bottom, left, right here."""
    value = given["padding"]
    if isinstance(value, tuple):
        if len(value) != 4:
            raise Unwritable("`pad` takes the four sides of an image")
        left, right, top, bottom = map(count, value)
        return f"pad {top} {bottom} {left} {right}"
    return "pad" + f" {count(value)}" * 4


def function_pad(given: Given) -> str:
    """Zeros alone."""
    if given["mode"] != "constant" or given["value"] not in (0, None):
        given.lack("`pad` puts zeros around the image, nothing else")
    value = given["pad"]
    if not isinstance(value, tuple) or len(value) != 4:
        raise Unwritable("`pad` takes the four sides of an image")
    return pad(Given({"padding": value}))


def view(given: Given) -> str:
    """`x.view(x.size(0), -1)` and `x.view(-1, 400)` make a vector of each image."""
    given["first"]
    if given["second"] != -1 and not isinstance(given["second"], (int, Name)):
        raise Unwritable("images keep their layout here")
    return "flatten"
