"""What client libraries do to a module, each a row of the table in the docs.

A row is a function that takes a model and gives what the library found, as tensors by names.
"""

import copy
import logging
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

import tests.examples.oracle  # noqa: F401 (without it torchvision, which peft imports, does not load)
from tests.clients import sides


class Use(NamedTuple):
    """What is done with a library: its module's name, the version known to work, a function."""

    client: str
    module: str
    run: Callable[[nn.Module], dict[str, torch.Tensor]]
    rounding: float = 1e-5  # see `sides.same`

    @property
    def about(self) -> str:
        """What the function does."""
        return " ".join((self.run.__doc__ or "").split())


USES: list[Use] = []


def use(client: str, module: str, rounding: float = 1e-5):
    """Make a row of a function."""

    def add(run):
        USES.append(Use(client, module, run, rounding))
        return run

    return add


@use("peft", "peft")
def lora(model):
    """LoRA on a convolution and on `fc`: a step of training, inference, `merge_and_unload`"""
    import peft

    config = peft.LoraConfig(r=2, target_modules=["conv1", "head"], init_lora_weights=False)
    torch.manual_seed(1)
    model = peft.get_peft_model(model, config)
    found = sides.training(model)
    found |= sides.inference(model)
    merged = model.merge_and_unload()
    return found | {"merged": sides.inference(merged)["eval"]}


@use("accelerate", "accelerate")
def offloaded(model):
    """`cpu_offload`: weights are `meta` tensors until a layer is called"""
    import accelerate

    model = accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.conv1.weight.is_meta
    return sides.inference(model)


@use("captum", "captum")
def integrated_gradients(model):
    """`IntegratedGradients` of the input"""
    from captum.attr import IntegratedGradients

    found = IntegratedGradients(model.eval()).attribute(sides.X, target=1, n_steps=4)
    return {"attribution": found.detach()}


@use("captum", "captum")
def layer_grad_cam(model):
    """`LayerGradCam` and `LayerActivation` of a convolution and of a block"""
    from captum.attr import LayerActivation, LayerGradCam

    model.eval()
    layers = (model.conv1, model.get_submodule("body.0"), model.get_submodule("body.0.conv"))
    found = [LayerGradCam(model, layer).attribute(sides.X, target=1) for layer in layers]
    found += [LayerActivation(model, layer).attribute(sides.X) for layer in layers]
    return {str(number): tensor.detach() for number, tensor in enumerate(found)}


@use("grad-cam", "pytorch_grad_cam")
def grad_cam(model):
    """`GradCAM` and `EigenCAM` of a convolution"""
    from pytorch_grad_cam import EigenCAM, GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(int(y)) for y in sides.Y]
    found = {}
    for kind in (GradCAM, EigenCAM):
        with kind(model=model.eval(), target_layers=[model.get_submodule("body.0.conv")]) as cam:
            found[kind.__name__] = torch.from_numpy(cam(input_tensor=sides.X, targets=targets))
    return found


@use("torch-pruning", "torch_pruning")
def filters_pruned(model):
    """`DependencyGraph`: a filter less in a convolution and in all that depends on it"""
    import torch_pruning

    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=sides.X)
    group = graph.get_pruning_group(model.conv1, torch_pruning.prune_conv_out_channels, idxs=[1])
    group.prune()
    assert model.conv1.out_channels == 2
    assert model.get_submodule("body.0.norm").num_features == 2
    return sides.training(model) | sides.inference(model)


@use("`torch.ao.quantization`", "torch")
def quantized(model):
    """`quantize_dynamic` of `fc`"""
    with warnings.catch_warnings(action="ignore"):
        model = torch.ao.quantization.quantize_dynamic(model.eval(), {nn.Linear})
    assert type(model.head) is not nn.Linear
    return sides.inference(model)


@use("torchao", "torchao")
def int8_weights(model):
    """`quantize_` with `Int8WeightOnlyConfig`"""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model.eval(), Int8WeightOnlyConfig(version=2))
    assert type(model.head.weight) not in (torch.Tensor, nn.Parameter)
    return sides.inference(model)


@use("torchinfo", "torchinfo")
def summary(model):
    """`summary`: parameters and multiplications, each layer's output"""
    import torchinfo

    found = torchinfo.summary(model, input_data=sides.X, verbose=0)
    layers = {
        info.var_name: torch.tensor(info.output_size)
        for info in found.summary_list
        if not list(info.module.children())
    }
    return layers | {"numbers": torch.tensor([found.total_params, found.total_mult_adds])}


@use("`torch.nn.utils.parametrize`", "torch")
def evaluated_once(model):
    """a parametrised weight is evaluated once a forward pass"""
    calls = []

    class Doubled(nn.Module):
        def forward(self, weight):
            calls.append(1)
            return weight * 2

    nn.utils.parametrize.register_parametrization(model.conv1, "weight", Doubled())
    calls.clear()
    found = sides.inference(model)
    return found | {"calls": torch.tensor(len(calls))}


@use("`copy.deepcopy`", "torch")
def copied(model):
    """a copy, of which one layer is then changed"""
    other = copy.deepcopy(model)
    other.conv1.register_forward_hook(lambda _layer, _x, y: y * 2)
    return {"old": sides.inference(model)["eval"], "new": sides.inference(other)["eval"]}


logging.getLogger("torch_pruning").setLevel(logging.ERROR)
