"""`cnndsl bench FILE`: a network against eager PyTorch and torch.compile, then region by region."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from cnndsl import output
from cnndsl.cli import terminal, training
from cnndsl.diagnostics.safe import safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnndsl.fuse.choices import Choices
    from cnndsl.runtime.load import Origin
    from cnndsl.tools.bench import Row, Shape
    from cnndsl.tools.regions import Line

NAMES = {"ours": "ours", "eager": "eager", "compile": "torch.compile"}
DTYPES = ("fp32", "bf16", "fp16")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = (
        "Measure a network: steps of training and inference, ours against eager PyTorch and\n"
        "torch.compile, in turns; then each region: what can compute it, how long that takes, and\n"
        "what is chosen. Without a GPU, kernels cannot be measured: then it shows what the rules\n"
        "choose."
    )
    parser.epilog = (
        "examples:\n"
        "  cnndsl bench lenet.cnn --device cpu\n"
        "  cnndsl bench resnet18.cnn --set H=224 --set W=224 --batch 128 --dtype bf16\n"
        "  cnndsl bench lenet.cnn --pin lenet.json    keep what was chosen, for:\n"
        "  cnndsl compile lenet.cnn --choices lenet.json -o lenet.py"
    )
    parser.add_argument("file", metavar="FILE", help="a .cnn file")
    parser.add_argument(
        "--device",
        metavar="NAME",
        default="auto",
        help="cpu, cuda, cuda:1 or auto: the GPU where there is one (auto)",
    )
    parser.add_argument("--batch", metavar="N", type=int, default=64, help="images in a step (64)")
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        choices=DTYPES,
        help="fp32, bf16 or fp16 (bf16 on a GPU, fp32 on a CPU)",
    )
    training.add_settings(parser)
    parser.add_argument(
        "--against",
        metavar="WHAT",
        choices=("eager", "compile", "both"),
        default="both",
        help="eager PyTorch, torch.compile, or both, which compiles for a while (both)",
    )
    parser.add_argument(
        "--rounds",
        metavar="N",
        type=int,
        default=15,
        help="how often each takes its turn, at most (15)",
    )
    parser.add_argument(
        "--format", metavar="FORM", choices=("text", "json"), default="text", help="text or json"
    )
    parser.add_argument(
        "--pin",
        metavar="OUT.json",
        help="write what was chosen, on a GPU; `compile --choices` and `cnndsl.tune` take it",
    )
    parser.add_argument(
        "--force", action="store_true", help="let --pin replace a file that cnndsl did not write"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    return training.guarded(_bench, arguments)


def _bench(arguments: argparse.Namespace) -> int:
    from cnndsl.fuse.choices import is_choices
    from cnndsl.runtime.load import origin_of
    from cnndsl.tools import bench, regions
    from cnndsl.train import UsageError, seed_all
    from cnndsl.train.compiled import compile_file
    from cnndsl.train.recipe import DTYPES as KINDS
    from cnndsl.train.recipe import choose_device
    from cnndsl.tune import TuneError
    from cnndsl.tune.door import Shape as Images

    if arguments.batch < 1 or arguments.rounds < 1:
        raise UsageError("`--batch` and `--rounds` are whole numbers from 1 up")
    device = choose_device(arguments.device)
    if arguments.pin and device.type != "cuda":
        raise UsageError(
            f"on {device} no kernels are measured, so there is nothing to pin",
            "leave `--pin` out, or run this where there is a GPU: `--device cuda`",
        )
    if arguments.pin:  # before anything is measured, which takes minutes
        output.check(arguments.pin, None if arguments.force else is_choices, arguments.file)
    seed_all(0)
    try:
        model, _ = compile_file(arguments.file, arguments.settings)
    except ValueError as error:  # a param without a value
        raise UsageError(str(error), "give it one: `--set NAME=…`") from error
    origin = origin_of(model)
    assert origin is not None
    dtype = KINDS[arguments.dtype or ("bf16" if device.type == "cuda" else "fp32")]
    size = _size(origin)
    shape = Images(arguments.batch, size[1:], dtype)
    batch = bench.Shape((arguments.batch, *size), dtype, device, origin.graph.takes_bytes)
    about = _about(arguments, batch)
    if arguments.format == "text":
        _print_head(about)
    try:
        rows = bench.race(model, origin, batch, arguments.rounds, arguments.against)
        if device.type == "cuda":
            lines, choices = regions.on_gpu(origin, shape, device)
            if arguments.pin:
                _pin(arguments.pin, choices)
        else:
            lines = regions.by_rule(origin, shape)
    except TuneError as error:
        terminal.complain(error.message, *error.fixes, color=arguments.color)
        return 1
    if arguments.format == "json":
        _print_json(about, rows, lines)
    else:
        _print_text(rows, lines)
    return 0


def _size(origin: "Origin") -> tuple[int, ...]:
    """Channels, height and width; free sizes as in `check`, or as they are set."""
    known = dict(origin.graph.example)
    dims = [dim.evaluate(known) for dim in origin.graph.source.dims]
    return (dims[-1], *dims[:-1])


def _pin(path: str, choices: "Choices") -> None:
    from cnndsl.fuse.choices import write

    with output.replacing(path) as file:
        file.write_text(write(choices), encoding="utf-8")
    name = safe(path)
    print(f"wrote {name}; use it: cnndsl compile FILE --choices {name}", file=sys.stderr)


def _about(arguments: argparse.Namespace, batch: "Shape") -> dict[str, Any]:
    from cnndsl.tools.bench import machine

    return {
        "version": 1,
        "file": arguments.file,
        **machine(batch.device),
        "dtype": str(batch.dtype).removeprefix("torch."),
        "shape": list(batch.size),
        "rounds": arguments.rounds,
    }


# ── for programs ─────────────────────────────────────────────────────────────────────────────────


def _print_json(about: dict[str, Any], rows: "Sequence[Row]", lines: "Sequence[Line]") -> None:
    network = [
        {
            "kind": row.kind,
            "rounds": row.rounds,
            "ms": dict(row.ms),
            "ratio": {name: row.ratio(name) for name in row.ms if name != "ours"},
            "missing": dict(row.missing),
        }
        for row in rows
    ]
    terminal.print_json({**about, "network": network, "regions": [line.json() for line in lines]})


# ── for people ───────────────────────────────────────────────────────────────────────────────────


def _print_head(about: dict[str, Any]) -> None:
    shape = " x ".join(map(str, about["shape"]))
    count = about["threads"]
    threads = f", {count} thread{'s' * (count > 1)}" if about["device"] == "cpu" else ""
    print(f"{safe(about['file'])} on {about['device']}{threads}: {shape}, {about['dtype']}")
    # Before anything is measured, which takes a while.
    print(f"torch {about['torch']}; medians of rounds in which all take turns\n", flush=True)


def _print_text(rows: "Sequence[Row]", lines: "Sequence[Line]") -> None:
    for row in rows:
        others = [name for name in row.ms if name != "ours"]
        parts = [f"ours {row.ms['ours']:.2f} ms"]
        parts += [f"{NAMES[name]} {row.ms[name]:.2f} ms ({row.ratio(name):.2f})" for name in others]
        print(f"{row.kind:<10} {'; '.join(parts)}; {row.rounds} rounds")
        for name, why in row.missing.items():
            print(f"{'':<10} {NAMES[name]} is not there: {why}")
    print("(their time / ours: above 1, ours is faster)\n")
    is_measured = any(line.us is not None for line in lines)
    if not is_measured:
        print("regions: not measured, for there is no GPU here; what the rules choose:")
    last = ""
    for line in lines:
        name = line.region + (" (training)" if line.role == "sums" else "")
        if name != last:
            print(f"\n{name}")
            last = name
        _print_line(line)
    if not lines:
        print("this network has no regions: all its layers are PyTorch's operators")


def _print_line(line: "Line") -> None:
    moved = f"{line.work.bytes / 2**20:,.2f} MiB, {line.work.products / 1e6:,.1f} M products"
    if line.us is None:
        print(f"  {line.direction:<9} {line.choice:<16} at least {moved}")
        if line.direction == "backward":
            print(f"  {'':<9} {line.why}")
        return
    share = f", {line.share:.0%} of the roof" if line.share is not None else ""
    print(f"  {line.why}")
    print(f"  {'':<9} {moved}{share}")
    for name, us, why in line.candidates:
        print(
            f"  {'':<9} {f'{us:10.1f} µs' if us is not None else f'{chr(8211):>13}'}  {name}"
            + (f": {why}" if why else "")
        )
