"""What training shows: a bar on a terminal, plain lines elsewhere. Knows no torch."""

from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cnndsl.diagnostics.safe import MESSAGE, safe


class Reporter(Protocol):
    """Is told what happens."""

    def begin(self, epochs: int) -> None:
        """Training starts, or goes on."""
        ...

    def step(self, epoch: int, done: int, steps: int) -> None:
        """A step of an epoch (from 0) is done."""
        ...

    def epoch(self, metrics: dict[str, Any]) -> None:
        """An epoch is done."""
        ...

    def note(self, text: str) -> None:
        """Something else is worth knowing."""
        ...

    def end(self) -> None:
        """Training stops, for whatever reason."""
        ...


class Quiet:
    """Shows nothing."""

    def begin(self, epochs: int) -> None:
        """Nothing."""

    def step(self, epoch: int, done: int, steps: int) -> None:
        """Nothing."""

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Lines(Quiet):
    """A line an epoch."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.epochs = 0

    def begin(self, epochs: int) -> None:
        """Remember how many there will be."""
        self.epochs = epochs

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Print its line."""
        self.note(line(metrics, self.epochs))

    def note(self, text: str) -> None:
        """Print it."""
        print(_shown(text), file=self.stream, flush=True)


class Bar(Lines):
    """A line an epoch, and below them a bar that moves with every step."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._console = Console(file=stream, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)

    def begin(self, epochs: int) -> None:
        """Draw the bar."""
        super().begin(epochs)
        self._progress.start()

    def step(self, epoch: int, done: int, steps: int) -> None:
        """Move the bar."""
        text = f"epoch {epoch + 1}/{self.epochs}"
        self._progress.update(self._task, description=text, completed=done, total=steps)

    def note(self, text: str) -> None:
        """Print it above the bar."""
        self._console.print(_shown(text), markup=False, soft_wrap=True)

    def end(self) -> None:
        """Remove the bar."""
        self._progress.stop()


def reporter(stream: TextIO) -> Reporter:
    """A bar if somebody sees it, lines otherwise."""
    return Bar(stream) if stream.isatty() else Lines(stream)


def _shown(text: str) -> str:
    """The lines of a note, which may name files and classes, as a terminal can show them."""
    return "\n".join(safe(line, MESSAGE) for line in text.split("\n"))


def line(metrics: dict[str, Any], epochs: int) -> str:
    """An epoch in one line."""
    number = str(metrics["epoch"]).rjust(len(str(epochs)))
    parts = [
        f"epoch {number}/{epochs}",
        f"loss {metrics['loss']:.4f}",
        f"train {metrics['train_accuracy']:6.2%}",
    ]
    if metrics["test_accuracy"] is not None:
        parts.append(f"{metrics.get('judged_on', 'test')} {metrics['test_accuracy']:6.2%}")
    parts.append(f"lr {metrics['lr']:.2e}")
    parts.append(f"{metrics['images_per_second']:,.0f} images/s")
    return "  ".join(parts)
