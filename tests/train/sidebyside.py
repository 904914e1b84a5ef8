"""Train in several processes that are forked, kill one of them, and see what the others do.

Prints what happened; exits with 1 if anything is wrong.

    python -m tests.train.sidebyside FOLDER --kills 20
"""

import argparse
import os
import random
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import cnndsl.train as training
from tests.train import sharded, trainee
from tests.train.forked import LOST, ends, side_by_side
from tests.train.killer import newest_step

RECIPE = trainee.FULL.replace(epochs=10, patience=0, accumulate=2)
STEPS = 60
LIMIT = 10.0  # seconds in which it must


def go(path: Path, save_every: float = 0.0) -> Callable[[], None]:
    return lambda: trainee.start_or_go_on(path, save_every, RECIPE)


def wait_for(path: Path, step: int) -> None:
    until = time.monotonic() + 100
    while newest_step(path) < step:
        assert time.monotonic() < until, f"{path} does not come to step {step}"
        time.sleep(0.001)


def all_end_well(world: int, path: Path) -> bool:
    return ends(side_by_side(world, go(path, 1.0)), 120) == [0] * world


# ── two are one ──────────────────────────────────────────────────────────────────────────────────


class Plain(nn.Module):
    """Without batchnorm and dropout, which see each process's own images only.

    A layer has no part in the logits, as those of an extra `output` have none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.extra = nn.Conv2d(1, 8, 3), nn.Linear(8 * 16, 3), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.tanh(self.conv(x)).flatten(1))


def plain() -> nn.Module:
    training.seed_all(1)
    return Plain()


def joint(path: Path, world: int, optimizer: str) -> bool:
    """Fifty steps; of the last batch of an epoch, which has one image, a process has no part."""
    recipe = RECIPE.replace(optimizer=optimizer, nesterov=False, epochs=10, batch=20, ema=0.0)

    def work() -> None:
        data = training.as_data(trainee.images(81), trainee.images(30, seed=1))
        training.train(plain(), data, out=path, recipe=recipe)

    return ends(side_by_side(world, work), 120) == [0] * world


def largest_difference(one: Path, other: Path) -> float:
    here, there = trainee.result(one)[0], trainee.result(other)[0]
    assert here.step == there.step == 50
    return max(float((here.model[n] - there.model[n]).abs().max()) for n in here.model)


def check_joint(folder: Path, optimizers: tuple[str, ...], worlds: tuple[int, ...]) -> bool:
    for optimizer in optimizers:
        runs = {world: folder / f"{optimizer}-{world}" for world in (1, *worlds)}
        if not all(joint(path, world, optimizer) for world, path in runs.items()):
            print("a training in several processes failed")
            return False
        for world in worlds:
            found = largest_difference(runs[1], runs[world])
            losses = [[m["loss"] for m in trainee.result(runs[w])[1]] for w in (1, world)]
            far = max(abs(a - b) for a, b in zip(*losses, strict=True))
            print(f"{optimizer}, {world} processes for 50 steps: weights within {found:.1e}")
            if found > 1e-5 or far > 1e-5:
                return False
    return True


# ── one is killed ────────────────────────────────────────────────────────────────────────────────


def kill_one(path: Path, draw: random.Random) -> float | None:
    """Kill one of two at a random step; how long the other lived on, None if it went on."""
    children = side_by_side(2, go(path))
    wanted = min(max(0, newest_step(path)) + draw.randrange(1, 12), STEPS - 10)
    wait_for(path, wanted)
    time.sleep(draw.uniform(0, 0.02))
    doomed = children.pop(draw.randrange(2))
    os.kill(doomed, signal.SIGKILL)
    began = time.monotonic()
    time.sleep(0.1)
    os.kill(children[0], signal.SIGTERM)  # as torchrun does
    status = ends(children, LIMIT)[0]
    lived = time.monotonic() - began
    killed = os.waitstatus_to_exitcode(os.waitpid(doomed, 0)[1])
    if killed == -signal.SIGKILL and status in (LOST, 128 + signal.SIGTERM, -signal.SIGTERM):
        return lived
    print(f"killed at step {newest_step(path)}: {killed}, and the other ended with {status}")
    return None


def check_kills(folder: Path, kills: int, draw: random.Random) -> bool:
    unbroken = folder / "unbroken"
    if not all_end_well(2, unbroken):
        print("the unbroken training failed")
        return False
    times = []
    for number in range(kills):
        path = folder / f"broken-{number // 3}"  # several kills a run
        lived = kill_one(path, draw)
        if lived is None:
            print(f"kill {number + 1}: the other process did not end as it should")
            return False
        times.append(lived)
        if number % 3 == 2 or number == kills - 1:
            if not all_end_well(2, path):
                print(f"going on failed after kill {number + 1}")
                return False
            if difference := trainee.difference(unbroken, path):
                print(f"{path.name} differs: {difference}")
                return False
    print(f"{kills} of {kills} kills ended the other within {max(times):.1f} s; all went on")
    return True


def check_other_numbers(folder: Path, draw: random.Random) -> bool:
    for world in (1, 3):
        path = folder / f"in-{world}"
        if kill_one(path, draw) is None or not all_end_well(world, path):
            print(f"a run of two processes did not go on in {world}")
            return False
        checkpoint, metrics = trainee.result(path)
        if (checkpoint.step, len(metrics)) != (STEPS, 10):
            return False
    print("runs of 2 processes went on in 1 and in 3")
    return True


# ── signals ──────────────────────────────────────────────────────────────────────────────────────


def check_signals(folder: Path) -> bool:
    """A signal to one stops all in the same step; one that waits for a hanging one still ends."""
    path = folder / "stopped"
    children = side_by_side(2, go(path))
    wait_for(path, 3)
    os.kill(children[1], signal.SIGINT)
    statuses, step = ends(children, LIMIT), newest_step(path)
    if statuses != [0, 0] or step >= STEPS:
        print(f"a signal to one process did not stop both: {statuses}, step {step}")
        return False
    if not all_end_well(2, path) or trainee.difference(folder / "unbroken", path):
        print("after a signal the result is another one")
        return False
    children = side_by_side(2, go(folder / "hanging"))
    wait_for(folder / "hanging", 3)
    os.kill(children[1], signal.SIGSTOP)
    time.sleep(0.2)
    os.kill(children[0], signal.SIGTERM)
    began = time.monotonic()
    status = ends(children[:1], LIMIT)[0]
    lived = time.monotonic() - began
    ends(children[1:], 0)
    print(f"beside one that hangs, a process ended {lived:.1f} s after SIGTERM")
    return status == 128 + signal.SIGTERM


# ── the script that users copy ───────────────────────────────────────────────────────────────────


def check_script() -> bool:
    script = Path(__file__).parent.parent.parent / "examples" / "train_torchrun.py"
    return ends(side_by_side(2, lambda: runpy.run_path(str(script), run_name="__main__")), 120) == [
        0,
        0,
    ]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.optim.SGD(plain().parameters())  # imports half of torch, once for all that are forked
    draw = random.Random(arguments.seed)
    is_long = arguments.kills > 2
    optimizers, worlds = (("sgd", "adamw"), (2, 3)) if is_long else (("sgd",), (2,))
    fine = (
        check_joint(arguments.folder, optimizers, worlds)
        and check_kills(arguments.folder, arguments.kills, draw)
        and check_other_numbers(arguments.folder, draw)
        and check_signals(arguments.folder)
        and check_script()
        and sharded.check()
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
