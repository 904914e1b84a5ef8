"""Compiles kernels for a GPU that need not be there, and counts what their machine code uses.

`record` runs code that launches kernels, on tensors of the device `meta` (shapes without memory),
and notes the launches in place of doing them; `compile_launch` compiles one for a target;
`measure` counts in the machine code. Needs the real compiler: a process in which kernels are
interpreted (TRITON_INTERPRET=1) cannot compile. Knows nothing of networks.
"""

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from types import MappingProxyType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cnndsl.diagnostics.safe import safe
from cnndsl.record import Record
from cnndsl.runtime import machine
from cnndsl.runtime.machine import TargetError
from cnndsl.runtime.scaling import takes_bytes
from cnndsl.runtime.some_loss import some_labels, some_loss
from cnndsl.runtime.using import using

# Triton carries no types: this is what it takes and gives.
Untyped = Any
triton: Any = import_module("triton")
JITFunction: Any = import_module("triton.runtime.jit").JITFunction
ASTSource: Any = import_module("triton.compiler").ASTSource
GPUTarget: Any = import_module("triton.backends.compiler").GPUTarget

DTYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.int32: "i32",
    torch.int64: "i64",
}


class Launch(Record):
    """A kernel and what it would have been launched with."""

    kernel: str
    function: Any
    arguments: Mapping[str, Any]
    options: Mapping[str, int]
    region: str = ""  # in an emitted module, the region that launches it
    name: str = ""  # the two together, and what else tells it from all other launches

    @property
    def dtype(self) -> str:
        """Name the type of the values that the kernel reads first."""
        tensors = (a for a in self.arguments.values() if isinstance(a, torch.Tensor))
        return next((DTYPES[tensor.dtype] for tensor in tensors), "")

    @property
    def config(self) -> dict[str, Any]:
        """Give what was chosen for this launch: block sizes, precision, warps, stages."""
        chosen = {
            name: value
            for name, value in self.arguments.items()
            if name.startswith("BLOCK_") or name == "PRECISION"
        }
        tile = self.arguments.get("T")
        if tile is not None:
            sides = {"BLOCK_ROWS": tile.rows, "BLOCK_COLUMNS": tile.columns}
            chosen = {**sides, "BLOCK_TERMS": tile.terms, **chosen}
        return {**chosen, **self.options}


class Compiled(Record):
    """A launch compiled for a target: the text or code of each stage, by its name."""

    launch: Launch
    target: str
    stages: Mapping[str, str | bytes]
    shared_bytes: int


class Usage(Record):
    """What the machine code of a kernel uses; in the JSON of `compile --stats`."""

    kernel: str
    dtype: str
    target: str
    config: Mapping[str, Any]
    registers: int
    spills: int
    shared_bytes: int
    mma: str
    tma: bool
    instructions: int

    def json(self) -> dict[str, Any]:
        """Give the object that interfaces.md describes."""
        return {name: getattr(self, name) for name in self.__fields__}


@contextmanager
def recording(operators: "_WithoutOperators | None" = None) -> Generator[list[Launch]]:
    """Note the launches in the block, and do none of them; with `operators`, of which region."""
    launches: list[Launch] = []

    def note(self: Untyped, *args: Untyped, **given: Untyped) -> None:
        del given["grid"], given["warmup"]
        options = {name: given.pop(name) for name in ("num_warps", "num_stages") if name in given}
        arguments = {**dict(zip(self.arg_names, args, strict=False)), **given}
        region = "" if operators is None else operators.region
        launches.append(Launch(self.fn.__name__, self, arguments, options, region))

    run = JITFunction.run
    JITFunction.run = note
    try:
        yield launches
    finally:
        JITFunction.run = run


def record(code: Callable[[], object]) -> list[Launch]:
    """Note the launches of a function, and do none of them."""
    with recording() as launches:
        code()
    return launches


class _WithoutOperators(TorchDispatchMode):
    """Calls what an operator stands for, also for shapes without memory, where it would not run."""

    implementations: Mapping[str, Callable[..., object]] = MappingProxyType({})
    region = ""  # whose operator runs

    def __torch_dispatch__(  # the name and the parameters are PyTorch's
        self, func: Untyped, types: Untyped, args: Untyped = (), kwargs: Untyped = None
    ) -> Untyped:
        """Run one operator."""
        implementation = self.implementations.get(func.name())
        if implementation is not None:
            self.region = func.name().rpartition("::")[2].removesuffix("_backward")
            return implementation(*args)
        return func(*args, **(kwargs or {}))


@contextmanager
def without_operators(model: torch.nn.Module) -> Generator[_WithoutOperators]:
    """Let an emitted module call its launches, on shapes without memory, too.

    Regions of the module are functions with an attribute `operators`; they stand beside its class,
    or beside a function that it imports.
    """
    namespace: dict[str, Any] = type(model).forward.__globals__
    direct = _WithoutOperators()
    spaces = [namespace, *(getattr(value, "__globals__", {}) for value in namespace.values())]
    for space in {id(space): space for space in spaces}.values():
        for value in space.values():
            direct.implementations = {**direct.implementations, **getattr(value, "operators", {})}
    with using(model, takes=torch.Tensor.is_floating_point, is_blind=True), direct:
        yield direct


def record_model(
    model: torch.nn.Module, shape: tuple[int, ...], dtype: torch.dtype
) -> list[Launch]:
    """Note each different launch of an emitted module, in training and in inference."""
    model = deepcopy(model).to(device="meta", dtype=dtype)
    emitted: Untyped = model
    launches: dict[str, Launch] = {}
    for is_training in (True, False):
        images = torch.uint8 if takes_bytes(model) else dtype
        x = torch.empty(shape, device="meta", dtype=images)
        with without_operators(model) as direct, recording(direct) as noted:
            model.train(is_training)(x).sum().backward()
            if is_training and hasattr(model, "loss"):
                y = some_labels(emitted, emitted.logits(x))
                some_loss(emitted, x, y).backward()  # pyright: ignore[reportUnknownMemberType]
        for launch in noted:
            # Regions share kernels: what tells their launches apart is every number in them.
            plain = {n: v for n, v in launch.arguments.items() if not isinstance(v, torch.Tensor)}
            key = f"{launch.region} {launch.kernel} {launch.options} {plain}"
            if key not in launches:
                launches[key] = launch.replace(
                    name=_name(launch, launches, is_training=is_training)
                )
    return list(launches.values())


def _name(launch: Launch, others: Mapping[str, Launch], *, is_training: bool) -> str:
    """Name a launch in a table: one that no other launch has."""
    taken = {other.name for other in others.values()}
    name = f"{launch.region}: {launch.kernel}"
    if name in taken and not is_training:
        name += " (inference)"
    number, plain = 2, name
    while name in taken:
        name = f"{plain} ({number})"
        number += 1
    return name


def gpu_target(name: str) -> Untyped:
    """Give Triton's own description of `sm_90`, `gfx942` and their like."""
    known = machine.targets()
    if name not in known:
        plain = re.sub(r"[^a-z0-9]", "", name.lower())
        near = [target for target in known if target.replace("_", "") == plain]
        raise TargetError(
            f"no target is called {ascii(name)[:40]}",
            *(f"did you mean `{target}`?" for target in near),
            f"for NVIDIA's GPUs: {', '.join(t for t in known if t.startswith('sm'))}",
            f"for AMD's: {', '.join(t for t in known if t.startswith('gfx'))}",
        )
    if name.startswith("sm_"):
        return GPUTarget("cuda", int(name[3:]), 32)
    return GPUTarget("hip", name, 64 if name.startswith("gfx9") else 32)


def compile_launch(launch: Launch, target: str) -> Compiled:
    """Compile for the target, with the types and sizes of the launch, as launching would."""
    if not isinstance(launch.function, JITFunction):
        raise TargetError("kernels are interpreted in this process (TRITON_INTERPRET=1)")
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for parameter in launch.function.params:
        place = (parameter.num,)
        value = launch.arguments.get(parameter.name)
        kind, is_aligned = _kind(value, parameter)
        signature[parameter.name] = kind
        if kind == "constexpr":
            constants[place] = value
        if is_aligned:
            attributes[place] = [["tt.divisibility", 16]]
    source = ASTSource(launch.function, signature, constants, attributes)
    try:
        kernel = triton.compile(source, target=gpu_target(target), options=dict(launch.options))
    except Exception as error:  # the compiler raises errors of many kinds, each with its own text
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise TargetError(
            f"{launch.kernel} does not compile for {target}: {safe(reason)}"
        ) from error
    return Compiled(launch, target, dict(kernel.asm), int(kernel.metadata.shared))


def _kind(value: object, parameter: Untyped) -> tuple[str, bool]:
    """Give a parameter's type in Triton's words, and whether 16 divides its value or address."""
    is_special = not parameter.do_not_specialize
    is_one = isinstance(value, int) and value == 1 and is_special
    if parameter.is_constexpr or value is None or is_one:
        return "constexpr", False
    if isinstance(value, torch.Tensor):
        return f"*{DTYPES[value.dtype]}", True
    if isinstance(value, int):
        kind = "i32" if -(2**31) <= value < 2**31 else "i64"
        return kind, is_special and value % 16 == 0
    return "fp32", False


def stage_text(compiled: Compiled, stage: str) -> str:
    """Give the text of a stage: `ttir`, `ttgir`, `ptx`, or `asm` for the machine's own code."""
    if stage == "asm" and "cubin" in compiled.stages:
        return machine.assembly(_cubin(compiled))
    text = compiled.stages.get("amdgcn" if stage == "asm" else stage)
    if not isinstance(text, str):
        raise TargetError(f"{compiled.target} has no {stage}")
    return text


def _cubin(compiled: Compiled) -> bytes:
    code = compiled.stages["cubin"]
    return code if isinstance(code, bytes) else code.encode()


def measure(kernels: Sequence[Compiled]) -> list[Usage]:
    """Count registers, spills, matrix instructions and the rest in the machine code of each."""
    found = {
        place: _measure_amd(kernel)
        for place, kernel in enumerate(kernels)
        if "cubin" not in kernel.stages
    }
    for target in dict.fromkeys(kernel.target for kernel in kernels):
        places = [i for i, k in enumerate(kernels) if k.target == target and i not in found]
        codes = machine.read([_cubin(kernels[place]) for place in places], target)
        for place, code in zip(places, codes, strict=True):
            found[place] = _measure_nvidia(kernels[place], code)
    return [found[place] for place in range(len(kernels))]


def _usage(compiled: Compiled, **counted: Untyped) -> Usage:
    launch = compiled.launch
    return Usage(
        kernel=launch.name or launch.kernel,
        dtype=launch.dtype,
        target=compiled.target,
        config=launch.config,
        shared_bytes=compiled.shared_bytes,
        **counted,
    )


# What the machine code calls the products of a matrix unit, the newest generation first: those of
# Blackwell (tcgen05), of Hopper, of Ampere in 16 bits or TF32.
_MATRIX_UNITS = {"UTCHMMA": "tcgen05", "HGMMA": "wgmma", "HMMA": "mma", "DMMA": "mma"}


def _measure_nvidia(compiled: Compiled, code: machine.Code) -> Usage:
    opcodes = code.opcodes
    return _usage(
        compiled,
        registers=code.registers,
        spills=sum(opcode in ("LDL", "STL") for opcode in opcodes),
        mma=next((name for opcode, name in _MATRIX_UNITS.items() if opcode in opcodes), "fma"),
        tma=any(opcode.startswith("UTMA") for opcode in opcodes),
        instructions=len(opcodes),
    )


def _measure_amd(compiled: Compiled) -> Usage:
    code = compiled.stages["amdgcn"]
    assert isinstance(code, str)

    def directive(name: str) -> int:
        found = re.search(rf"^\s*\.{name}:\s+(\d+)", code, re.M)
        return int(found[1]) if found else 0

    opcodes = re.findall(r"^\t([a-z][a-z0-9_]+)", code, re.M)
    return _usage(
        compiled,
        registers=directive("vgpr_count"),
        spills=directive("vgpr_spill_count") + directive("sgpr_spill_count"),
        mma="mma" if any(o.startswith(("v_mfma", "v_wmma")) for o in opcodes) else "fma",
        tma=False,
        instructions=len(opcodes),
    )
