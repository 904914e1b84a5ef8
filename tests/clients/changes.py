"""What clients do to a module with PyTorch alone: each change is a row of the table in the docs.

A row is a function that changes a model and says in its docstring what it does. `regions` is how
many of the network's three still run their kernels afterwards.
"""

import copy
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Row(NamedTuple):
    """A client: what it does, and how many regions still run kernels after it."""

    client: str
    change: Callable[[nn.Module], nn.Module | None]
    regions: int
    always: bool = False  # in training and in inference, also where others take turns

    @property
    def about(self) -> str:
        """What the change does."""
        return " ".join((self.change.__doc__ or "").split())


ROWS: list[Row] = []


def row(client: str, regions: int, *, always: bool = False):
    """Make a row of a function."""

    def add(change):
        ROWS.append(Row(client, change, regions, always))
        return change

    return add


@row("nothing", 3)
def nothing(model):
    """nothing"""


@row("replaced layers", 2)
def another_head(model):
    """`m.head = nn.Linear(18, 5)`"""
    torch.manual_seed(1)
    model.head = nn.Linear(18, 5)


@row("replaced layers", 2)
def no_head(model):
    """`m.head = nn.Identity()`"""
    model.head = nn.Identity()


@row("replaced layers", 2)
def a_view(model):
    """a layer of one's own that calls `x.view(len(x), -1)`"""

    class Own(nn.Module):
        def forward(self, x):
            return x + x.view(len(x), -1).mean(1)[:, None, None, None]

    model.set_submodule("body.0.conv", Own())


@row("replaced layers", 1)
def fused_norm(model):
    """`fuse_conv_bn_eval`, with an `Identity` in the batchnorm's place"""
    block = model.eval().get_submodule("body.0")
    model.set_submodule("body.0.conv", fuse_conv_bn_eval(block.conv, block.norm))
    model.set_submodule("body.0.norm", nn.Identity())
    model.conv1 = nn.Sequential(model.conv1, nn.Tanh())


@row("replaced layers", 2)
def group_norm(model):
    """`GroupNorm` in the batchnorm's place"""
    model.set_submodule("body.0.norm", nn.GroupNorm(1, 3))


@row("replaced layers", 2)
def a_block(model):
    """`Identity` in a block's place"""
    model.set_submodule("body.0", nn.Identity())


@row("subclassed layers", 0, always=True)
def subclasses(model):
    """subclasses of `Conv2d`, `BatchNorm2d` and `Linear` whose `forward` is another"""

    class Conv(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    class Norm(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) - 1

    class Linear(nn.Linear):
        def forward(self, x):
            return F.linear(x, self.weight.sign(), self.bias)

    model.conv1.__class__ = Conv
    model.get_submodule("body.0.norm").__class__ = Norm
    model.head.__class__ = Linear


@row("altered layers", 2)
def no_bias(model):
    """`conv.bias = None`"""
    model.conv1.bias = None


@row("altered layers", 2)
def a_bias(model):
    """a bias where there was none"""
    model.get_submodule("body.0.conv").bias = nn.Parameter(torch.tensor([1.0, -1.0, 0.5]))


@row("altered layers", 1)
def circular(model):
    """`padding_mode="circular"`, by attribute and by a new layer"""
    model.conv1.padding_mode = "circular"
    torch.manual_seed(1)
    conv = nn.Conv2d(3, 3, 3, padding=1, bias=False, padding_mode="circular")
    model.set_submodule("body.0.conv", conv)


@row("altered layers", 1)
def geometry(model):
    """other `dilation` and `padding`; `groups` with a weight of that shape"""
    model.conv1.dilation = model.conv1.padding = (2, 2)
    torch.manual_seed(1)
    conv = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
    model.set_submodule("body.0.conv", conv)


@row("altered layers", 2)
def a_method(model):
    """`layer.forward = …` on one layer"""
    run = model.conv1.forward
    model.conv1.forward = lambda x: run(x).clamp(-0.1, 0.1)


@row("altered layers", 2)
def an_inner_method(model):
    """`conv._conv_forward = …` on one layer, as scripts for seamless tiles do"""
    run = model.conv1._conv_forward
    model.conv1._conv_forward = lambda x, weight, bias: run(x, weight, bias).abs()


@row("altered layers", 3)
def batchnorm_numbers(model):
    """`norm.eps`, `norm.momentum` and frozen statistics (`norm.eval()` in training)"""
    norm = model.get_submodule("body.0.norm")
    norm.eps, norm.momentum = 0.1, None
    norm.train = lambda mode=True: nn.BatchNorm2d.train(norm, False)


@row("altered layers", 3)
def batchnorm_without_tracking(model):
    """`norm.track_running_stats = False`"""
    model.get_submodule("body.0.norm").track_running_stats = False


@row("altered layers", 2)
def batchnorm_without_weight(model):
    """`norm.weight = None`, `norm.running_mean = None` and `norm.running_var = None`"""
    norm = model.get_submodule("body.0.norm")
    norm.weight = None
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None


@row("altered layers", 3)
def plain_tensors(model):
    """weights that are results, not parameters, as in meta-learning"""
    for layer in (model.conv1, model.head):
        weight = layer.weight
        del layer.weight
        layer.start = nn.Parameter(weight.detach().clone())
        layer.weight = layer.start * 0.9


@row("hooks", 2)
def forward_hook(model):
    """a forward hook that changes what a convolution gives"""
    model.conv1.register_forward_hook(lambda _layer, _x, y: y.tanh())


@row("hooks", 2)
def forward_pre_hook(model):
    """a forward pre-hook that changes what `fc` reads"""
    model.head.register_forward_pre_hook(lambda _layer, given: (given[0] * 2,))


@row("hooks", 2)
def hook_behind_batchnorm(model):
    """a forward hook on a batchnorm"""
    model.get_submodule("body.0.norm").register_forward_hook(lambda _layer, _x, y: y + 1)


@row("hooks", 1, always=True)
def backward_hooks(model):
    """backward hooks that change gradients, on layers and on a block"""
    model.conv1.register_full_backward_hook(lambda _layer, given, _from: (given[0] * 3,))
    model.head.register_full_backward_pre_hook(lambda _layer, given: (given[0] * 2,))
    block = model.get_submodule("body.0")
    block.register_full_backward_hook(lambda _block, given, _from: (given[0].sign(),))


@row("hooks", 3)
def hooks_of_blocks(model):
    """a forward hook that changes what a block gives, by `y.view(len(y), -1)`"""

    def change(_block, _x, y):
        return (y.view(len(y), -1) * 2).view(y.shape)

    model.get_submodule("body.0").register_forward_hook(change)


@row("hooks", 3)
def hooks_of_weights(model):
    """hooks on the weights' gradients"""
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradient * 2)


@row("`torch.nn.utils.prune`", 1)
def pruned(model):
    """`l1_unstructured` and `ln_structured`"""
    prune.l1_unstructured(model.conv1, "weight", 0.5)
    prune.ln_structured(model.head, "weight", 0.5, n=2, dim=0)


@row("`torch.nn.utils.prune`", 2, always=True)
def pruned_and_loaded(model):
    """`load_state_dict` behind it"""
    prune.l1_unstructured(model.conv1, "weight", 0.5)
    model.load_state_dict({n: t + 0.25 for n, t in model.state_dict().items()})


@row("`torch.nn.utils.prune`", 3)
def pruned_for_good(model):
    """`prune.remove`"""
    prune.l1_unstructured(model.conv1, "weight", 0.5)
    prune.remove(model.conv1, "weight")


@row("`weight_norm`", 1)
def weight_norms(model):
    """the parametrization"""
    parametrizations.weight_norm(model.conv1)
    parametrizations.weight_norm(model.head)


@row("`weight_norm`", 2, always=True)
def old_weight_norm(model):
    """the old form, by hooks"""
    with warnings.catch_warnings(action="ignore"):
        nn.utils.weight_norm(model.conv1)


@row("`spectral_norm`", 1)
def spectral_norms(model):
    """the parametrization"""
    torch.manual_seed(1)
    parametrizations.spectral_norm(model.get_submodule("body.0.conv"))
    parametrizations.spectral_norm(model.head)


@row("`spectral_norm`", 1, always=True)
def old_spectral_norm(model):
    """the old form, by hooks"""
    torch.manual_seed(1)
    nn.utils.spectral_norm(model.conv1)
    nn.utils.spectral_norm(model.get_submodule("body.0.conv"))


@row("`SyncBatchNorm`", 2)
def synchronised(model):
    """`convert_sync_batchnorm`"""
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


@row("`copy.deepcopy`", 2)
def copied(model):
    """a copy of a model with a changed layer"""
    no_bias(model)
    return copy.deepcopy(model)
