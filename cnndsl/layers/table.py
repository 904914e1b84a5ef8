"""The list of all layers: a word of the language that is not here is not a layer."""

from cnndsl.layers.activations import Relu, Softmax
from cnndsl.layers.base import Layer, Merge
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

# A word of the language and its forms, such as `pool max 2` and `pool max to 7x7`.
FORMS: dict[str, tuple[type[Layer], ...]] = {
    kind: tuple(layer for layer in LAYERS if layer.kind == kind)
    for kind in dict.fromkeys(layer.kind for layer in LAYERS)
}

BY_KIND: dict[str, type[Layer]] = {kind: forms[0] for kind, forms in FORMS.items()}

MERGES: dict[str, type[Merge]] = {layer.kind: layer for layer in LAYERS if issubclass(layer, Merge)}
