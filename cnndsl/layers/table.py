"""The list of all layers: a word of the language that is not here is not a layer."""

from cnndsl.layers.activations import (
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    PRelu,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
)
from cnndsl.layers.base import Layer, Merge
from cnndsl.layers.conv import Conv
from cnndsl.layers.deconv import Deconv
from cnndsl.layers.fc import FullyConnected
from cnndsl.layers.merge import Add, Concat, Multiply
from cnndsl.layers.norms import BatchNorm, GroupNorm, LayerNorm, LocalResponseNorm
from cnndsl.layers.pool import AdaptivePool, GlobalPool, Pool
from cnndsl.layers.regularise import Dropout, Dropout2d, DropPath, Scale
from cnndsl.layers.reshape import Flatten, Shuffle, Skip, Take
from cnndsl.layers.resize import Crop, CropLike, Pad, Upsample, UpsampleLike, UpsampleTo

LAYERS: tuple[type[Layer], ...] = (
    Conv,
    Deconv,
    Pool,
    AdaptivePool,
    GlobalPool,
    Flatten,
    FullyConnected,
    Relu,
    Relu6,
    LeakyRelu,
    Gelu,
    Silu,
    Sigmoid,
    Tanh,
    HardSwish,
    HardSigmoid,
    Elu,
    PRelu,
    BatchNorm,
    LayerNorm,
    GroupNorm,
    LocalResponseNorm,
    Dropout,
    Dropout2d,
    Softmax,
    Upsample,
    UpsampleTo,
    UpsampleLike,
    Pad,
    Crop,
    CropLike,
    Take,
    Shuffle,
    Scale,
    DropPath,
    Skip,
    Add,
    Concat,
    Multiply,
)

# A word of the language and its forms, such as `pool max 2` and `pool max to 7x7`.
FORMS: dict[str, tuple[type[Layer], ...]] = {
    kind: tuple(layer for layer in LAYERS if layer.kind == kind)
    for kind in dict.fromkeys(layer.kind for layer in LAYERS)
}

BY_KIND: dict[str, type[Layer]] = {kind: forms[0] for kind, forms in FORMS.items()}

MERGES: dict[str, type[Merge]] = {layer.kind: layer for layer in LAYERS if issubclass(layer, Merge)}
