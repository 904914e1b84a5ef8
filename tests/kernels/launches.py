"""What is launched, on which tensors, when calls are remembered and when not; prints differences.

Run by `test_launches` in a process of its own: nothing is remembered where kernels are interpreted.
No GPU is needed: a kernel that is launched is noted, and computes nothing.
"""

import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime.jit import JITFunction

import cnndsl
from cnndsl.rt import shared
from cnndsl.runtime.load import text_of

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from host import NoDriver

TEXT = """\
input 9 x 8 x 2
conv 4 3x3 pad=same; relu; pool max 2
conv 20 3x3 pad=same; batchnorm; relu
conv 6 1x1; gelu; pool max 2 stride=1
add { skip } { conv 6 1x1; batchnorm }
conv 4 3x3 pad=same groups=2; silu; pool avg 2 stride=1
flatten
fc 5; gelu
fc 3; relu
fc 3
"""
# What else there is: images of bytes, products of the library, sizes that symbols decide.
OTHER = """\
input H x 8 x 17 u8
conv 17 3x3 groups=17; batchnorm; relu6
conv 20 3x3 pad=same; relu; pool max 3 stride=2 pad=1
globalpool avg; flatten
fc 1030; tanh
"""
REMEMBERED = "REMEMBERS = not INTERPRETED and"
NUMBERS = count()
LENET = Path(__file__).parents[2] / "examples" / "lenet.cnn"
noted: list[tuple[str, Any, tuple[Any, ...]]] = []


class Noted(CompiledKernel):
    """A kernel that is noted instead of launched."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *values: noted.append((self.name, grid, values))


def run(self: Any, *_args: Any, grid: tuple[int, ...], **given: Any) -> Noted:
    values = tuple(given[name] for name in self.arg_names)
    tensors = [value for value in values if isinstance(value, Tensor)]
    types = [f"{tensor.dtype} {tensor.data_ptr() % 16 == 0}" for tensor in tensors]
    compiled = Noted(f"{self.fn.__name__} for {types}")
    compiled[(*grid, 1, 1)](*values)
    return compiled


def launched(step: Callable[[], object]) -> list[str]:
    """Describe the launches of a step; a tensor's number tells it from the others."""
    noted.clear()
    step()  # all tensors stay alive in `noted`, so no address is used twice
    numbers: dict[int, int] = {}
    lines = []
    for name, grid, values in noted:
        words = []
        for value in values:
            if isinstance(value, Tensor):
                number = numbers.setdefault(value.data_ptr(), len(numbers))
                value = f"#{number} {value.dtype} {tuple(value.shape)} {value.stride()}"
            words.append(str(value))
        lines.append(f"{name} {grid}: {'; '.join(words)}")
    return lines


def inputs() -> dict[str, Tensor]:
    x = torch.randn(3, 2, 9, 8)
    return {
        "as made": x,
        "channels last": x.contiguous(memory_format=torch.channels_last),
        "another batch": torch.randn(2, 2, 9, 8),
        "a slice": torch.randn(3, 4, 9, 8)[:, 1:3],
        "bfloat16": x.bfloat16(),
        "not aligned": torch.randn(3 * 2 * 9 * 8 + 1)[1:].view(3, 2, 9, 8),
        "channels last, not aligned": torch.randn(433)[1:].view(3, 9, 8, 2).permute(0, 3, 1, 2),
        "no images": x[:0],
    }


def networks() -> list[torch.nn.Module]:
    """Give the same network twice: one remembers, one does not."""
    torch.manual_seed(0)
    first = alone(TEXT, REMEMBERED, REMEMBERED)
    second = alone(TEXT, REMEMBERED, "REMEMBERS = False and")
    second.load_state_dict(first.state_dict())
    return [first, second]


def alone(source: str, old: str, new: str) -> torch.nn.Module:
    """Give a network whose file stands alone, with a change, that takes the CPU's tensors."""
    plain = cnndsl.compile(source=source)
    text = text_of(plain) or ""
    assert old in text
    text = text.replace(old, new).replace('NAMESPACE = "', f'NAMESPACE = "n{next(NUMBERS)}_')
    place = Path(tempfile.mkdtemp()) / "network.py"  # Triton reads the text of its kernels there
    place.write_text(text, "utf-8")
    space: dict[str, Any] = {"__name__": "network", "__file__": str(place)}
    exec(compile(text, str(place), "exec"), space)
    space["runs_kernels"] = lambda _: True
    space["refuse_launch"] = lambda *_: None
    return space[type(plain).__name__]()


def gradients(model: torch.nn.Module) -> list[str]:
    """Say of what kind the gradients are; what is in them, nothing computed."""
    found = [p.grad for p in model.parameters() if p.grad is not None]
    return [f"{t.dtype} {tuple(t.shape)} {t.stride()}" for t in found]


def first_region(model: torch.nn.Module) -> Callable[..., Tensor]:
    """Give its operator, which may be handed images in any layout."""
    namespace = type(model).forward.__globals__
    return next(v for name, v in namespace.items() if name[:5] == "conv1" and name[-3:] == "_op")


def compare_networks() -> torch.nn.Module:
    models = networks()
    namespace = type(models[0]).forward.__globals__
    carry_out, replays = namespace["carry_out"], []

    def counted(plan: Any, given: Any, device: Any) -> Any:
        replays.append(plan)
        return carry_out(plan, given, device)

    namespace["carry_out"] = counted
    new_plan, refused = namespace["new_plan"], []

    def looked(given: Any, *noted: Any) -> Any:
        plan = new_plan(given, *noted)
        if plan is None and all(t.numel() for t in given if isinstance(t, Tensor)):
            refused.append(given)
        return plan

    namespace["new_plan"] = looked
    run_of_triton, JITFunction.run = JITFunction.run, run
    for name, x in [*inputs().items(), *inputs().items(), *inputs().items()]:
        for training in (True, False):
            for precision in ("tf32", "ieee"):
                torch.backends.cudnn.conv.fp32_precision = precision
                found = []
                for model in models:
                    model.to(x.dtype).train(training)
                    y = torch.zeros(len(x), dtype=torch.long)

                    def step(model: Any = model, x: Tensor = x, y: Tensor = y) -> None:
                        if len(x) or not model.training:
                            model.loss(x, y).backward()
                        for mode in (torch.inference_mode, torch.no_grad):
                            with mode():
                                model.eval()(x)
                            first_region(model)(x, model.conv1.weight, model.conv1.bias)

                    model.zero_grad()
                    found.append([*launched(step), *gradients(model)])
                print(f"{name}, {training}, {precision}: {len(found[0])} launches")
                for ours, plain in zip(*found, strict=True):
                    if ours != plain:
                        print(f"DIFFERENT\n  {ours}\n  {plain}")
    JITFunction.run = run_of_triton
    print(f"{len(replays)} calls were like an earlier one, {len(refused)} could not be remembered")
    return models[0]


@triton.jit
def scaled(x_ptr, y_ptr, count, factor, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + place, mask=place < count, other=0.0)
    tl.store(y_ptr + place, x * factor, mask=place < count)


class Looked(dict):
    """Knows what was found last."""

    found: object = None

    def get(self, key: Any) -> Any:
        self.found = super().get(key)
        return self.found


def compare_kernels() -> None:
    """What is remembered is what Triton would take."""
    triton.runtime.driver.set_active(NoDriver())
    shared.COMPILED = Looked()
    x = torch.zeros(64)
    plain = {"x_ptr": x, "y_ptr": x, "count": 3, "factor": 0.5, "BLOCK": 16, "num_warps": 1}
    changes: list[dict[str, Any]] = [
        *({"x_ptr": t} for t in (x, x[1:], x[4:], x.half(), x.bfloat16(), x[2:].half())),
        *({"count": n} for n in (0, 1, 2, 15, 16, 17, 2**31 - 1, 2**31, 2**40)),
        *({"factor": f} for f in (1, 1.0, 2, 2.5, 16)),
        *({"BLOCK": 32}, {"num_warps": 2}, {"num_warps": 1, "num_stages": 2}),
    ]
    kernels = set()
    for change in changes * 2:
        given = plain | change
        wanted = scaled[(1,)](**given)
        shared.launch(scaled, 1, **given)
        shared.launch(scaled, 1, **given)
        kernels.add(id(wanted))
        if shared.COMPILED.found is not wanted:
            print(f"DIFFERENT kernels for {change}")
    print(f"{len(kernels)} kernels, {len(shared.COMPILED)} remembered")


class Unmade(CompiledKernel):
    """What Triton would have compiled."""

    function = packed_metadata = None

    def __init__(self) -> None:
        pass

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *_: None

    def run(self, *_: object) -> None:
        """Launch nothing."""

    def launch_metadata(self, *_: object) -> None:
        """Say nothing."""


def count_compilations(mixed: torch.nn.Module) -> None:
    """Say how often Triton would compile for other batches: by its own rules, but it makes none."""
    triton.runtime.driver.set_active(NoDriver())
    compiled: list[str] = []

    def note(self: Any, key: str, *_: object) -> Unmade:
        compiled.append(self.fn.__name__)
        self.device_caches[0][0][key] = made = Unmade()
        return made

    JITFunction._do_compile = note
    models = {
        "lenet": alone(LENET.read_text("utf-8"), REMEMBERED, REMEMBERED),
        "mixed": mixed.float(),
        "other": alone(OTHER, REMEMBERED, REMEMBERED),
    }
    for name, model in models.items():
        type(model).forward.__globals__["COMPILED"].clear()
        shape = [9 if size is None else size for size in model.input_shape]
        is_bytes = getattr(model, "input_dtype", None) == torch.uint8
        for batch in (64, 40, 1):
            compiled.clear()
            x = torch.randint(0, 256, (batch, *shape), dtype=torch.uint8)
            x = x if is_bytes else x.float()
            model.train().loss(x, torch.zeros(batch, dtype=torch.long)).backward()
            with torch.inference_mode():
                model.eval()(x)
            print(f"{name}, batch {batch}: {len(compiled)} compilations {sorted(compiled)}")


if __name__ == "__main__":
    network = compare_networks()
    compare_kernels()
    count_compilations(network)
