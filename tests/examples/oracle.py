"""torchvision's own networks, where it is installed, and what its states look like as data.

`pip install --no-deps torchvision==0.28.0`, then `python -m tests.examples.oracle` writes
`torchvision.json` anew: for each model and layer, the names and shapes of what is in its state.
"""

import json
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

STATES = Path(__file__).with_name("torchvision.json")
MODELS = (
    "alexnet",
    "vgg11",
    "vgg16",
    "vgg16_bn",
    "squeezenet1_0",
    "squeezenet1_1",
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenet_v2",
    "densenet121",
)


def torchvision_model(name: str) -> nn.Module:
    """torchvision's model, with fresh weights."""
    # Beside a CPU build of torch, torchvision lacks the operators that this module describes.
    sys.modules.setdefault("torchvision._meta_registrations", ModuleType("_meta_registrations"))
    from torchvision import models

    return getattr(models, name)(weights=None)


def published_states() -> dict[str, dict[str, tuple[int, ...]]]:
    """For each model, its state's names and shapes in order."""
    return {
        model: {
            f"{layer}.{name}": tuple(shape)
            for layer, shapes in layers.items()
            for name, shape in shapes.items()
        }
        for model, layers in json.loads(STATES.read_text()).items()
    }


def main() -> None:
    """Write the states, a layer a line."""
    texts: list[str] = []
    for model in MODELS:
        layers: dict[str, dict[str, list[int]]] = {}
        with torch.device("meta"):
            state = torchvision_model(model).state_dict()
        for path, tensor in state.items():
            layer, name = path.rsplit(".", 1)
            layers.setdefault(layer, {})[name] = list(tensor.shape)
        lines = ",\n".join(f'    "{layer}": {json.dumps(s)}' for layer, s in layers.items())
        texts.append(f'  "{model}": {{\n{lines}\n  }}')
    STATES.write_text("{\n" + ",\n".join(texts) + "\n}\n")


if __name__ == "__main__":
    main()
