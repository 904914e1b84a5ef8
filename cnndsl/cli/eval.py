"""`cnndsl eval RUN`: how often a trained network is right, and what it takes for what."""

import argparse
import sys
from typing import TYPE_CHECKING

from cnndsl.cli import terminal, training
from cnndsl.diagnostics.safe import safe

if TYPE_CHECKING:
    from cnndsl.train import Scores
    from cnndsl.train.data import Judged
    from cnndsl.train.trained import Network

_WIDEST_TABLE = 20  # classes; of more, only the most frequent mistakes are listed
_LISTED = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = (
        "Judge a trained network: its accuracy, and which class it takes for which."
    )
    parser.epilog = (
        "examples:\n"
        "  cnndsl eval runs/digits                        on the test images of its own data\n"
        "  cnndsl eval runs/animals --data more-animals   on other images of the same classes\n"
        "  cnndsl eval resnet18.cnn --weights resnet18.safetensors --data photos"
    )
    training.add_network(parser)
    parser.add_argument(
        "--data", metavar="NAME|PATH", help="other images than the test part of its own data"
    )
    parser.add_argument(
        "--format", metavar="FORM", choices=("text", "json"), default="text", help="text or json"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print accuracy and confusion matrix."""
    return training.guarded(_evaluate, arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from cnndsl.train import evaluate

    network = training.network(arguments)
    judged = network.judged(arguments.data)
    for text in judged.notes:
        print(f"note: {safe(text)}", file=sys.stderr)
    scores = evaluate(network.model, judged.examples, device=network.device, dtype=network.dtype)
    if arguments.format == "json":
        names = _names(judged, scores)
        terminal.print_json(_as_json(arguments, network, scores, names))
    else:
        print(show(scores, tuple(safe(name, 40) for name in _names(judged, scores))))
    return 0


def _as_json(
    arguments: argparse.Namespace, network: "Network", scores: "Scores", names: tuple[str, ...]
) -> dict[str, object]:
    return {
        "version": 1,
        "run": arguments.run,
        "step": getattr(network, "step", None),
        "accuracy": scores.accuracy,
        "right": scores.right,
        "count": scores.count,
        "loss": scores.loss,
        "classes": list(names),
        "confusion": scores.confusion,
    }


def _names(judged: "Judged", scores: "Scores") -> tuple[str, ...]:
    return judged.classes or tuple(str(i) for i in range(len(scores.confusion)))


def show(scores: "Scores", names: tuple[str, ...]) -> str:
    """Accuracy, and the confusion matrix or the most frequent mistakes."""
    lines = [
        f"accuracy {scores.accuracy:.2%} ({scores.right:,} of {scores.count:,} images), "
        f"loss {scores.loss:.4f}",
        "",
    ]
    lines += _table(scores, names) if len(names) <= _WIDEST_TABLE else _mistakes(scores, names)
    return "\n".join(lines)


def _table(scores: "Scores", names: tuple[str, ...]) -> list[str]:
    cells = [[str(count) if count else "·" for count in row] for row in scores.confusion]
    width = max(len(text) for text in (*names, *(c for row in cells for c in row)))
    label = max(len(name) for name in (*names, "is"))
    rows = [f"{'is':>{label}} │ taken for", _row("", names, "right", label, width)]
    rows.append("─" * label + "─┼" + "─" * ((width + 2) * len(names) + 9))
    for i, (name, row) in enumerate(zip(names, cells, strict=True)):
        total = sum(scores.confusion[i])
        share = f"{scores.confusion[i][i] / total:.1%}" if total else "–"
        rows.append(_row(name, tuple(row), share, label, width))
    return rows


def _row(name: str, cells: tuple[str, ...], last: str, label: int, width: int) -> str:
    columns = "".join(f"  {cell:>{width}}" for cell in cells)
    return f"{name:>{label}} │{columns}  {last:>7}".rstrip()


def _mistakes(scores: "Scores", names: tuple[str, ...]) -> list[str]:
    found = [
        (count, names[is_], names[taken])
        for is_, row in enumerate(scores.confusion)
        for taken, count in enumerate(row)
        if is_ != taken and count
    ]
    if not found:
        return ["no mistakes"]
    found.sort(key=lambda mistake: -mistake[0])
    rows = [f"{count:>8,}  {is_} taken for {taken}" for count, is_, taken in found[:_LISTED]]
    return ["the most frequent mistakes:", *rows]
