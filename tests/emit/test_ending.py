"""The loss of a compiled network is the one that belongs to its last layer."""

from copy import deepcopy
from functools import cache

import pytest
import torch
import torch.nn.functional as F

import cnndsl

BODY = "input 4 x 4 x 1\nconv 2 3x3; relu\n"
X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@cache
def once(end: str):
    torch.manual_seed(0)
    return cnndsl.compile(source=BODY + end)


def compiled(end: str):
    return deepcopy(once(end))


@pytest.mark.parametrize(
    ("end", "labels"),
    [
        ("flatten; fc 1; sigmoid", torch.tensor([0, 1, 1])),
        ("flatten; fc 1; sigmoid", torch.tensor([[0.0], [1.0], [0.25]])),
        ("flatten; fc 2; sigmoid", torch.tensor([[0, 1], [1, 1], [0, 0]])),
        ("conv 1 1x1; sigmoid", torch.tensor([0, 1, 1]).view(3, 1, 1).expand(3, 2, 2)),
    ],
)
def test_behind_a_sigmoid_it_is_binary_cross_entropy(end, labels):
    model = compiled(end)
    chances = model(X)
    torch.testing.assert_close(chances, torch.sigmoid(model.logits(X)))
    wanted = F.binary_cross_entropy(chances, labels.float().reshape(chances.shape))
    torch.testing.assert_close(model.loss(X, labels), wanted)
    model.loss(X, labels).backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_sigmoid_that_is_certain_and_wrong_still_learns():
    model = compiled("flatten; fc 1; sigmoid")
    with torch.no_grad():
        model.fc1.bias.fill_(-200.0)
    model.loss(X, torch.ones(3)).backward()
    assert float(model.fc1.bias.grad) == pytest.approx(-1)


def test_answers_that_are_neither_yes_nor_no_give_nan():
    assert compiled("flatten; fc 1; sigmoid").loss(X, torch.tensor([0, 1, 2])).isnan()


def test_one_output_without_a_sigmoid_has_no_classes():
    with pytest.raises(ValueError, match="one output tells no classes apart"):
        compiled("flatten; fc 1").loss(X, torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("end", ["flatten; fc 1", "flatten; fc 2; sigmoid"])
def test_what_looks_at_a_step_takes_any_end(end):
    assert isinstance(cnndsl.copies(compiled(end), X), list)
