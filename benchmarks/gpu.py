"""Fused kernels on a GPU against what PyTorch does: block by block, and a step of training.

    python benchmarks/gpu.py [--out benchmarks/results] [--only ceilings,blocks,steps] [--dry-run]

Made for an H200 and under 9 minutes. First the two ceilings: bytes copied and bf16 products in a
second. Then each block of a table (a convolution, bias, ReLU, pool): its results against float64,
and its time against eager PyTorch with cudnn.benchmark, in both orders of pool and ReLU, against
torch.compile, against cuDNN's products with one pass of ours each way ("library"), and against JAX,
where that is installed. Then whole steps of training, with peak memory. Contenders take turns;
times are medians of rounds; inputs rotate, so that none is left in the cache. "graphed" replays a
CUDA graph: without it, small blocks are as slow as Python launches them.

`--dry-run` goes through all of it in Triton's interpreter, on tiny sizes, and measures nothing.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from functools import partial
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1" if "--dry-run" in sys.argv else "0"

import torch
import torch.nn.functional as F
import triton
from blocks import BLOCKS, STEPS, Block
from clock import DRY, graphed, race
from tables import table
from torch import Tensor, nn

import cnndsl
from cnndsl.fuse.choices import Choices, Chosen, layers, title
from cnndsl.fuse.pins import Pin
from cnndsl.fuse.regions import Region, parts
from cnndsl.fuse.ways import allowed
from cnndsl.runtime.load import origin_of
from cnndsl.runtime.using import never, using
from cnndsl.tune.door import following

ROOT = Path(__file__).parents[1]
DEVICE = "cpu" if DRY else "cuda"
DTYPE = torch.float32 if DRY else torch.bfloat16
CACHE_BYTES = 60e6
# Of torch.compile; its graphs are measured as those of all others are.
MODE = "max-autotune-no-cudagraphs" if "--max-autotune" in sys.argv else "default"


def without_kernels(model: nn.Module) -> AbstractContextManager[None]:
    """The emitted module as eager PyTorch: each layer by its operator, ReLU behind a maximum."""
    return using(model, takes=never)


# ── ceilings ─────────────────────────────────────────────────────────────────────────────────────


def ceilings() -> dict[str, float]:
    """Bytes read and written in a second by a copy, and operations of a bf16 product."""
    if DRY:
        return {"bytes_per_s": 1e12, "operations_per_s": 1e15}
    size = 8192
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    values = torch.randn(2**30, device=DEVICE, dtype=torch.bfloat16)
    copied = torch.empty_like(values)
    times = race({"copy": [lambda: copied.copy_(values)], "product": [lambda: a @ b]})
    return {
        "bytes_per_s": 2 * 2 * 2**30 / times["copy"]["us"] * 1e6,
        "operations_per_s": 2 * size**3 / times["product"]["us"] * 1e6,
    }


# ── blocks ───────────────────────────────────────────────────────────────────────────────────────


class Eager(nn.Module):
    """The block as a user writes it; `smart` pools before the ReLU."""

    def __init__(self, block: Block, conv: nn.Conv2d, smart: bool) -> None:
        """Share the weights of `conv`."""
        super().__init__()
        self.conv, self.pool, self.smart = conv, block.pool, smart

    def forward(self, x: Tensor) -> Tensor:
        """Give (N, filters, H, W)."""
        z = self.conv(x)
        if self.pool is None:
            return F.relu(z)
        if self.smart:
            return F.relu(F.max_pool2d(z, *self.pool))
        return F.max_pool2d(F.relu(z), *self.pool)


def with_library(model: nn.Module) -> nn.Module:
    """The block with all products by PyTorch's library, and one pass of ours each way."""
    origin = origin_of(model)
    assert origin is not None
    (region,) = (part for part in parts(origin.graph) if isinstance(part, Region))
    (way,) = (c for c in allowed(region, "whole") if c.forward == c.backward == "library")
    chosen = Chosen(title(region), layers(region), (("whole", Pin(way, ())),))
    return following(model, origin, Choices((chosen,)))


def inputs(block: Block) -> list[Tensor]:
    """So many that they do not all fit into the cache."""
    shape = (block.batch, block.channels, block.size, block.size)
    count = 1
    for side in shape:
        count *= side
    sets = max(1, min(4, int(4 * CACHE_BYTES // (2 * count)))) if not DRY else 1
    made = [torch.randn(shape, device=DEVICE, dtype=DTYPE) for _ in range(sets)]
    return [
        x.contiguous(memory_format=torch.channels_last).requires_grad_(not block.is_first)
        for x in made
    ]


def forward_of(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """Inference."""

    def call() -> object:
        with torch.no_grad():
            return model(x)

    return call


def both_of(model: nn.Module, x: Tensor, gradient: Tensor) -> Callable[[], object]:
    """Forward, and the gradients that training asks for."""
    leaves = [p for p in (*model.parameters(), x) if p.requires_grad]

    def call() -> object:
        return torch.autograd.grad(model(x), leaves, gradient)

    return call


def error(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def accuracy(models: dict[str, nn.Module], x: Tensor, gradient: Tensor) -> dict[str, list[float]]:
    """How far output and gradients of each are from float64, and ours from themselves."""
    twin = deepcopy(models["eager"]).double()
    given = x.detach().double().requires_grad_(x.requires_grad)
    torch.backends.cudnn.benchmark = False  # in float64 a search takes minutes
    wanted = results(twin, given, gradient.double())
    torch.backends.cudnn.benchmark = True
    found = {name: results(model, x, gradient) for name, model in models.items()}
    errors = {
        name: [error(a, b) for a, b in zip(values, wanted, strict=True)]
        for name, values in found.items()
    }
    again = results(models["ours"], x, gradient)
    errors["ours again"] = [
        float(not torch.equal(a, b)) for a, b in zip(found["ours"], again, strict=True)
    ]
    return errors


def results(model: nn.Module, x: Tensor, gradient: Tensor) -> list[Tensor]:
    """Output, and gradients of weight, bias and input."""
    y = model(x)
    leaves = [p for p in (*model.parameters(), x) if p.requires_grad]
    return [y.detach(), *torch.autograd.grad(y, leaves, gradient)]


def measure_block(block: Block, until: float) -> dict:
    """One row: times of each contender, forward and both ways, and its errors."""
    torch.manual_seed(0)
    ours = cnndsl.compile(source=block.source).to(DEVICE, DTYPE)
    ours = ours.to(memory_format=torch.channels_last)
    conv = next(m for m in ours.modules() if isinstance(m, nn.Conv2d))
    models = {"ours": ours, "library": with_library(ours), "eager": Eager(block, conv, False)}
    if block.pool:
        models["smart"] = Eager(block, conv, True)
    sets = inputs(block)
    gradient = torch.randn_like(ours(sets[0]).detach())
    row = {"block": block.name, "errors": accuracy(models, sets[0], gradient)}
    if not DRY and time.monotonic() < until:
        start = time.monotonic()
        torch.compiler.reset()  # or it runs what it compiled for the shapes of another block
        compiled = torch.compile(Eager(block, conv, False), mode=MODE)
        results(compiled, sets[0], gradient)
        row["compile_s"] = time.monotonic() - start
        models["compile"] = compiled
    for kind in ("forward", "both"):
        plain, replayed = {}, {}
        for name, model in models.items():
            calls = [
                forward_of(model, x) if kind == "forward" else both_of(model, x, gradient)
                for x in sets
            ]
            plain[name] = calls
            replayed[f"{name} graphed"] = [graphed(call) for call in calls]
        row[kind] = race(plain | replayed)
    return row


def with_jax(rows: list[dict], names: str) -> dict[str, str]:
    """Add JAX's times to the rows, where it is installed; says which JAX, or nothing."""
    if importlib.util.find_spec("jax") is None or not rows:
        return {}
    command = [sys.executable, str(ROOT / "benchmarks" / "jax_blocks.py"), "--names", names]
    command += ["--dry-run"] if DRY else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
        print(f"JAX was not measured: {failure}", file=sys.stderr)
        return {}
    found = json.loads(done.stdout)
    for row in rows:
        for kind, us in found["blocks"].get(row["block"], {}).items():
            row[kind]["jax graphed"] = {"us": us}
    return {"jax": f"{found['jax']} on {found['device']}"}


# ── steps of training ────────────────────────────────────────────────────────────────────────────


class Training:
    """A network in training by one way: `ours`, `eager` or `compile`."""

    def __init__(self, text: str, batch: int, sizes: dict[str, int], way: str) -> None:
        """The same weights and the same batch for each way."""
        torch.manual_seed(0)
        if text.endswith(".cnn"):
            model = cnndsl.compile(ROOT / "examples" / text, **sizes)
        else:
            model = cnndsl.compile(source=text)
        self.model = model.to(DEVICE, DTYPE).to(memory_format=torch.channels_last)
        x = torch.randn(batch, *model.input_shape, device=DEVICE, dtype=DTYPE)
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.y = torch.randint(0, 10, (batch,), device=DEVICE)
        self.way = way
        self.logits = torch.compile(self.model.logits) if way == "compile" else self.model.logits
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=1e-3, momentum=0.9, foreach=True
        )

    def __call__(self) -> Tensor:
        """Take a step, and give its loss."""
        self.optimizer.zero_grad()
        if self.way == "ours":
            loss = self.model.loss(self.x, self.y)
            loss.backward()
        else:
            with without_kernels(self.model):
                loss = F.cross_entropy(self.logits(self.x), self.y)
                loss.backward()
        self.optimizer.step()
        return loss.detach()


def measure_step(name: str, text: str, batch: int, sizes: dict[str, int], until: float) -> dict:
    """One row: times of a step, with and without a graph; peak memory; the last of 20 losses."""
    row: dict = {"network": name, "batch": batch, "memory": {}, "loss": {}, "first_s": {}}
    contenders: dict[str, list[Callable[[], object]]] = {}
    for way in ("ours", "eager", "compile"):
        if way == "compile" and (DRY or time.monotonic() > until):
            continue
        step = Training(text, 1 if DRY else batch, sizes, way)
        start = time.monotonic()
        losses = [float(step()) for _ in range(1 if DRY else 20)]
        row["first_s"][way] = time.monotonic() - start
        row["loss"][way] = losses[-1]
        if not DRY:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            row["memory"][way] = torch.cuda.max_memory_allocated() - before
        contenders[way] = [step]
        contenders[f"{way} graphed"] = [graphed(step)]
        if way == "ours":  # what users call: it copies a batch in, and the loss out
            replayed = cnndsl.graph_step(step.model, step.optimizer)
            try:
                for _ in range(1 if DRY else 5):  # plain ones, then the capture
                    replayed(step.x, step.y)
                contenders["ours graph_step"] = [partial(replayed, step.x, step.y)]
            except RuntimeError as failure:  # told in the results; the others are still measured
                row["graph_step"] = str(failure)
    row["us"] = race(contenders)
    return row


# ── all of it ────────────────────────────────────────────────────────────────────────────────────


def about() -> dict[str, str]:
    """What was measured, and where."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    name = "interpreter" if DRY else torch.cuda.get_device_name()
    return {
        "device": name,
        "commit": os.environ.get("CNNDSL_COMMIT", commit),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "dtype": str(DTYPE).removeprefix("torch."),
        "compile": MODE,
    }


def keep(found: dict, folder: Path | None, done: str) -> None:
    """Say what is done, and write all that was found so far."""
    print(done, flush=True)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / found["device"].lower().replace(" ", "-")
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    stem.with_suffix(".md").write_text(f"{table(found)}\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="a folder for <device>.json and <device>.md")
    parser.add_argument("--only", default="ceilings,blocks,steps", help="what to measure")
    parser.add_argument("--names", default="", help="of blocks and networks: those that begin so")
    parser.add_argument("--minutes", type=float, default=8.5, help="when to leave compile out")
    parser.add_argument("--max-autotune", action="store_true", help="let torch.compile search")
    parser.add_argument("--dry-run", action="store_true", help="in the interpreter, tiny")
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    torch.backends.cudnn.benchmark = True
    chosen = tuple(name for name in given.names.split(",") if name) or ("",)
    found: dict = about()
    if "ceilings" in given.only:
        found |= ceilings()
    if "blocks" in given.only:
        found["blocks"] = []
        for block in BLOCKS:
            if block.name.startswith(chosen):
                found["blocks"].append(measure_block(block.tiny if DRY else block, until))
                keep(found, given.out, block.name)
        found |= with_jax(found["blocks"], given.names)
        keep(found, given.out, "jax" if "jax" in found else "no jax")
    if "steps" in given.only:
        found["steps"] = []
        for name, text, batch, sizes in STEPS:
            if name.startswith(chosen) and (name == "LeNet" or not DRY):
                found["steps"].append(measure_step(name, text, batch, sizes, until))
                keep(found, given.out, name)
    print(table(found))


if __name__ == "__main__":
    main()
