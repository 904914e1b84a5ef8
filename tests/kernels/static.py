"""What the kernels' machine code may use, the committed tables of it, and what is worse."""

from collections.abc import Iterable, Mapping
from typing import Any

Usage = Mapping[str, Any]

# ── what it may use ──────────────────────────────────────────────────────────────────────────────

CONV = {f"conv_{name}" for name in ("forward", "input_gradient", "weight_gradient")}
FC = {f"fc_{name}" for name in ("forward", "input_gradient", "weight_gradient", "bias_gradient")}
# Of a convolution in training that a batchnorm follows, and of that batchnorm.
NORMED = {
    *CONV,
    *("norm_statistics", "norm_forward", "norm_gradient_sums", "norm_input_gradient"),
}
# Where a library multiplies, and what else a region has: one pass each way, rows of few channels.
PASSES = {
    **dict.fromkeys(("wide", "overlapping", "average", "pooled"), "conv_unpool"),
    **dict.fromkeys(("residual", "depthwise"), "conv_bias_gradient"),
}
KERNELS = {
    "image": {"image_forward"},
    "loss": {"loss_forward", "loss_backward"},
    **dict.fromkeys(("fc1", "fc3", "flat1", "flat_wide", "flat_ragged"), FC),
    "fc_library": {"fc_activate", "fc_slope"},
    "stem": CONV | {"conv_bias_gradient", "conv_lay_out"},
    "stem_staged": {"conv_lay_out", "conv_stage", "conv_forward", "conv_unpool"},
    "stem_normed": NORMED | {"conv_lay_out"},
    "pooled_normed": NORMED | {"conv_bias_gradient"},
    **dict.fromkeys(("plain_normed", "residual_normed", "average_normed"), NORMED),
    **{f"{name}_library": {"conv_forward", last} for name, last in PASSES.items()},
}
PRODUCTS = {*CONV, "conv_stage", *FC} - {"fc_bias_gradient"}
# The least that any GPU of a generation gives a program: of sm_8x, cards of sm_86.
SHARED = {"sm": 99 * 1024, "gf": 64 * 1024}
# What the products of a generation run on, from so many rows of a tile on.
NEWEST = {"sm_90": "wgmma", "sm_100": "tcgen05"}
LEAST_ROWS = 64


def faults(found: Iterable[Usage]) -> list[str]:
    """Say what may not be: a spill, too much memory, a product beside the matrix unit."""
    wrong: list[str] = []
    compiled: dict[tuple[str, str], set[str]] = {}
    for usage in found:
        name = f"{usage['target']} {' '.join(key(usage))}"
        compiled.setdefault((usage["region"], usage["dtype"]), set()).add(usage["kernel"])
        wanted = matrix_unit(usage)
        if usage["spills"]:
            wrong.append(f"{name}: spills {usage['spills']} times")
        if usage["shared_bytes"] > SHARED[usage["target"][:2]]:
            wrong.append(f"{name}: takes {usage['shared_bytes']} bytes of shared memory")
        if usage["registers"] * usage["config"]["num_warps"] * 32 > 65536:
            wrong.append(f"{name}: takes more registers than there are")
        if wanted not in (None, usage["mma"]):
            wrong.append(f"{name}: multiplies by {usage['mma']}, not {wanted}")
    for (region, dtype), kernels in compiled.items():
        missing = KERNELS.get(region, CONV | {"conv_bias_gradient"}) ^ kernels
        if missing:
            wrong.append(f"{region} {dtype}: not as expected: {', '.join(sorted(missing))}")
    return wrong


def matrix_unit(usage: Usage) -> str | None:
    """Say on what a kernel has to multiply; None where that is open, or it does not."""
    target, config = usage["target"], usage["config"]
    is_pass = usage["kernel"] == "conv_forward" and usage["region"].endswith(("library", "staged"))
    if usage["kernel"] not in PRODUCTS or is_pass:
        return None
    if usage["dtype"] == "fp64":
        return None
    if target.startswith("gfx"):  # its matrix units multiply float32, too
        return None if usage["dtype"] == "fp32" else "mma"
    if config["PRECISION"] == "ieee" and usage["dtype"] == "fp32":
        return "fma"
    # A tile's rows are what it counts first.
    rows = next(value for name, value in config.items() if name.startswith("BLOCK_"))
    return NEWEST.get(target, "mma") if rows >= LEAST_ROWS else "mma"


# ── tables ───────────────────────────────────────────────────────────────────────────────────────

COLUMNS = ("registers", "spills", "shared_bytes", "mma", "tma", "instructions")
# A compiler of another version moves these a little; a rise above this is looked at by somebody.
MOST_RISE = 1.2

Row = tuple[str, ...]
Key = tuple[str, str, str, str]


def table(usages: Iterable[Usage]) -> str:
    """A Markdown table, a kernel of a region and type a line."""
    rows = {key(usage): tuple(str(usage[column]) for column in COLUMNS) for usage in usages}
    head = ("region", "dtype", "kernel", "configuration", *COLUMNS)
    cells = [head, *((*names, *values) for names, values in sorted(rows.items()))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| "
        + " | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def rows(text: str) -> dict[Key, Row]:
    """What a table says, by region, type, kernel and configuration."""
    found: dict[Key, Row] = {}
    for line in text.splitlines()[2:]:
        a, b, c, d, *values = (cell.strip() for cell in line.strip("|").split("|"))
        found[a, b, c, d] = tuple(values)
    return found


def key(usage: Usage) -> Key:
    """What tells a line of the table from the others."""
    config = {k.removeprefix("BLOCK_").lower(): v for k, v in usage["config"].items()}
    words = ", ".join(f"{name} {value}" for name, value in config.items())
    return usage["region"], usage["dtype"], usage["kernel"], words


def worse(before: str, now: str) -> list[str]:
    """How a table is worse than the one before: what rose, was lost, or is not in both."""
    old, new = rows(before), rows(now)
    found = [f"{' '.join(k)}: is gone" for k in old.keys() - new.keys()]
    found += [f"{' '.join(k)}: is new" for k in new.keys() - old.keys()]
    for k in old.keys() & new.keys():
        for column, a, b in zip(COLUMNS, old[k], new[k], strict=True):
            lost = column in ("mma", "tma") and a not in ("fma", "False") and a != b
            rose = column not in ("mma", "tma") and int(b) > MOST_RISE * int(a)
            if lost or rose:
                found.append(f"{' '.join(k)}: {column} was {a}, is {b}")
    return sorted(found)
