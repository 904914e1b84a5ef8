"""`cnndsl predict RUN IMAGE…`: what a trained network takes images for."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cnndsl.cli import terminal, training
from cnndsl.diagnostics.safe import safe

if TYPE_CHECKING:
    from cnndsl.train import Prediction


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = (
        "Say what images show. An image that is not of the network's size, or has colours where\n"
        "it takes grey, is converted, and its line says so. It should look like those that were\n"
        "trained on: scikit-learn's digits are white on black, and fill the image."
    )
    parser.epilog = (
        "examples:\n"
        "  cnndsl predict runs/digits seven.png\n"
        "  cnndsl predict runs/animals *.jpg --top 1\n"
        "  cnndsl predict resnet18.cnn cat.jpg --weights resnet18.safetensors"
    )
    training.add_network(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="a file: png, jpg, …")
    parser.add_argument(
        "--top", metavar="N", type=int, default=3, help="how many classes to name for each (3)"
    )
    parser.add_argument(
        "--format",
        metavar="FORM",
        choices=("text", "json"),
        default="text",
        help="text, or json: one object an image, one image a line",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print a line an image."""
    return training.guarded(_predict, arguments)


def _predict(arguments: argparse.Namespace) -> int:
    from cnndsl.train import UsageError

    if arguments.top < 1:
        raise UsageError(f"top is {arguments.top}; it must be at least 1", "--top 1")
    network = training.network(arguments)
    for name in arguments.images:
        prediction = network.predict(Path(name))
        if arguments.format == "json":
            terminal.print_json(_as_json(name, prediction))
        else:
            print(show(name, prediction, arguments.top))
    return 0


def _as_json(name: str, prediction: "Prediction") -> dict[str, object]:
    classes = [{"class": text, "probability": chance} for text, chance in prediction.classes]
    return {
        "version": 1,
        "image": name,
        "classes": classes,
        "independent": prediction.is_independent,
        "converted": list(prediction.done),
    }


def show(name: str, prediction: "Prediction", top: int) -> str:
    """One line: the file, the likeliest classes, what was done to the image."""
    ranked = prediction.classes[:top]
    chances = ", ".join(f"{safe(text, 40)} {chance:.1%}" for text, chance in ranked)
    remarks = ["each by itself"] if prediction.is_independent else []
    remarks += map(safe, prediction.done)
    done = f"  ({', '.join(remarks)})" if remarks else ""
    return f"{safe(name)}: {chances}{done}"
