"""Reads the machine code of NVIDIA's GPUs: which instructions it has, how many registers it takes.

Knows the tools that come with Triton, and where an ELF file holds code; knows nothing of launches.
"""

import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from cnndsl.diagnostics.helpful import HelpfulError
from cnndsl.record import Record

triton: Any = import_module("triton")

# Every kernel of cnndsl compiles for these. For others, LLVM may end the process.
NVIDIA = (75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121)
AMD = ("908", "90a", "942", "950", "1030", "1100", "1101", "1150", "1200", "1201", "1250")
INSTRUCTION_BYTES = 16  # since Volta
# One line an instruction: /*0050*/  @!P0 LDG.E.128 R4, [R2.64] ;  An opcode starts a word.
_OPCODE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9]+)", re.MULTILINE)


class TargetError(HelpfulError):
    """A target that is not known, or a kernel that does not compile for it."""


class Code(Record):
    """What the machine code of a kernel consists of."""

    registers: int
    opcodes: tuple[str, ...]


def read(cubins: Sequence[bytes], target: str) -> list[Code]:
    """Read kernels that were compiled for a target, `sm_90` for example."""
    texts = [_text(cubin) for cubin in cubins]
    opcodes = _opcodes(b"".join(texts), target) if cubins else []
    found: list[Code] = []
    start = 0
    for cubin, text in zip(cubins, texts, strict=True):
        end = start + len(text) // INSTRUCTION_BYTES
        found.append(Code(_registers(cubin), tuple(opcodes[start:end])))
        start = end
    return found


@cache
def targets() -> tuple[str, ...]:
    """Name the GPUs that kernels can be compiled for with the Triton that is installed."""
    nvidia = triton.knobs.nvidia
    tools = [getattr(nvidia, "ptxas_blackwell", nvidia.ptxas), nvidia.ptxas, nvidia.nvdisasm]
    newest, older, disassembler = (_generations(tool.path) for tool in tools)
    found = [
        f"sm_{number}"
        for number in NVIDIA
        if number in disassembler and number in (newest if number >= 100 else older)
    ]
    return (*found, *(f"gfx{name}" for name in AMD))


def _generations(path: str) -> set[int]:
    """The numbers of the GPUs that a tool of NVIDIA's lists in its help."""
    done = subprocess.run([path, "--help"], capture_output=True, text=True, check=False)
    return {int(number) for number in re.findall(r"'(?:sm_|SM)(\d+)'", done.stdout)}


def assembly(cubin: bytes) -> str:
    """Give the machine code as text."""
    return _run("cuobjdump", "-sass", data=cubin)


def _registers(cubin: bytes) -> int:
    usage = _run("cuobjdump", "-res-usage", data=cubin)
    registers = re.search(r"REG:(\d+)", usage)
    if registers is None:
        raise TargetError(f"cuobjdump says nothing of registers: {usage.strip()}")
    return int(registers[1])


def _opcodes(code: bytes, target: str) -> list[str]:
    """Take code apart: all kernels at once, for the tool takes half a second to start."""
    number = int(target.removeprefix("sm_"))
    # Triton compiles for the features of just this generation, from Hopper on.
    architecture = f"SM{number}{'a' if number >= 90 else ''}"
    opcodes: list[str] = _OPCODE.findall(_run("nvdisasm", "--binary", architecture, data=code))
    if len(opcodes) * INSTRUCTION_BYTES != len(code):
        raise TargetError(f"nvdisasm finds {len(opcodes)} instructions in {len(code)} bytes")
    return opcodes


def _text(cubin: bytes) -> bytes:
    """Give the sections of an ELF file (of 64 bits) that hold code, one behind the other."""
    (table,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    strings = cubin[sections[names][4] :]
    return b"".join(
        cubin[offset : offset + length]
        for name, _, _, _, offset, length in sections
        if strings[name:].startswith(b".text.")
    )


def _run(tool: str, *options: str, data: bytes) -> str:
    path: str = getattr(triton.knobs.nvidia, tool).path
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(data)
        command = [path, *options, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().partition("\n")[0]
        raise TargetError(f"`{tool}`, which comes with Triton, failed: {reason}")
    return done.stdout
