"""An interpreter that fails where a GPU would silently corrupt.

Triton's own is friendly: it reads beyond a tensor, fills masked lanes with zeros, runs programs one
after the other, and multiplies bfloat16 by their bit patterns. This one

- gives each tensor of a launch its own range of addresses, and checks every access against it;
- fills masked lanes of a load without `other` with NaN or a large number;
- finds two programs that store to one address, and one that reads what another stores;
- refuses atomics: what they add up in no order is not reproducible;
- rounds operands to TF32 and results to bfloat16, and multiplies bfloat16, as the hardware does;
- traps int32 overflow, if asked to: that is slow;
- counts the bytes that each launch touches, if asked to.
"""

import dataclasses
from types import TracebackType
from typing import Any, NoReturn
from unittest import mock

import numpy as np
import torch
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter

# Tensor i lies at (i + 1)·RANGE: an address beyond its end is in nobody's reach.
RANGE = 1 << 44
BUILDER = interpreter.interpreter_builder
ORIGINAL_CONVERT = interpreter._implicit_cvt
ORIGINAL_LOAD = BUILDER.create_masked_load
ORIGINAL_STORE = BUILDER.create_masked_store
ORIGINAL_DOT = BUILDER.create_dot
ORIGINAL_CAST = BUILDER.cast_impl
ORIGINAL_CALL = interpreter.GridExecutor.__call__


class KernelError(Exception):
    """What a GPU would not have told."""


def extent(tensor: torch.Tensor) -> int:
    """Give how many bytes from its first element a tensor reaches."""
    if tensor.numel() == 0:
        return 0
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return (1 + sum((size - 1) * stride for size, stride in steps)) * tensor.element_size()


def to_tf32(values: NDArray[Any]) -> NDArray[Any]:
    """Round float32 to the 10 bits of mantissa that tensor cores read."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def to_float32(handle: Any) -> NDArray[Any]:
    """Read bfloat16, which numpy lacks, from its bits."""
    return interpreter._convert_float(handle.data, tl.bfloat16, tl.float32, None).view(np.float32)


class HostileInterpreter:
    """Replaces the parts of Triton's interpreter while it is entered; counts the launches."""

    def __init__(self, overflow: bool = False, counts: bool = False) -> None:
        self.launches: list[str] = []
        # Of each launch, if asked for: the bytes of all addresses that it touches, each once.
        self.counts, self.moved = counts, list[int]()
        self.sizes: dict[int, int] = {}
        self.tensors: list[tuple[int, int]] = []
        self.reads: list[tuple[NDArray[Any], tuple[int, ...]]] = []
        self.writes: list[tuple[NDArray[Any], tuple[int, ...]]] = []
        options = dataclasses.replace(BUILDER.options, debug=overflow, sanitize_overflow=overflow)
        this = self

        def call(executor: Any, *args: Any, **kwargs: Any) -> Any:
            return this.call(executor, *args, **kwargs)

        self.patches = [
            mock.patch.object(BUILDER, "options", options),
            mock.patch.object(interpreter, "_implicit_cvt", self.convert),
            mock.patch.object(BUILDER, "create_masked_load", self.load),
            mock.patch.object(BUILDER, "create_masked_store", self.store),
            mock.patch.object(BUILDER, "create_atomic_rmw", self.refuse_atomic),
            mock.patch.object(BUILDER, "create_atomic_cas", self.refuse_atomic),
            mock.patch.object(BUILDER, "create_dot", self.dot),
            mock.patch.object(BUILDER, "cast_impl", self.cast),
            mock.patch.object(interpreter.GridExecutor, "__call__", call),
        ]

    def __enter__(self) -> "HostileInterpreter":
        for patch in self.patches:
            patch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for patch in reversed(self.patches):
            patch.stop()

    def convert(self, argument: Any) -> Any:
        converted = ORIGINAL_CONVERT(argument)
        if isinstance(argument, torch.Tensor):
            self.tensors.append((argument.data_ptr(), extent(argument)))
            converted.handle.data[:] = len(self.tensors) * RANGE
        return converted

    def real(self, pointers: Any, mask: Any, what: str) -> tuple[Any, NDArray[Any]]:
        """Check addresses, and give the real ones, and those of the lanes that are not masked."""
        size = np.dtype(interpreter._get_np_dtype(pointers.get_element_ty())).itemsize
        address = np.asarray(pointers.data).astype(np.int64)
        live = np.broadcast_to(np.asarray(mask.data), address.shape).astype(bool)
        index = np.clip(address // RANGE - 1, 0, len(self.tensors) - 1)
        starts = np.array([start for start, _ in self.tensors], dtype=np.int64)
        extents = np.array([extent for _, extent in self.tensors], dtype=np.int64)
        offset = address - (index + 1) * RANGE
        bad = live & ((offset < 0) | (offset + size > extents[index]))
        if bad.any():
            raise KernelError(
                f"out of bounds: {what} of {int(bad.sum())} lanes in program {BUILDER.grid_idx}, "
                f"tensor {int(index[bad][0])} at byte {int(offset[bad][0])}"
            )
        if (address[live] % size).any():
            raise KernelError(f"{what} at an address that its size does not divide")
        if self.counts:
            self.sizes.update(dict.fromkeys(np.unique(index[live]).tolist(), size))
        real = np.where(live, starts[index] + offset, starts[0]).astype(np.uint64)
        return interpreter.TensorHandle(real, pointers.dtype), address[live].ravel()

    def load(self, pointers: Any, mask: Any, other: Any, *rest: Any) -> Any:
        real, touched = self.real(pointers, mask, "load")
        self.reads.append((touched, BUILDER.grid_idx))
        if other is None:
            dtype = interpreter._get_np_dtype(pointers.get_element_ty())
            garbage = np.nan if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max // 3
            fill = np.full(real.data.shape, garbage, dtype=dtype)
            other = interpreter.TensorHandle(fill, pointers.get_element_ty())
        return ORIGINAL_LOAD(real, mask, other, *rest)

    def store(self, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        real, touched = self.real(pointers, mask, "store")
        if np.unique(touched).size != touched.size:
            raise KernelError(f"two lanes store to one address in program {BUILDER.grid_idx}")
        self.writes.append((touched, BUILDER.grid_idx))
        return ORIGINAL_STORE(real, value, mask, *rest)

    def refuse_atomic(self, *_: Any) -> NoReturn:
        raise KernelError("an atomic: its order, and so a float sum, varies from run to run")

    def dot(self, a: Any, b: Any, sum_so_far: Any, precision: Any, *rest: Any) -> Any:
        if a.dtype.scalar == tl.bfloat16:
            left, right = to_float32(a), to_float32(b)
        elif a.data.dtype == np.float32 and "TF32" in str(precision).upper():
            left, right = to_tf32(a.data), to_tf32(b.data)
        else:
            return ORIGINAL_DOT(a, b, sum_so_far, precision, *rest)
        total = np.matmul(left, right) + sum_so_far.data
        return interpreter.TensorHandle(total, sum_so_far.dtype.scalar)

    def cast(self, source: Any, kind: Any) -> Any:
        if source.dtype.scalar == tl.float32 and kind.scalar == tl.bfloat16:
            # To the nearest, as the hardware does; upstream cuts the lower bits off.
            nearest = torch.from_numpy(np.ascontiguousarray(source.data)).to(torch.bfloat16)
            return interpreter.TensorHandle(nearest.view(torch.uint16).numpy(), tl.bfloat16)
        return ORIGINAL_CAST(source, kind)

    def call(self, executor: Any, *args: Any, **kwargs: Any) -> None:
        self.launches.append(executor.fn.__name__)
        self.tensors, self.reads, self.writes = [], [], []
        ORIGINAL_CALL(executor, *args, **kwargs)
        self.find_races()
        if self.counts:
            touched = np.unique(np.concatenate([a for a, _ in self.reads + self.writes]))
            tensors, counts = np.unique(touched // RANGE - 1, return_counts=True)
            sizes = [self.sizes[tensor] for tensor in tensors.tolist()]
            self.moved.append(int(np.dot(sizes, counts)))

    def find_races(self) -> None:
        programs: dict[tuple[int, ...], int] = {}

        def joined(accesses: list[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
            if not accesses:
                return np.zeros(0, np.int64), np.zeros(0, np.int64)
            ids = [programs.setdefault(tuple(p), len(programs)) for _, p in accesses]
            counts = [addresses.size for addresses, _ in accesses]
            return np.concatenate([addresses for addresses, _ in accesses]), np.repeat(ids, counts)

        written, writer = joined(self.writes)
        read, reader = joined(self.reads)
        if written.size == 0:
            return
        order = np.argsort(written, kind="stable")
        written, writer = written[order], writer[order]
        if ((written[1:] == written[:-1]) & (writer[1:] != writer[:-1])).any():
            raise KernelError("race: two programs store to one address")
        if read.size:
            place = np.minimum(np.searchsorted(written, read), written.size - 1)
            if ((written[place] == read) & (writer[place] != reader)).any():
                raise KernelError("race: a program reads what another stores")
