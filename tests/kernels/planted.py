"""Plants mistakes in the kernels, one at a time, and lets the tests look for them.

`python -m tests.kernels.planted` prints a table: which test finds each, and why the others change
nothing. `--sample N` takes every Nth; `--write` puts the table into `tests/golden/mistakes.md`.

Each mistake is planted in a copy of kernels/ and cnndsl/rt/, which a process of its own imports as
`cnndsl.kernels` and `cnndsl.rt`: so tests run as they are, a fault may kill that process, and
nothing lives on.
The looks are tests of the suite, some of each file: what one of them finds, the suite finds.
"""

import argparse
import contextlib
import importlib
import importlib.util
import io
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch

from cnndsl.emit.kernels import KERNELS

from .hostile import HostileInterpreter
from .mistakes import FOLDERS, MISTAKES, Mistake, place

TABLE = Path(__file__).parent.parent / "golden" / "mistakes.md"
SECONDS = 300  # of the processor, for all looks at one mistake
Look = tuple[str, Callable[[], object]]

# Regions of `test_regions`, by their numbers there: those that find most come first.
FUSED = (
    *(4, 33, 42, 60, 23, 17, 12, 16, 83, 84, 85, 86, 31, 69, 77),
    *(9, 15, 20, 35, 43, 45, 48, 50, 51, 53, 54, 56, 61, 62, 63, 64, 66, 68, 70, 76, 79, 80),
)
LIBRARY = (42, 60, 50, 33, 77, 68, 48)
STAGED = (42, 23)
ROWS = (33, 4, 43)
TIES = (33, 44, 56)
NORMS = (8, 11, 18, 16, 3, 14, 10)
WHOLES = (0, 5)
FC = ((17, 33, 31), (4, 400, 12), (65, 16, 10), (2, 5, 3))
FLAT = (1, 2, 3)
LOSS = ((3, 2049), (7, 10), (600, 10))


def hostile(test: Callable[..., object], *given: Any) -> None:
    """Run a test in the hostile interpreter, which it takes last."""
    with HostileInterpreter() as interpreter:
        test(*given, interpreter)


def conv_looks() -> Iterator[Look]:
    regions, semantics, text = (
        importlib.import_module(f"tests.kernels.test_{name}")
        for name in ("regions", "semantics", "text")
    )
    for name, package in (("FOLDER", "cnndsl.kernels"), ("RT", "cnndsl.rt")):
        setattr(text, name, Path(importlib.import_module(package).__file__ or "").parent)
    for name, indices in (
        ("float32", FUSED),
        ("a_librarys_products", LIBRARY),
        ("rows_of_filters", ROWS),
        ("a_convolution_launched_alone", STAGED),
        ("ties_go_where_pytorch_sends_them", TIES),
    ):
        test = getattr(regions, f"test_{name}")
        for index in indices:
            yield f"{name} {index}", partial(hostile, test, index)
    yield "bfloat16 42", partial(hostile, regions.test_bfloat16, 42)
    for index, pool in enumerate(semantics.POOLS):
        look = partial(semantics.test_nan_goes_through, pool, "relu")
        yield f"nan_goes_through {index}", look
    for index, pool in enumerate(semantics.POOLS):
        look = partial(hostile, semantics.test_zero_has_no_gradient, pool)
        yield f"zero_has_no_gradient {index}", look
    for index, pool in enumerate(semantics.POOLS[1:]):
        look = partial(semantics.test_an_infinite_gradient_stays_with_its_pixel, pool)
        yield f"an_infinite_gradient_stays_with_its_pixel {index}", look
    for pool in semantics.POOLS[1:3]:
        look = partial(semantics.test_the_winner_of_equals, pool, float("nan"))
        yield f"the_winner_of_equals {pool['pool_size']}", look
    for given in ({}, {"residual": True}):
        test = text.test_an_activation_whose_slope_follows_from_its_input
        look = partial(hostile, test, given, Path(tempfile.mkdtemp(dir=text.FOLDER)))
        yield f"slope_follows_from_its_input {given}", look


def norm_looks() -> Iterator[Look]:
    norms = importlib.import_module("tests.kernels.test_norms")
    for index in NORMS:
        yield f"norms: float32 {index}", partial(hostile, norms.test_float32, index)
    for index in WHOLES:
        yield (
            f"behind_a_convolution {index}",
            partial(hostile, norms.test_behind_a_convolution, index),
        )
    yield "many_tiles", partial(hostile, norms.test_many_tiles)
    yield "norms: ties", partial(hostile, norms.test_ties_and_zeros)


def fc_looks() -> Iterator[Look]:
    fc = importlib.import_module("tests.kernels.test_fc")
    for shape in FC:
        yield f"fc: float32 {shape}", partial(hostile, fc.test_float32, shape, "relu")
    for index in FLAT:
        test = fc.test_images_are_flattened_where_they_lie
        yield f"fc: images {index}", partial(hostile, test, fc.IMAGES[index])
    for shape in FC[:2]:
        look = partial(hostile, fc.test_a_library_multiplies, shape, "relu", torch.float32)
        yield f"fc: a_library_multiplies {shape}", look
    yield "fc: zeros", partial(hostile, fc.test_zeros_have_no_gradient)


def image_looks() -> Iterator[Look]:
    images = importlib.import_module("tests.kernels.test_image")
    for shape in images.SHAPES[1:6]:
        yield f"image: float32 {shape}", partial(hostile, images.test_float32, shape)


def loss_looks() -> Iterator[Look]:
    loss = importlib.import_module("tests.kernels.test_loss")
    for shape in LOSS:
        yield f"loss: float32 {shape}", partial(hostile, loss.test_float32, shape)
    name = "rows_that_are_left_out_do_not_count"
    yield name, partial(hostile, getattr(loss, f"test_{name}"))
    name = "a_class_that_does_not_exist_makes_loss_and_gradient_nan"
    yield name, partial(hostile, getattr(loss, f"test_{name}"), 10)
    look = partial(hostile, loss.test_special_values_do_as_in_pytorch, float("-inf"), 1030)
    yield "special_values_do_as_in_pytorch", look


# One of each kind comes before all others: what is not found by these is hard to find.
FIRST = (
    *("float32 4", "float32 33", "float32 42", "zero_has_no_gradient 1"),
    *("ties_go_where_pytorch_sends_them 44", "zero_has_no_gradient 2", "zero_has_no_gradient 3"),
    *("nan_goes_through 1", "nan_goes_through 2", "float32 60", "float32 23", "float32 17"),
    *("rows_of_filters 33", "a_convolution_launched_alone 42", "a_librarys_products 42"),
)


def looks(mistake: Mistake) -> list[Look]:
    """The tests that look at a mistake's file, in the order in which they do.

    First comes what found the mistake when the table was written, then what is likely to.
    """
    match mistake.file:
        case "fc.py" | "fc_gradients.py":
            found = [*fc_looks()]
        case "image.py":
            found = [*image_looks()]
        case "loss.py":
            found = [*loss_looks()]
        case file if file in KERNELS["norm"]:
            found = [*norm_looks()]
        case "windows.py" | "conv_epilogue.py":
            found = [*conv_looks(), *norm_looks()]
        case _:
            found = [*conv_looks()]
    before = committed().get((mistake.file, mistake.name))
    order = {label: place for place, label in enumerate((before, *FIRST))}
    return sorted(found, key=lambda look: order.get(look[0], len(order)))


def committed() -> dict[tuple[str, str], str]:
    """What the table says: by file and name of a mistake, which test finds it."""
    lines = TABLE.read_text(encoding="utf-8").splitlines() if TABLE.is_file() else []
    cells = [re.findall(r"[^|]+", line) for line in lines if line.startswith("|")]
    return {(a.strip(), b.strip()): c.strip() for a, b, c in cells}


def planted(mistake: Mistake, folder: Path) -> None:
    """Copy both packages, with the mistake in its place."""
    ignored = shutil.ignore_patterns("__pycache__")
    for package, own in FOLDERS.items():
        shutil.copytree(own, folder / package, ignore=ignored)
    file = place(mistake, [folder / package for package in FOLDERS])
    text = file.read_text("utf-8")
    count = text.count(mistake.old)
    if count != mistake.times:
        raise ValueError(f"{mistake.file}: {mistake.old!r} stands there {count} times")
    file.write_text(text.replace(mistake.old, mistake.new), "utf-8")


def use(folder: Path) -> None:
    """Let this process import both packages from a folder."""
    for package in reversed(FOLDERS):  # kernels import what they share
        own = folder / package
        spec = importlib.util.spec_from_file_location(
            package, own / "__init__.py", submodule_search_locations=[str(own)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[package] = module
        spec.loader.exec_module(module)


def look_for(mistake: Mistake, say: Any) -> None:
    """In a process of its own: say which look finds the mistake, and how; nothing, if none does."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    torch.use_deterministic_algorithms(True, warn_only=True)  # poisons what nobody filled
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        planted(mistake, folder)
        use(folder)
        for label, look in looks(mistake):
            say.send((label, "it does not end, or the process dies"))
            try:
                look()
            except BaseException as error:  # whatever tells: a fault, or a value that is wrong
                if isinstance(error, pytest.skip.Exception):
                    raise RuntimeError(f"{label} is skipped") from error
                say.send((label, str(error).strip().split("\n", maxsplit=1)[0]))
                say.send(None)
                return
    say.send(("", ""))
    say.send(None)


def found(mistake: Mistake) -> tuple[str, str]:
    """Give the first look that finds it, and what that says; an empty name if none does."""
    hear, say = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=look_for, args=(mistake, say))
    child.start()
    say.close()
    last: tuple[str, str] | None = None
    with contextlib.suppress(EOFError):
        while (heard := hear.recv()) is not None:
            last = heard
    child.join()
    if last is None:
        raise RuntimeError(f"{mistake.file}, {mistake.name}: could not be planted")
    return last


def table(results: list[tuple[Mistake, str, str]]) -> str:
    """A Markdown table, a mistake a line."""
    killed = sum(bool(label) for _, label, _ in results)
    same = sum(bool(mistake.same) for mistake, label, _ in results if not label)
    missed = len(results) - killed - same
    lines = [
        "# Mistakes planted in the kernels",
        "",
        f"Of {len(results)}, {killed} are found, {same} change nothing, {missed} are missed.",
        "Written by `python -m tests.kernels.planted --write`.",
        "",
        "| file | mistake | the first test that finds it |",
        "| --- | --- | --- |",
    ]
    for mistake, label, _ in results:
        lines.append(f"| {mistake.file} | {mistake.name} | {label or none(mistake)} |")
    return "\n".join(lines) + "\n"


def none(mistake: Mistake) -> str:
    return f"none: {mistake.same}" if mistake.same else "**none**"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.planted", description=__doc__)
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="every Nth of them")
    parser.add_argument("--only", help="those whose file and name hold this text")
    parser.add_argument("--write", action="store_true", help="write tests/golden/mistakes.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results, wrong = [], 0
    for mistake in MISTAKES[:: arguments.sample]:
        if arguments.only and arguments.only not in f"{mistake.file}: {mistake.name}":
            continue
        begin = time.perf_counter()
        label, words = found(mistake)
        results.append((mistake, label, words))
        wrong += bool(label) == bool(mistake.same)
        seconds = time.perf_counter() - begin
        verdict = f"{label}: {words[:90]}" if label else none(mistake)
        print(f"{mistake.file}: {mistake.name} → {verdict} ({seconds:.1f} s)", flush=True)
    text = table(results)
    if arguments.write:
        TABLE.write_text(text, encoding="utf-8")
    print(text.split("\n")[2])
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
