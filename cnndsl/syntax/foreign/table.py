"""The layers of PyTorch and Keras as data: a signature, and the line that it stands for here.

A line is a pattern, or a function of `pytorch` or `keras` where more than the words differ. In a
pattern, `{name:kind}` is an argument as `kind` writes it; with `|usual`, it is left out, and its
option with it, where it comes to that. Arguments that the line does not use have to be at their
default; else they are named as lacking. `MISSING` are the layers that have no counterpart, each
with a word of advice.
"""

from collections.abc import Callable
from typing import NamedTuple

from cnndsl.syntax.foreign import keras, pytorch
from cnndsl.syntax.foreign.given import Given

# Arguments that name what the line above decides already.
FOLLOWS = frozenset(
    {"in_channels", "in_features", "num_features", "num_channels", "normalized_shape"}
)
# Arguments that change nothing of the network.
HARMLESS = frozenset({"device", "dtype", "inplace", "name", "training", "input"})
KERAS = "name=None, trainable=True, dtype=None, input_shape=None, activity_regularizer=None"
_CONV = (
    "dilation_rate=1, groups=1, activation=None, use_bias=True, "
    "kernel_initializer='glorot_uniform', bias_initializer='zeros', kernel_regularizer=None, "
    "bias_regularizer=None, kernel_constraint=None, bias_constraint=None"
)
_POOL = "stride=None, padding=0"


class Row(NamedTuple):
    """One layer of a framework."""

    framework: str
    signature: str
    line: str | Callable[[Given], str]
    note: str = ""


def _torch(signature: str, line: str | Callable[[Given], str], note: str = "") -> Row:
    return Row("PyTorch", signature, line, note)


def _keras(signature: str, line: str | Callable[[Given], str], note: str = "") -> Row:
    inside = signature[:-1]
    return Row("Keras", f"{inside}{'' if inside[-1] == '(' else ', '}{KERAS})", line, note)


_ORDER = "`flatten` has the channels first, Keras last: weights trained there come in another order"

ROWS: tuple[Row, ...] = (
    # ── PyTorch: modules ─────────────────────────────────────────────────────────────────────────
    _torch(
        "Conv2d(in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, "
        "bias=True, padding_mode='zeros', device=None, dtype=None)",
        pytorch.conv,
    ),
    _torch(
        "ConvTranspose2d(in_channels, out_channels, kernel_size, stride=1, padding=0, "
        "output_padding=0, groups=1, bias=True, dilation=1, padding_mode='zeros', device=None, "
        "dtype=None)",
        "deconv {out_channels:count} {kernel_size:window} stride={stride:pair|1} "
        "pad={padding:pair|0} output_pad={output_padding:pair|0} dilation={dilation:pair|1} "
        "groups={groups:count|1} bias={bias:flag|yes}",
    ),
    _torch(
        "Linear(in_features, out_features, bias=True, device=None, dtype=None)",
        "fc {out_features:count} bias={bias:flag|yes}",
    ),
    _torch(
        f"MaxPool2d(kernel_size, {_POOL}, dilation=1, return_indices=False, ceil_mode=False)",
        pytorch.max_pool,
    ),
    _torch(
        f"AvgPool2d(kernel_size, {_POOL}, ceil_mode=False, count_include_pad=True, "
        "divisor_override=None)",
        pytorch.avg_pool,
    ),
    _torch("AdaptiveAvgPool2d(output_size)", pytorch.adaptive("avg")),
    _torch("AdaptiveMaxPool2d(output_size, return_indices=False)", pytorch.adaptive("max")),
    _torch(
        "BatchNorm2d(num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True, "
        "device=None, dtype=None)",
        "batchnorm eps={eps:number|1e-05} momentum={momentum:number|0.1} affine={affine:flag|yes}",
    ),
    _torch(
        "BatchNorm1d(num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True, "
        "device=None, dtype=None)",
        "batchnorm eps={eps:number|1e-05} momentum={momentum:number|0.1} affine={affine:flag|yes}",
    ),
    _torch(
        "GroupNorm(num_groups, num_channels, eps=1e-5, affine=True, device=None, dtype=None)",
        "groupnorm {num_groups:count} eps={eps:number|1e-05}",
    ),
    _torch(
        "InstanceNorm2d(num_features, eps=1e-5, momentum=0.1, affine=False, "
        "track_running_stats=False, device=None, dtype=None)",
        pytorch.instance_norm,
    ),
    _torch("LayerNorm(normalized_shape, eps=1e-5)", pytorch.layer_norm),
    _torch(
        "LocalResponseNorm(size, alpha=0.0001, beta=0.75, k=1.0)",
        "lrn size={size:count|5} alpha={alpha:number|0.0001} beta={beta:number|0.75} "
        "k={k:number|2.0}",
    ),
    _torch("ReLU(inplace=False)", "relu"),
    _torch("ReLU6(inplace=False)", "relu6"),
    _torch(
        "LeakyReLU(negative_slope=0.01, inplace=False)", "leaky_relu {negative_slope:number|0.01}"
    ),
    _torch("GELU(approximate='none')", "gelu"),
    _torch("SiLU(inplace=False)", "silu"),
    _torch("Sigmoid()", "sigmoid"),
    _torch("Tanh()", "tanh"),
    _torch("Hardswish(inplace=False)", "hardswish"),
    _torch("Hardsigmoid(inplace=False)", "hardsigmoid"),
    _torch("ELU(alpha=1.0, inplace=False)", "elu"),
    _torch("PReLU(num_parameters=1, init=0.25, device=None, dtype=None)", pytorch.prelu),
    _torch("Softmax(dim=1)", pytorch.softmax),
    _torch("Softmax2d()", "softmax"),
    _torch("Dropout(p=0.5, inplace=False)", "dropout {p:number|0.5}"),
    _torch("Dropout2d(p=0.5, inplace=False)", "dropout2d {p:number}"),
    _torch("Flatten(start_dim=1, end_dim=-1)", "flatten"),
    _torch("Identity()", "skip"),
    _torch(
        "Upsample(size=None, scale_factor=None, mode='nearest', align_corners=None, "
        "recompute_scale_factor=None)",
        pytorch.upsample,
    ),
    _torch("UpsamplingNearest2d(size=None, scale_factor=None)", pytorch.upsample),
    _torch("ZeroPad2d(padding)", pytorch.pad),
    _torch("ChannelShuffle(groups)", "shuffle {groups:count}"),
    # ── PyTorch: functions and methods; `input` is the tensor ────────────────────────────────────
    _torch("relu(input, inplace=False)", "relu"),
    _torch("relu6(input, inplace=False)", "relu6"),
    _torch(
        "leaky_relu(input, negative_slope=0.01, inplace=False)",
        "leaky_relu {negative_slope:number|0.01}",
    ),
    _torch("gelu(input, approximate='none')", "gelu"),
    _torch("silu(input, inplace=False)", "silu"),
    _torch("sigmoid(input)", "sigmoid"),
    _torch("tanh(input)", "tanh"),
    _torch("hardswish(input, inplace=False)", "hardswish"),
    _torch("hardsigmoid(input, inplace=False)", "hardsigmoid"),
    _torch("elu(input, alpha=1.0, inplace=False)", "elu"),
    _torch("softmax(input, dim=1, dtype=None)", pytorch.softmax),
    _torch("dropout(input, p=0.5, training=True, inplace=False)", "dropout {p:number|0.5}"),
    _torch("dropout2d(input, p=0.5, training=True, inplace=False)", "dropout2d {p:number}"),
    _torch(
        f"max_pool2d(input, kernel_size, {_POOL}, dilation=1, ceil_mode=False, "
        "return_indices=False)",
        pytorch.max_pool,
    ),
    _torch(
        f"avg_pool2d(input, kernel_size, {_POOL}, ceil_mode=False, count_include_pad=True, "
        "divisor_override=None)",
        pytorch.avg_pool,
    ),
    _torch("adaptive_avg_pool2d(input, output_size)", pytorch.adaptive("avg")),
    _torch("adaptive_max_pool2d(input, output_size)", pytorch.adaptive("max")),
    _torch("flatten(input, start_dim=0, end_dim=-1)", pytorch.flatten),
    _torch("view(input, first=-1, second=-1)", pytorch.view),
    _torch("reshape(input, first=-1, second=-1)", pytorch.view),
    _torch(
        "interpolate(input, size=None, scale_factor=None, mode='nearest', align_corners=None, "
        "recompute_scale_factor=None, antialias=False)",
        pytorch.upsample,
    ),
    _torch("pad(input, pad, mode='constant', value=0)", pytorch.function_pad),
    # ── Keras ────────────────────────────────────────────────────────────────────────────────────
    _keras(
        f"Conv2D(filters, kernel_size, strides=1, padding='valid', data_format=None, {_CONV})",
        keras.conv,
    ),
    _keras(
        "DepthwiseConv2D(kernel_size, strides=1, padding='valid', depth_multiplier=1, "
        "data_format=None, dilation_rate=1, activation=None, use_bias=True)",
        keras.depthwise,
    ),
    _keras(
        "SeparableConv2D(filters, kernel_size, strides=1, padding='valid', data_format=None, "
        "dilation_rate=1, depth_multiplier=1, activation=None, use_bias=True)",
        keras.separable,
    ),
    _keras(
        "Conv2DTranspose(filters, kernel_size, strides=1, padding='valid', output_padding=None, "
        "data_format=None, dilation_rate=1, activation=None, use_bias=True)",
        keras.deconv,
    ),
    _keras(
        "Dense(units, activation=None, use_bias=True, kernel_initializer='glorot_uniform', "
        "bias_initializer='zeros', kernel_regularizer=None, bias_regularizer=None)",
        keras.dense,
    ),
    _keras(
        "MaxPooling2D(pool_size=2, strides=None, padding='valid', data_format=None)",
        keras.pool("max"),
    ),
    _keras(
        "MaxPool2D(pool_size=2, strides=None, padding='valid', data_format=None)",
        keras.pool("max"),
    ),
    _keras(
        "AveragePooling2D(pool_size=2, strides=None, padding='valid', data_format=None)",
        keras.pool("avg"),
    ),
    _keras(
        "GlobalAveragePooling2D(data_format=None, keepdims=False)",
        keras.global_pool("avg"),
    ),
    _keras("GlobalMaxPooling2D(data_format=None, keepdims=False)", keras.global_pool("max")),
    _keras(
        "BatchNormalization(axis=-1, momentum=0.99, epsilon=0.001, center=True, scale=True)",
        keras.batch_norm,
    ),
    _keras(
        "LayerNormalization(axis=-1, epsilon=0.001, center=True, scale=True)",
        "layernorm {epsilon:number|1e-05}",
    ),
    _keras(
        "GroupNormalization(groups=32, axis=-1, epsilon=0.001, center=True, scale=True)",
        "groupnorm {groups:count} eps={epsilon:number|1e-05}",
    ),
    _keras("Activation(activation)", keras.activation),
    _keras("ReLU(max_value=None, negative_slope=0.0, threshold=0.0)", keras.relu),
    _keras("LeakyReLU(negative_slope=0.3)", "leaky_relu {negative_slope:number|0.01}"),
    _keras("LeakyReLU(alpha=0.3)", "leaky_relu {alpha:number|0.01}"),
    _keras("ELU(alpha=1.0)", "elu"),
    _keras("PReLU(shared_axes=None)", keras.prelu),
    _keras("Softmax(axis=-1)", "softmax"),
    _keras("Dropout(rate=0.5)", "dropout {rate:number|0.5}"),
    _keras("SpatialDropout2D(rate=0.5)", "dropout2d {rate:number}"),
    _keras("Flatten(data_format=None)", "flatten", _ORDER),
    _keras("Identity()", "skip"),
    _keras("UpSampling2D(size=2, data_format=None, interpolation='nearest')", keras.upsample),
    _keras("ZeroPadding2D(padding=1, data_format=None)", keras.around("pad")),
    _keras("Cropping2D(cropping=0, data_format=None)", keras.around("crop")),
    _keras("Input(shape)", keras.input),
    Row(
        "Python",
        "input(height, width, channels)",
        "input {height:count} x {width:count} x {channels:count}",
    ),
    _keras("InputLayer(shape)", keras.input),
    _keras("InputLayer(input_shape)", keras.input_layer),
)

_MERGE = "name a tensor with `as LABEL`, then write `{} LABEL`, or put the branches in `{{ }}`"
_LOSS = "a file describes the network alone; `cnndsl train` and your own program train it"

# What has no line of its own here, and what to do instead.
MISSING: dict[str, str] = {
    **dict.fromkeys(("Concatenate", "concatenate", "cat"), _MERGE.format("concat")),
    **dict.fromkeys(("Add", "sum", "plus"), _MERGE.format("add")),
    **dict.fromkeys(
        ("dwconv", "depthwise", "depthwise_conv", "depthwiseconv", "dw_conv"),
        "a depthwise convolution has a group for each channel: `conv channels 3x3 groups=channels`",
    ),
    "Multiply": _MERGE.format("multiply"),
    **dict.fromkeys(
        ("Conv1d", "Conv1D"), "for one dimension, write images of width 1: `conv 16 3x1`"
    ),
    **dict.fromkeys(
        ("MaxPool1d", "MaxPooling1D", "AvgPool1d", "AveragePooling1D"),
        "for one dimension, write images of width 1: `pool max 2x1`",
    ),
    **dict.fromkeys(
        ("Conv3d", "Conv3D", "MaxPool3d", "MaxPooling3D"), "images have two dimensions here"
    ),
    **dict.fromkeys(
        ("LSTM", "GRU", "RNN", "Embedding", "MultiheadAttention", "MultiHeadAttention"),
        "this language describes convolutional networks",
    ),
    **dict.fromkeys(
        ("LogSoftmax", "log_softmax"), "end in the last `fc`: training takes its values as they are"
    ),
    **dict.fromkeys(
        ("SELU", "selu", "Softplus", "softplus", "Mish", "mish", "CELU", "Softsign", "GLU"),
        "the activations are `relu`, `relu6`, `leaky_relu`, `gelu`, `silu`, `sigmoid`, `tanh`, "
        "`hardswish`, `hardsigmoid`, `elu` and `prelu`",
    ),
    **dict.fromkeys(("Reshape", "Permute", "PixelShuffle"), "images keep their layout here"),
    **dict.fromkeys(
        ("CrossEntropyLoss", "MSELoss", "SGD", "Adam", "compile", "fit", "evaluate"), _LOSS
    ),
}
