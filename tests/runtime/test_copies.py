"""What a step copies only to lay it out otherwise: nothing, for channels-last images."""

import pytest
import torch
from torch import nn

import cnndsl

torch.set_num_threads(1)
LAST = torch.channels_last
# Chains and residuals of all kinds of regions; nothing in them reads the layout.
STAGES = {
    "pools": "conv 16 3x3 pad=1; relu; pool max 2\nconv 8 3x3; relu; pool max 3 stride=2",
    "average": "conv 4 3x3; gelu; pool avg 2",
    "stem": "conv 16 7x7 stride=2 pad=3 bias=no; batchnorm; relu; pool max 3 stride=2 pad=1",
    "residual": (
        "conv 16 3x3 pad=1; batchnorm; relu\n"
        "add { conv 16 3x3 pad=1; batchnorm; relu; conv 16 1x1; batchnorm } { skip }\nrelu"
    ),
    "depthwise": "conv 16 1x1; batchnorm; relu6\nconv channels 3x3 groups=channels; batchnorm",
    "staged": "conv 32 3x3 stride=2 pad=1; silu\nconv 16 1x1\nconv 16 3x3 groups=2; relu",
}


def made(text):
    return cnndsl.compile(source=f"input 20 x 18 x 3\n{text}\n").to(memory_format=LAST)


INPUT = "(2, 3, 20, 18) with strides (1080, 360, 18, 1)"


RESNET = """input 20 x 18 x 3
default conv bias=no
conv 16 3x3 pad=1; batchnorm; relu
add { conv 24 3x3 stride=2 pad=1; batchnorm } {
    pool max 1 stride=2
    concat { skip } { take 0 8 }
}
relu
add { conv 24 3x3 pad=1; batchnorm } { multiply { skip } { globalpool avg; conv 24 1x1; sigmoid } }
relu
globalpool avg
flatten
fc 3
"""


def test_a_residual_network_copies_nothing():
    """Means and slices give gradients with channels innermost, though no kernel of ours does."""
    model = cnndsl.compile(source=RESNET).to(memory_format=LAST)
    x = torch.empty(2, 3, 20, 18)
    assert cnndsl.copies(model, x.to(memory_format=LAST)) == []
    assert cnndsl.copies(model, x) == [INPUT]


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_step_on_channels_last_images_copies_nothing(stage):
    model = made(f"{STAGES[stage]}\nconv 16 1x1\nglobalpool avg\nflatten\nfc 3")
    before = [tensor.clone() for tensor in model.state_dict().values()]
    x = torch.empty(2, 3, 20, 18)
    assert cnndsl.copies(model, x.to(memory_format=LAST)) == []
    assert cnndsl.copies(model, x) == [INPUT]  # once, not in each kernel that reads it
    for tensor, kept in zip(model.state_dict().values(), before, strict=True):
        assert torch.equal(tensor, kept)


@pytest.mark.parametrize(
    "end",
    ["flatten\nfc 30; relu\nfc 3", "conv 16 20x18\nflatten\nfc 3", "conv 1 1x1\nflatten\nfc 3"],
)
def test_images_are_flattened_without_a_copy(end):
    """Of many pixels by the kernel, of one pixel or one channel as a view."""
    model = made(f"conv 16 3x3 pad=1; relu\n{end}")
    assert cnndsl.copies(model, torch.empty(2, 3, 20, 18).to(memory_format=LAST)) == []


def test_images_that_a_network_flattens_first_are_copied_once_where_they_lie_otherwise():
    model, x = made("flatten\nfc 30; relu\nfc 3"), torch.empty(2, 3, 20, 18)
    assert cnndsl.copies(model, x.to(memory_format=LAST)) == []
    assert cnndsl.copies(model, x) == [INPUT]


def test_lenet_copies_nothing():
    model = cnndsl.compile("examples/lenet.cnn").to(memory_format=LAST)
    assert cnndsl.copies(model, torch.empty(4, 1, 28, 28).to(memory_format=LAST)) == []


def test_weights_and_gradients_in_another_layout_are_named():
    x = torch.empty(2, 3, 20, 18).to(memory_format=LAST)
    text = "input 20 x 18 x 3\nconv 16 3x3; relu\nflatten\ndropout p=0.5\nfc 3\n"
    model = cnndsl.compile(source=text)
    weight, gradient = cnndsl.copies(model, x)
    assert weight == "(16, 3, 3, 3) with strides (27, 9, 3, 1)"
    # what `flatten` gives back, where what follows reads its vector
    assert gradient == "(2, 16, 18, 16) with strides (4608, 288, 16, 1)"
    assert cnndsl.copies(model.to(memory_format=LAST), x) == [gradient]


def test_what_is_no_module_of_ours_is_refused():
    with pytest.raises(TypeError, match="Linear is no module"):
        cnndsl.copies(nn.Linear(2, 2), torch.empty(2, 2))
