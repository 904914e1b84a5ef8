"""What a module returns beside its result, and blocks that lie in another file."""

import torch

import cnndsl

TEXT = """\
input H x W x 2
conv 3 1x1; relu as early
pool max 2 as half
conv 3 1x1; relu
add half as mid
output early
output mid
globalpool avg; flatten
fc 4
"""


def test_outputs_by_label():
    model = cnndsl.compile(source=TEXT)
    x = torch.randn(2, 2, 4, 6)
    outputs = model.outputs(x)
    assert {label: tuple(t.shape) for label, t in outputs.items()} == {
        "early": (2, 3, 4, 6),
        "mid": (2, 3, 2, 3),
    }
    early = torch.relu(torch.nn.functional.conv2d(x, model.conv1.weight, model.conv1.bias))
    torch.testing.assert_close(outputs["early"], early)
    result = model.fc1(outputs["mid"].mean((2, 3)))
    torch.testing.assert_close(model(x), result)


def test_a_file_that_uses_another_is_compiled(tmp_path):
    (tmp_path / "blocks.cnn").write_text("block stage(c) { conv c 1x1; relu }\n")
    path = tmp_path / "main.cnn"
    path.write_text('use "blocks.cnn"\ninput 4 x 4 x 2\nstage 3 as first\n')
    assert list(cnndsl.compile(path).state_dict()) == ["first.conv1.weight", "first.conv1.bias"]
