"""Lines of Keras whose meaning differs from ours in more than words.

Each function takes the arguments of a layer and gives the line here. What cannot be said exactly it
reports by `Given.lack`, with the difference; nothing is dropped in silence.
"""

from decimal import Decimal

from cnndsl.syntax.foreign.call import (
    Name,
    Unwritable,
    Value,
    count,
    flag,
    number,
    pair,
    shown,
    sides,
    whole,
    window,
)
from cnndsl.syntax.foreign.given import Given, Line, factor, numbers, option, same

_ACTIVATIONS = {
    "linear": "",
    "relu": "relu",
    "relu6": "relu6",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "softmax": "softmax",
    "elu": "elu",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "leaky_relu": "leaky_relu 0.2",
    "hard_swish": "hardswish",
    "hard_silu": "hardswish",
}


def activated(line: str, value: Value) -> str:
    """A line with its activation behind it."""
    word = value.text.rpartition(".")[2] if isinstance(value, Name) else value
    if word is None:
        return line
    if not isinstance(word, str) or word not in _ACTIVATIONS:
        raise Unwritable(f"there is no activation `{shown(value)}` here")
    return f"{line}; {_ACTIVATIONS[word]}" if _ACTIVATIONS[word] else line


def channels_last(given: Given) -> None:
    """Where the layout is given, it is the usual one."""
    if given["data_format"] not in (None, "channels_last"):
        given.lack("shapes are height x width x channels here, whatever `data_format` says")


def padding(given: Given, *, size: str, stride: Value, dilation: Value) -> tuple[str, str]:
    """A `pad` in front and the value of `pad=`, for a convolution.

    With a stride, `same` there depends on the size of the image, and puts the odd row below.
    """
    word = given["padding"]
    if word == "valid":
        return "", "0"
    if word != "same":
        raise Unwritable(f"there is no padding `{shown(word)}` here")
    before, text = same(given[size], dilation)
    steps = numbers(stride)
    extents = [
        d * (k - 1) + 1 for k, d in zip(numbers(given[size]), numbers(dilation), strict=True)
    ]
    if any(s > 1 and e > 1 for s, e in zip(steps, extents, strict=True)):
        given.lack(
            "with a stride, TensorFlow's `same` pads by the size of the image, and more below and "
            "right: for an even size and `3x3 stride=2`, write `pad 0 1 0 1` above and no `pad=`"
        )
    return before, text


def conv(given: Given) -> str:
    """With its activation behind it."""
    channels_last(given)
    before, pad = padding(
        given, size="kernel_size", stride=given["strides"], dilation=given["dilation_rate"]
    )
    line = (
        f"{before}conv {count(given['filters'])} {window(given['kernel_size'])}"
        + option("stride", pair(given["strides"]), "1")
        + option("pad", pad, "0")
        + option("dilation", pair(given["dilation_rate"]), "1")
        + option("groups", count(given["groups"]), "1")
        + option("bias", flag(given["use_bias"]), "yes")
    )
    return first(given, activated(line, given["activation"]))


def _depthwise(given: Given, bias: str) -> str:
    channels_last(given)
    before, pad = padding(
        given, size="kernel_size", stride=given["strides"], dilation=given["dilation_rate"]
    )
    times = whole(given["depth_multiplier"])
    filters = "channels" if times == 1 else f"channels*{times}"
    return (
        f"{before}conv {filters} {window(given['kernel_size'])}"
        + option("stride", pair(given["strides"]), "1")
        + option("pad", pad, "0")
        + option("dilation", pair(given["dilation_rate"]), "1")
        + " groups=channels"
        + option("bias", bias, "yes")
    )


def depthwise(given: Given) -> str:
    """A group for each channel."""
    line = _depthwise(given, flag(given["use_bias"]))
    return first(given, activated(line, given["activation"]))


def separable(given: Given) -> str:
    """Each channel by itself, without a bias; then across channels."""
    bias = option("bias", flag(given["use_bias"]), "yes")
    line = f"{_depthwise(given, 'no')}; conv {count(given['filters'])} 1x1{bias}"
    return first(given, activated(line, given["activation"]))


def deconv(given: Given) -> str:
    """`valid` keeps all; `same` cuts down to stride times the size, the odd row below."""
    channels_last(given)
    if given["output_padding"] is not None:
        given.lack("Keras's `output_padding` moves its padding")
    if numbers(given["dilation_rate"]) != (1, 1):
        given.lack("a dilated `Conv2DTranspose` pads in another way")
    size, strides = numbers(given["kernel_size"]), numbers(given["strides"])
    excess = [k - s for k, s in zip(size, strides, strict=True)]
    more = pair(tuple(max(-e, 0) for e in excess))
    line = (
        f"deconv {count(given['filters'])} {window(given['kernel_size'])}"
        + option("stride", pair(given["strides"]), "1")
        + option("output_pad", more, "0")
    )
    cut = [max(e, 0) for e in excess]
    crop = ""
    if given["padding"] == "same" and any(c % 2 for c in cut):
        (top, bottom), (left, right) = ((c // 2, c - c // 2) for c in cut)
        crop = f"; crop {top} {bottom} {left} {right}"
    elif given["padding"] == "same":
        line += option("pad", pair(tuple(c // 2 for c in cut)), "0")
    elif given["padding"] != "valid":
        raise Unwritable(f"there is no padding `{shown(given['padding'])}` here")
    line += option("bias", flag(given["use_bias"]), "yes") + crop
    return first(given, activated(line, given["activation"]))


def dense(given: Given) -> str:
    """With its activation behind it."""
    line = f"fc {count(given['units'])}" + option("bias", flag(given["use_bias"]), "yes")
    return first(given, activated(line, given["activation"]))


def pool(function: str) -> Line:
    """`same` is `ceil=yes` for windows of 2, and `pad=same` for odd ones with stride 1."""

    def line(given: Given) -> str:
        channels_last(given)
        size = pair(given["pool_size"])
        stride = size if given["strides"] is None else pair(given["strides"])
        text = f"pool {function} {size}" + option("stride", stride, size)
        if given["padding"] == "valid":
            return first(given, text)
        if given["padding"] != "same":
            raise Unwritable(f"there is no padding `{shown(given['padding'])}` here")
        windows = numbers(given["pool_size"])
        strides = windows if given["strides"] is None else numbers(given["strides"])
        if windows == strides and set(windows) <= {1, 2}:
            return first(given, f"{text} ceil=yes")
        if strides == (1, 1) and all(side % 2 for side in windows):
            # The average there is over what is not padding.
            uncounted = " count_pad=no" if function == "avg" else ""
            return first(given, f"{text} pad=same{uncounted}")
        given.lack(
            "TensorFlow's `same` pads this pool by the size of the image: `ceil=yes` gives the "
            "same size, and other windows at the border for some"
        )
        return first(given, f"{text} ceil=yes")

    return line


def global_pool(function: str) -> Line:
    """What comes out is a vector there, unless `keepdims` is true."""

    def line(given: Given) -> str:
        channels_last(given)
        image = f"globalpool {function}"
        return first(given, image if given["keepdims"] is True else f"{image}; flatten")

    return line


def batch_norm(given: Given) -> str:
    """Keras's momentum is the part that stays, ours the part that comes."""
    if given["axis"] not in (-1, 3):
        given.lack("`batchnorm` takes the channels, which are Keras's last axis")
    momentum = given["momentum"]
    if isinstance(momentum, bool) or not isinstance(momentum, (int, float)):
        raise Unwritable(f"`1 - {shown(momentum)}` has to be a number")
    comes = str((1 - Decimal(repr(momentum))).normalize())
    affine = {given["center"], given["scale"]}
    if affine not in ({True}, {False}):
        given.lack("`batchnorm` has a factor and a shift, or neither")
    given.notes.append(f"Keras's momentum {shown(momentum)} is {comes} here, as in PyTorch")
    return first(
        given,
        "batchnorm"
        + option("eps", number(given["epsilon"]), "1e-05")
        + option("momentum", comes, "0.1")
        + option("affine", "no" if affine == {False} else "yes", "yes"),
    )


def activation(given: Given) -> str:
    """`Activation("relu")`."""
    return activated("", given["activation"]).removeprefix("; ") or "skip"


def relu(given: Given) -> str:
    """Cut off at 6, or with a slope below 0."""
    slope, top = given["negative_slope"], given["max_value"]
    if given["threshold"] != 0 or (top is not None and (top != 6 or slope != 0)):
        raise Unwritable("such a `ReLU` is not among the activations here")
    if top is not None:
        return "relu6"
    return "relu" if slope == 0 else f"leaky_relu {number(slope)}"


def prelu(given: Given) -> str:
    """A slope for each pixel, unless height and width share one."""
    if given["shared_axes"] != (1, 2):
        given.lack("`prelu` learns a slope for each channel: Keras's `shared_axes=[1, 2]`")
    return "prelu"


def upsample(given: Given) -> str:
    """One factor for both directions."""
    channels_last(given)
    mode = given["interpolation"]
    if mode not in ("nearest", "bilinear"):
        raise Unwritable(f"`upsample` is `nearest` or `bilinear`, not `{shown(mode)}`")
    return first(given, f"upsample {factor(given['size'])} {mode}")


def around(layer: str) -> Line:
    """`1`, `(1, 2)` or `((0, 1), (0, 1))`."""

    def line(given: Given) -> str:
        channels_last(given)
        value = given["padding" if layer == "pad" else "cropping"]
        if not isinstance(value, tuple):
            value = (value, value)
        if len(value) != 2:
            raise Unwritable(f"`{layer}` takes the four sides of an image")
        (top, bottom), (left, right) = (sides(v) for v in value)
        return first(given, f"{layer} {top} {bottom} {left} {right}")

    return line


def input(given: Given) -> str:
    """A shape without the batch; `None` is a free size."""
    return _input(given["shape"])


def input_layer(given: Given) -> str:
    """As `Input`."""
    return _input(given["input_shape"])


def _input(shape: Value) -> str:
    if not isinstance(shape, tuple) or len(shape) not in (1, 3):
        raise Unwritable("an input is height x width x channels, or one number of features")
    free = ["H", "W", "C"]
    return "input " + " x ".join(
        free[n] if side is None else count(side) for n, side in enumerate(shape)
    )


def first(given: Given, line: str) -> str:
    """A first layer of Keras says what comes in."""
    shape = given["input_shape"]
    return line if shape is None else f"{_input(shape)}; {line}"
