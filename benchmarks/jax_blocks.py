"""The blocks of `gpu.py` in JAX, where that is installed: a JSON object of microseconds a call.

    python benchmarks/jax_blocks.py [--names A,B] [--dry-run]

A process of its own, for JAX and PyTorch would share neither memory nor their clocks. Channels
innermost, bfloat16, `jax.jit` of the forward pass, and of the gradients that training asks for.
Times are the host's, of many calls until the last is done; medians of rounds; inputs rotate.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"

import jax
import jax.numpy as jnp
from blocks import BLOCKS, Block
from jax import lax

ROUNDS = 7
ROUND_S = 6e-3
CACHE_BYTES = 60e6


def block_of(block: Block, x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    """Give the maximum of windows of relu(conv(x, weight) + bias); x is (N, H, W, C)."""
    edges = (block.pad, block.pad)
    z = lax.conv_general_dilated(
        x,
        weight,
        (block.stride, block.stride),
        (edges, edges),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = jax.nn.relu(z + bias)
    if block.pool is None:
        return y
    size, stride, pad = block.pool
    windows, steps = (1, size, size, 1), (1, stride, stride, 1)
    padding = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    return lax.reduce_window(y, -jnp.inf, lax.max, windows, steps, padding)


def calls(block: Block, dtype: jnp.dtype) -> dict[str, Callable[[int], object]]:
    """Forward, and both ways, of the input with a number; compiled."""
    key = jax.random.key(0)
    shape = (block.batch, block.size, block.size, block.channels)
    values = block.batch * block.size**2 * block.channels
    count = max(1, min(4, int(4 * CACHE_BYTES // (2 * values))))
    inputs = [jax.random.normal(k, shape).astype(dtype) for k in jax.random.split(key, count)]
    kernel = (block.kernel, block.kernel, block.channels, block.filters)
    weight = (jax.random.normal(key, kernel) * 0.1).astype(dtype)
    bias = jnp.zeros(block.filters, dtype)

    def run(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
        return block_of(block, x, weight, bias)

    forward = jax.jit(run)
    gradient = jax.random.normal(key, forward(inputs[0], weight, bias).shape).astype(dtype)

    def gradients(
        x: jax.Array, weight: jax.Array, bias: jax.Array, gradient: jax.Array
    ) -> tuple[jax.Array, ...]:
        # A first layer's input asks for none.
        given = (weight, bias) if block.is_first else (weight, bias, x)
        y, pull = jax.vjp(lambda w, b, x=x: run(x, w, b), *given)
        return (y, *pull(gradient))

    both = jax.jit(gradients)
    return {
        "forward": lambda i: forward(inputs[i % len(inputs)], weight, bias),
        "both": lambda i: both(inputs[i % len(inputs)], weight, bias, gradient),
    }


def microseconds(call: Callable[[int], object], rounds: int) -> float:
    """The median of the rounds, a call."""

    def burst(count: int) -> float:
        start = time.perf_counter()
        found = [call(i) for i in range(count)]
        jax.block_until_ready(found)
        return (time.perf_counter() - start) / count

    jax.block_until_ready(call(0))
    count = max(3, min(200, int(ROUND_S / burst(3)))) if rounds > 1 else 1
    return 1e6 * statistics.median(burst(count) for _ in range(rounds))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--names", default="", help="of blocks: those that begin so")
    parser.add_argument("--dry-run", action="store_true", help="tiny, each once")
    given = parser.parse_args()
    found = {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "blocks": {}}
    for block in BLOCKS:
        if block.name.startswith(tuple(given.names.split(","))):
            chosen, dtype = (block.tiny, jnp.float32) if given.dry_run else (block, jnp.bfloat16)
            found["blocks"][block.name] = {
                way: microseconds(call, 1 if given.dry_run else ROUNDS)
                for way, call in calls(chosen, dtype).items()
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
