"""A process that compiles candidates: a line of JSON in, a line of JSON out. Needs no GPU.

    python -m cnndsl.tune.worker

What it compiles also lies in Triton's cache then, where the process that asked finds it.
"""

import json
import os
import sys
from typing import Any, TextIO

import torch

from cnndsl.emit.module import Operator
from cnndsl.fuse.pins import Kernel, Tile
from cnndsl.runtime import target
from cnndsl.tune import trial
from cnndsl.tune.built import Built, Text
from cnndsl.tune.subject import Question
from cnndsl.tune.task import Static
from cnndsl.tune.trial import Given


def ask(question: Question, gpu: str) -> str:
    """The line that asks; `gpu` is a target as `compile --target` takes it."""
    given, text = question.given, question.text
    return json.dumps(
        {
            "gpu": gpu,
            "text": [text.text, text.name, text.operator.values(), text.is_conv],
            "direction": question.direction,
            "dtype": question.dtype,
            "tiles": [[kernel, tile.values()] for kernel, tile in question.tiles],
            "tensors": [None if t is None else _shape(t) for t in given.tensors],
            "needs": given.needs,
        }
    )


def _shape(tensor: torch.Tensor) -> list[Any]:
    return [list(tensor.shape), list(tensor.stride()), str(tensor.dtype).removeprefix("torch.")]


def _tensor(kind: list[Any] | None) -> Any:  # noqa: ANN401 (a tensor, or None for one that is not there)
    if kind is None:
        return None
    size, stride, dtype = kind
    return torch.empty_strided(size, stride, dtype=getattr(torch, dtype), device="meta")


def understand(line: str) -> Static:
    """What was answered."""
    return Static(**json.loads(line))


def answer(line: str) -> str:
    """Compile what a line asks for, and say what it uses."""
    try:
        found = _compile(json.loads(line))
    except target.TargetError as error:
        found = Static(error=str(error).strip().splitlines()[0])
    except Exception as error:  # whatever it is, the candidate is not taken
        found = Static(error=f"{type(error).__name__}: {error}")
    return json.dumps(dict(zip(found.__fields__, found.values(), strict=True)))


def _compile(asked: dict[str, Any]) -> Static:
    text, name, operator, is_conv = asked["text"]
    built = Built(Text(text, name, Operator(*operator), is_conv))
    tiles: list[tuple[Kernel, Tile]] = [(kernel, Tile(*tile)) for kernel, tile in asked["tiles"]]
    operators = built.operators(tiles, asked["dtype"])
    given = Given(*(_tensor(kind) for kind in asked["tensors"]), needs=tuple(asked["needs"]))
    with target.recording() as launches:
        made = trial.forward(operators, built, given)
        if asked["direction"] == "backward":
            launches.clear()
            trial.backward(operators, built, given, made)
    used = target.measure([target.compile_launch(each, asked["gpu"]) for each in launches])
    if not used:
        return Static()
    return Static(
        max(each.registers for each in used),
        max(each.spills for each in used),
        max(each.shared_bytes for each in used),
    )


def serve(asks: TextIO, answers: TextIO) -> None:
    """Answer until nobody asks any more."""
    for line in asks:
        answers.write(f"{answer(line)}\n")
        answers.flush()


def main() -> None:
    """Keep what compilers print away from the answers."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
