"""Kill a training process (SIGKILL) at random moments, again and again; let it end at last.

Prints what happened, and exits with 1 unless the result equals that of an unbroken run bit for
bit. Processes are forked from one that has imported torch, so that a kill takes milliseconds.

    python -m tests.train.killer FOLDER --kills 200 --recipe full
"""

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from tests.train import trainee

RECIPES = {
    "plain": trainee.RECIPE.replace(epochs=12),
    "full": trainee.FULL.replace(epochs=12),
}


def fork(path: Path, save_every: float, recipe: trainee.training.Recipe) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        trainee.start_or_go_on(path, save_every, recipe)
        status = 0
    finally:
        os._exit(status)


def newest_step(path: Path) -> int:
    """How far a run has come, as `latest` tells; -1 before the folder exists."""
    latest = path / "checkpoints" / "latest"
    return int(latest.read_text().split("-")[1]) if latest.exists() else -1


def let_live(path: Path, child: int, draw: random.Random) -> int | None:
    """Wait a random number of steps and a random moment; the exit status of a child that ended.

    Every step is saved, so that many of these moments are in the middle of a save.
    """
    wanted = newest_step(path) + draw.randrange(15)
    while newest_step(path) < wanted:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if status == -signal.SIGKILL else status


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", choices=RECIPES, default="plain")
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.recipe]
    torch.set_num_threads(1)
    draw = random.Random(arguments.seed)
    unbroken = arguments.folder / "unbroken"
    trainee.start_or_go_on(unbroken, 1.0, recipe)

    kills = saving = runs = 0
    while kills < arguments.kills:
        path = arguments.folder / f"broken-{runs}"
        runs += 1
        while kills < arguments.kills:
            status = let_live(path, fork(path, 0.0, recipe), draw)
            if status is None:
                kills += 1
                saving += any(path.glob("*/.*"))
            elif status:
                print(f"going on failed after kill {kills}")
                return 1
            else:
                break
        trainee.start_or_go_on(path, 1.0, recipe)
        difference = trainee.difference(unbroken, path)
        if difference:
            print(f"{path.name} differs after {kills} kills: {difference}")
            return 1
    print(f"{kills} kills ({saving} during a save); {runs} runs, each equal to the unbroken one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
