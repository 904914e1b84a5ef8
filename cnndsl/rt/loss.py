"""Softmax and cross-entropy in one kernel forward and one backward: the loss of a classifier.

Logits lie in memory as [rows, classes]: a row is an image, or a pixel of one. Forward reads them
once, with the running maximum and sum of Milakov and Gimelshein, Online normalizer calculation for
softmax (2018), and keeps one float a row; the probabilities are never stored.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .dispatch import NAMESPACE, Direction, as_inputs, differentiable
from .module import full_dtype, runs_kernels
from .replay import remembered
from .shared import COUNTS, count_blocks, full, launch, packed, power_of_two, refuse_launch

LOSS_FORWARD = """(
    Tensor logits, Tensor target
) -> (Tensor loss, Tensor count, Tensor spread)"""
LOSS_BACKWARD = """(
    Tensor gradient, Tensor logits, Tensor target, Tensor spread, Tensor count
) -> Tensor"""
LOSS_IGNORED = -100  # the class that counts as none, as in PyTorch
LOSS_TILE = 4096  # logits at a time
LOSS_CLASSES = 1024  # of them at most so many of one row
LOSS_TILES_OF_ONE = 8  # so few are one program's, which needs no second stage
LOSS_PROGRAMS = 1024


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def loss_forward(
    logits_ptr,  # [rows, CLASSES]
    target_ptr,  # [rows] int64: the class of each row, or IGNORED
    loss_ptr,  # [1]: the mean; of several programs, [programs]: sums
    count_ptr,  # [programs]: how many rows are not ignored
    spread_ptr,  # [rows]: log Σ exp(logits)
    rows,
    tiles,  # that each program takes
    CLASSES: tl.constexpr,
    IGNORED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
):
    """Compute the mean of log Σ exp(logits) − logit of the target, or its part of the sum."""
    kind = spread_ptr.dtype.element_ty
    total = tl.zeros((BLOCK_ROWS,), kind)
    count = tl.zeros((BLOCK_ROWS,), kind)
    for tile in range(tiles):
        row = (tl.program_id(0) * tiles + tile) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        row_mask = row < rows
        target = tl.load(target_ptr + row, mask=row_mask, other=IGNORED)
        start = row.to(tl.int64)[:, None] * CLASSES
        highest = tl.full((BLOCK_ROWS,), float("-inf"), kind)
        mass = tl.zeros((BLOCK_ROWS,), kind)
        own = tl.zeros((BLOCK_ROWS,), kind)
        for step in range((CLASSES + BLOCK_CLASSES - 1) // BLOCK_CLASSES):
            label = step * BLOCK_CLASSES + tl.arange(0, BLOCK_CLASSES)
            mask = row_mask[:, None] & (label < CLASSES)[None, :]
            logits = tl.load(logits_ptr + start + label[None, :], mask=mask, other=float("-inf"))
            logits = logits.to(kind)
            higher = tl.maximum(highest, tl.max(logits, 1))
            # While all are −inf, nothing is subtracted: −inf − (−inf) would be NaN.
            base = tl.where(higher == float("-inf"), 0.0, higher)
            mass = mass * tl.exp(highest - base) + tl.sum(tl.exp(logits - base[:, None]), 1)
            own += tl.sum(tl.where(label[None, :] == target[:, None], logits, 0.0), 1)
            highest = higher
        mass = tl.where(row_mask, mass, 1.0)
        spread = tl.log(mass) + tl.where(highest == float("-inf"), 0.0, highest)
        tl.store(spread_ptr + row, spread, mask=row_mask)
        # A class that does not exist makes the loss NaN, which nobody overlooks.
        exists = (target >= 0) & (target < CLASSES)
        loss = tl.where(exists, spread - own, float("nan"))
        counts = row_mask & (target != IGNORED)
        total += tl.where(counts, loss, 0.0)
        count += tl.where(counts, 1.0, 0.0)
    loss = tl.sum(total, 0)
    number = tl.sum(count, 0)
    loss = tl.where(tl.num_programs(0) == 1, loss / number, loss)
    tl.store(loss_ptr + tl.program_id(0), loss)
    tl.store(count_ptr + tl.program_id(0), number)


@triton.jit(do_not_specialize=COUNTS)
def loss_backward(
    logits_ptr,  # [rows, CLASSES]
    target_ptr,  # [rows] int64
    gradient_ptr,  # [1]: that of the mean
    spread_ptr,  # [rows], written by the forward kernel
    count_ptr,  # [1]
    dlogits_ptr,  # [rows, CLASSES]
    rows,
    CLASSES: tl.constexpr,
    IGNORED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
):
    """Compute the gradient of the logits: (softmax − one at the target) / count."""
    CLASS_BLOCKS: tl.constexpr = (CLASSES + BLOCK_CLASSES - 1) // BLOCK_CLASSES
    row = tl.program_id(0) // CLASS_BLOCKS * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    row_mask = row < rows
    label = tl.program_id(0) % CLASS_BLOCKS * BLOCK_CLASSES + tl.arange(0, BLOCK_CLASSES)
    target = tl.load(target_ptr + row, mask=row_mask, other=IGNORED)
    spread = tl.load(spread_ptr + row, mask=row_mask, other=0.0)
    mask = row_mask[:, None] & (label < CLASSES)[None, :]
    offset = row.to(tl.int64)[:, None] * CLASSES + label[None, :]
    logits = full(tl.load(logits_ptr + offset, mask=mask, other=float("-inf")))
    softmax = tl.exp(logits - spread[:, None])
    wrong = softmax - tl.where(label[None, :] == target[:, None], 1.0, 0.0)
    # Of a class that does not exist the gradient is NaN, as the loss is: no training goes on.
    exists = (target >= 0) & (target < CLASSES)
    wrong = tl.where(exists[:, None], wrong, float("nan"))
    share = tl.load(gradient_ptr) / tl.load(count_ptr)
    dlogits = tl.where((target != IGNORED)[:, None], wrong * share, 0.0)
    tl.store(dlogits_ptr + offset, dlogits.to(dlogits_ptr.dtype.element_ty), mask=mask)


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def loss_blocks(classes: int) -> tuple[int, int]:
    """Choose rows x classes of a tile."""
    block_classes = min(LOSS_CLASSES, power_of_two(classes))
    return max(1, min(64, LOSS_TILE // block_classes)), block_classes


def loss_launch_forward(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give the mean loss, how many rows it is of, and log Σ exp of each row's logits."""
    rows, classes = logits.shape
    block_rows, block_classes = loss_blocks(classes)
    all_tiles = count_blocks(rows, block_rows)
    programs = 1 if all_tiles <= LOSS_TILES_OF_ONE else min(all_tiles, LOSS_PROGRAMS)
    refuse_launch(logits, programs, rows)
    loss = logits.new_empty(programs, dtype=full_dtype(logits))
    count = torch.empty_like(loss)
    spread = logits.new_empty(rows, dtype=full_dtype(logits))
    launch(
        loss_forward,
        programs,
        logits_ptr=logits,
        target_ptr=target,
        loss_ptr=loss,
        count_ptr=count,
        spread_ptr=spread,
        rows=rows,
        tiles=count_blocks(all_tiles, programs),
        CLASSES=classes,
        IGNORED=LOSS_IGNORED,
        BLOCK_ROWS=block_rows,
        BLOCK_CLASSES=block_classes,
        num_warps=4,
    )
    if programs > 1:
        count = count.sum(0, keepdim=True)
        loss = loss.sum(0, keepdim=True) / count
    return loss, count, spread


def loss_launch_backward(
    gradient: Tensor, logits: Tensor, target: Tensor, spread: Tensor, count: Tensor
) -> Tensor:
    """Give the gradient of the logits."""
    rows, classes = logits.shape
    block_rows, block_classes = loss_blocks(classes)
    programs = count_blocks(rows, block_rows) * count_blocks(classes, block_classes)
    refuse_launch(logits, programs, rows)
    dlogits = torch.empty_like(logits)
    launch(
        loss_backward,
        programs,
        logits_ptr=logits,
        target_ptr=target,
        gradient_ptr=gradient,
        spread_ptr=spread,
        count_ptr=count,
        dlogits_ptr=dlogits,
        rows=rows,
        CLASSES=classes,
        IGNORED=LOSS_IGNORED,
        BLOCK_ROWS=block_rows,
        BLOCK_CLASSES=block_classes,
        num_warps=4,
    )
    return dlogits


# ── the operator ────────────────────────────────────────────────────────────────────────────────


def loss_rows(logits: Tensor) -> Tensor:
    """Put logits (N, C) or (N, C, …) as they lie in memory with channels last: (rows, C)."""
    return logits.movedim(1, -1).reshape(-1, logits.shape[1]).contiguous()


def has_classes(logits: Tensor, target: Tensor) -> bool:
    """Say whether the target has a class for each row, in a type that PyTorch takes for that."""
    wanted = (logits.shape[0], *logits.shape[2:])
    types = (torch.int64, torch.uint8) if logits.dim() == 2 else (torch.int64,)
    return tuple(target.shape) == wanted and target.dtype in types


def loss_values(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the mean loss, how many rows it is of, and log Σ exp of each row's logits."""
    with torch.cuda.device_of(logits):
        return loss_launch_forward(packed(logits), packed(target))


def loss_outputs(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Allocate what loss_values gives."""
    one = logits.new_empty(1, dtype=full_dtype(logits))
    spread = logits.new_empty(logits.shape[0], dtype=full_dtype(logits))
    return one, torch.empty_like(one), spread


def loss_gradient(
    gradient: Tensor, logits: Tensor, target: Tensor, spread: Tensor, count: Tensor
) -> tuple[Tensor]:
    """Compute the gradient of the logits."""
    with torch.cuda.device_of(logits):
        rows, classes = packed(logits), packed(target)
        return (loss_launch_backward(packed(gradient), rows, classes, packed(spread), count),)


def loss_empty_gradient(
    gradient: Tensor, logits: Tensor, target: Tensor, spread: Tensor, count: Tensor
) -> tuple[Tensor]:
    """Allocate what loss_gradient gives."""
    return (logits.new_empty(logits.shape),)


def loss_keep(
    ctx: FunctionCtx,
    inputs: tuple[Tensor, Tensor],
    output: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Save for backward."""
    _, count, spread = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(count, spread)
    ctx.save_for_backward(*inputs, spread, count)


def loss_differentiate(
    run_backward: Callable[..., object], ctx: FunctionCtx, gradient: Tensor
) -> tuple[Tensor, None]:
    """Give the gradient of the logits; a target has none."""
    found = run_backward(gradient, *ctx.saved_tensors)
    return found if isinstance(found, Tensor) else found[0], None


def loss_differentiate_again(
    ctx: FunctionCtx, gradient: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """Give the loss by PyTorch's operators, and what it is of."""
    logits, target, _, _ = ctx.saved_tensors
    given = as_inputs((logits, target))
    rows = given[0].to(gradient.dtype)
    return F.cross_entropy(rows, target, ignore_index=LOSS_IGNORED).reshape(1), given


def loss_op(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Register the loss with PyTorch; the function that is returned computes it.

    It takes logits (N, C) or (N, C, H, W) and classes (N) or (N, H, W), numbers from 0 or −100 for
    what is left out, and gives their mean cross-entropy as `F.cross_entropy` does: in float32, or
    in float64 of such logits. Other targets go to `F.cross_entropy`, which takes probabilities and
    raises for the rest. A class that does not exist makes the loss and its gradient NaN.
    """
    region = differentiable(
        name,
        Direction(LOSS_FORWARD, compute=remembered(loss_values), allocate=loss_outputs),
        Direction(LOSS_BACKWARD, compute=remembered(loss_gradient), allocate=loss_empty_gradient),
        loss_keep,
        loss_differentiate,
        loss_differentiate_again,
    )

    def run(logits: Tensor, target: Tensor) -> Tensor:
        if target.device != logits.device:
            raise ValueError(f"the logits are on {logits.device}, y on {target.device}")
        if logits.numel() == 0 or not has_classes(logits, target):
            return F.cross_entropy(logits.to(full_dtype(logits)), target)
        loss, _, _ = region(loss_rows(logits), target.reshape(-1).long())
        return loss.reshape(())

    run.operators = region.operators
    return run


cross_entropy_op = loss_op(f"{NAMESPACE}::cross_entropy")


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy: one kernel each way on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(logits) and not target.is_floating_point():
        return cross_entropy_op(logits, target)
    return F.cross_entropy(logits, target)
