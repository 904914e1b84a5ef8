"""torchvision's own networks, and numbers to fill them with."""

import sys
from importlib import import_module
from types import ModuleType

import torch
from torch import nn

# Beside a CPU build of torch, torchvision lacks the operators that this module of it describes.
sys.modules.setdefault("torchvision._meta_registrations", ModuleType("_meta_registrations"))
models = import_module("torchvision.models")

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
    return getattr(models, name)(weights=None)


def fill(model: nn.Module) -> nn.Module:
    """Give a model weights and statistics as training leaves them; it may come from `meta`."""
    if next(model.parameters()).is_meta:
        model.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5)
            elif name.endswith("num_batches_tracked"):
                tensor.zero_()
            elif name.endswith(("running_var", "weight")):
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.uniform_(-0.1, 0.1)
    return model
