"""What a recipe's settings do to the steps of a training."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import cnndsl.train as training
from cnndsl.train.augment import Augment
from cnndsl.train.examples import Batch, as_examples
from cnndsl.train.learner import Learner, NotFiniteError
from cnndsl.train.optimize import make_optimizer, make_schedule
from cnndsl.train.progress import Quiet
from tests.train import trainee

CPU = torch.device("cpu")


def rates(steps: int = 100, **settings: object) -> list[float]:
    recipe = trainee.RECIPE.replace(**settings)
    optimizer = make_optimizer(trainee.network(), recipe)
    schedule = make_schedule(optimizer, recipe, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    found = rates()
    assert found[9] == pytest.approx(trainee.RECIPE.lr) == max(found)
    assert found[:10] == sorted(found[:10])
    assert found[10:] == sorted(found[10:], reverse=True)
    assert 0 < found[-1] < 0.01 * trainee.RECIPE.lr


def test_a_warm_up_has_as_many_steps_as_it_is_given() -> None:
    for schedule in ("cosine", "constant"):
        found = rates(schedule=schedule, warmup=20)
        assert found[:20] == pytest.approx([0.01 * (i + 1) / 20 for i in range(20)])
        assert rates(schedule=schedule, warmup=0)[0] == 0.01
    assert rates(schedule="constant", warmup=20)[20:] == [0.01] * 80


def test_one_cycle_rises_in_three_tenths_or_as_long_as_it_is_given() -> None:
    for warmup, peak in ((None, 29), (50, 49)):
        found = rates(schedule="one-cycle", warmup=warmup)
        assert found[peak] == pytest.approx(0.01) == max(found)
        assert found[0] == pytest.approx(0.01 / 25)
        assert found[-1] < 1e-6
    assert max(rates(schedule="one-cycle", warmup=0)) == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_schedule_of_few_steps(schedule: str, steps: int) -> None:
    assert all(0 <= rate <= 0.0100001 for rate in rates(steps, schedule=schedule))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_only_weights_decay(name: str) -> None:
    recipe = trainee.RECIPE.replace(optimizer=name)
    weights, others = make_optimizer(trainee.network(), recipe).param_groups
    assert [p.ndim for p in weights["params"]] == [4, 2]
    assert [p.ndim for p in others["params"]] == [1, 1, 1, 1]
    assert (weights["weight_decay"], others["weight_decay"]) == (0.01, 0.0)


def test_sgd_has_the_momentum_that_was_asked_for() -> None:
    recipe = trainee.RECIPE.replace(optimizer="sgd", momentum=0.8, nesterov=True)
    group = make_optimizer(trainee.network(), recipe).param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.8, True)


# ── one step, against the same in plain PyTorch ──────────────────────────────────────────────────


def plain() -> nn.Module:
    """Without batchnorm and dropout, so that parts of a batch do not differ from the whole."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3))


def batch(count: int = 16) -> Batch:
    images, labels = trainee.images(count)
    return Batch(images, labels, 0, count)


def learner(model: nn.Module, **settings: object) -> Learner:
    recipe = trainee.RECIPE.replace(schedule="constant", warmup=0, **settings)
    return Learner(model, recipe, 10, CPU)


def repeat(step: Learner, times: int) -> None:
    for number in range(times):
        step.gradients(batch(), number)
        step.update()


def test_a_step_is_that_of_plain_pytorch() -> None:
    mine, theirs = plain(), plain()
    step = learner(mine, optimizer="sgd", nesterov=True, smoothing=0.1, clip=0.05, decay=0.0)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    x, y, *_ = batch()
    for number in range(3):
        sums = step.gradients(batch(), number)
        step.update()
        loss = functional.cross_entropy(theirs(x), y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        assert torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.05) > 0.05
        optimizer.step()
        assert sums.loss / 16 == pytest.approx(loss.item(), rel=1e-5)
        for here, there in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("parts", [2, 3, 16])
def test_gradients_in_parts_are_those_of_the_whole_batch(parts: int) -> None:
    whole, divided = plain(), plain()
    once, often = learner(whole), learner(divided, accumulate=parts)
    first, second = once.gradients(batch(), 0), often.gradients(batch(), 0)
    assert second.loss == pytest.approx(first.loss, rel=1e-6)
    assert (second.right, second.seen) == (first.right, 16)
    for here, there in zip(whole.parameters(), divided.parameters(), strict=True):
        torch.testing.assert_close(here.grad, there.grad, rtol=1e-5, atol=1e-7)


def test_averaged_weights_follow_the_learned_ones() -> None:
    model = plain()
    step = learner(model, ema=0.9)
    expected = None
    for number in range(4):
        step.gradients(batch(), number)
        step.update()
        now = model[3].weight.detach().double()
        expected = now if expected is None else 0.9 * expected + 0.1 * now
    assert torch.allclose(step.weights()["3.weight"].double(), expected, atol=1e-7)
    assert torch.equal(step.learning()["3.weight"], model[3].weight)
    assert step.judged is not model


def test_float16_makes_its_scale_smaller_until_the_gradients_are_numbers() -> None:
    model = plain()
    step = learner(model, dtype="fp16")
    before = model[3].weight.detach().clone()
    model[3].weight.register_hook(lambda g: g * (math.inf if len(seen) < 3 else 1))
    seen: list[float] = []
    for number in range(4):
        step.gradients(batch(), number)
        step.update()
        seen.append(step.settings()["scaler"]["scale"])
        assert torch.equal(model[3].weight, before) == (number < 3)
    assert seen == [2.0**15, 2.0**14, 2.0**13, 2.0**13]
    seen.clear()  # from now on, no scale helps
    with pytest.raises(NotFiniteError, match=r"gradient of `3\.weight`"):
        repeat(step, 40)


# ── images that change ───────────────────────────────────────────────────────────────────────────


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.rand(400, 2, 3, 5)
    changed = Augment(flip=True)(images, 7, 0, 400)
    same = (changed == images).flatten(1).all(1)
    turned = (changed == images.flip(3)).flatten(1).all(1)
    assert bool((same ^ turned).all())
    assert 150 < int(turned.sum()) < 250


def test_images_are_moved_by_as_much_as_was_asked_for() -> None:
    images = torch.rand(300, 2, 4, 5) + 1
    changed = Augment(crop=2)(images, 7, 0, 300)
    assert changed.shape == images.shape
    padded = functional.pad(images, (2, 2, 2, 2))
    found = set()
    for image, whole in zip(changed, padded, strict=True):
        places = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if torch.equal(image, whole[:, row : row + 4, column : column + 5])
        ]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) == 25


def test_what_is_drawn_for_an_image_does_not_depend_on_how_the_batch_is_divided() -> None:
    images = torch.rand(10, 1, 4, 4)
    change = Augment(flip=True, crop=1)
    whole = change(images, 3, 0, 10)
    parts = [change(images[a:b], 3, a, 10) for a, b in ((0, 4), (4, 5), (5, 10))]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, change(images, 4, 0, 10))


# ── a whole training ─────────────────────────────────────────────────────────────────────────────

FULL = trainee.FULL


def test_every_option_together_learns_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    from tests.train.test_loop import Stop

    one, other = tmp_path / "one", tmp_path / "other"
    outcome = training.train(trainee.network(), trainee.data(), out=one, recipe=FULL)
    assert outcome.metrics[-1]["train_accuracy"] > outcome.metrics[0]["train_accuracy"]
    for when in ((0, 3), (2, 1), (4, 6)):
        stop = Stop(*when)
        if other.exists():
            training.resume(other, trainee.network(), trainee.data(), reporter=stop)
        else:
            training.train(trainee.network(), trainee.data(), out=other, recipe=FULL, reporter=stop)
    training.resume(other, trainee.network(), trainee.data())
    assert trainee.difference(one, other) == ""


def test_the_average_is_what_is_tested_and_used(tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = trainee.RECIPE.replace(ema=0.9)
    outcome = training.train(trainee.network(), trainee.data(), out=run, recipe=recipe)
    trained = training.Trained(training.open_run(run), trainee.network(), "cpu")
    scores = training.evaluate(trained.model, as_examples(trainee.images(30, seed=1)))
    assert scores.loss == pytest.approx(outcome.metrics[-1]["test_loss"])
    kept = trainee.result(run)[0]
    assert kept.model.keys() == kept.learning.keys()
    assert not torch.equal(kept.model["5.weight"], kept.learning["5.weight"])


class Worse(Quiet):
    """Spoils the test images after some epochs, so that the test loss rises from there on."""

    def __init__(self, data: training.Data, after: int) -> None:
        self.data = data
        self.after = after

    def epoch(self, metrics: dict[str, object]) -> None:
        if metrics["epoch"] == self.after:
            self.data.test.labels.add_(1).remainder_(3)


@pytest.mark.parametrize("stopped", [False, True])
def test_training_ends_when_it_gets_no_better_and_the_best_is_used(
    tmp_path: Path, stopped: bool
) -> None:
    from tests.train.test_loop import Stop

    run = tmp_path / "run"
    recipe = trainee.RECIPE.replace(epochs=30, patience=2, schedule="constant")
    data = trainee.data()
    if stopped:
        training.train(
            trainee.network(), data, out=run, recipe=recipe, reporter=Stop(3, 2), save_every=0
        )
        outcome = training.resume(run, trainee.network(), data, reporter=Worse(data, 4))
    else:
        outcome = training.train(
            trainee.network(), data, out=run, recipe=recipe, reporter=Worse(data, 4)
        )
    best = outcome.best["epoch"]
    assert best <= 4
    assert len(outcome.metrics) == best + 2
    trained = training.Trained(training.open_run(run), trainee.network(), "cpu")
    assert trained.step == 6 * best
    assert len(training.resume(run, trainee.network(), trainee.data()).metrics) == best + 2
