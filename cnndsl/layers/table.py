"""The list of all layers: a word of the language that is not here is not a layer."""

from cnndsl.layers.activations import Relu, Softmax
from cnndsl.layers.base import Layer
from cnndsl.layers.conv import Conv
from cnndsl.layers.fc import FullyConnected
from cnndsl.layers.norms import BatchNorm
from cnndsl.layers.pool import GlobalPool, Pool
from cnndsl.layers.regularise import Dropout
from cnndsl.layers.reshape import Flatten, Skip

LAYERS: tuple[type[Layer], ...] = (
    Conv,
    Pool,
    GlobalPool,
    Flatten,
    FullyConnected,
    Relu,
    BatchNorm,
    Dropout,
    Softmax,
    Skip,
)

BY_KIND: dict[str, type[Layer]] = {layer.kind: layer for layer in LAYERS}
