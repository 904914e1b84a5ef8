"""Mistakes to plant in the kernels, one at a time: what stands there, and what is put in its place.

Each was once made, or is easily made, in kernels of this kind: a mask, a bound, a stride, an order,
an `other`, a sign, a split, a cast, NaN, ties. `planted.py` puts them in and lets the tests look.
`same` says of a mistake why it changes nothing; the tests hold that, too.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
FOLDERS = {"cnndsl.kernels": ROOT / "kernels", "cnndsl.rt": ROOT / "cnndsl" / "rt"}


class Mistake(NamedTuple):
    """In `file` of these folders, `old` stands `times` times, and becomes `new`."""

    file: str
    name: str
    old: str
    new: str
    times: int = 1
    same: str = ""


def place(mistake: Mistake, folders: Iterable[Path] = tuple(FOLDERS.values())) -> Path:
    """The file of a mistake."""
    return next(f / mistake.file for f in folders if (f / mistake.file).is_file())


def conv(part: str, name: str, old: str, new: str, times: int = 1, same: str = "") -> Mistake:
    return Mistake(f"conv{part}.py", name, old, new, times, same)


FORWARD = [
    conv(
        "",
        "one window too many",
        "window < batch * out_height * out_width",
        "window <= batch * out_height * out_width",
        3,
    ),
    conv(
        "",
        "filters beyond the group",
        "filter_mask = filter < GROUP_FILTERS",
        "filter_mask = filter >= 0",
    ),
    conv(
        "",
        "a filter of the group before",
        "filter += group * GROUP_FILTERS",
        "filter += group * (GROUP_FILTERS - 1)",
    ),
    conv(
        "", "a zero behind ReLU has a gradient", "code = tl.where(y <= 0,", "code = tl.where(y < 0,"
    ),
    conv(
        "",
        "NaN behind ReLU has no gradient",
        "code = tl.where(y <= 0, 0, code)",
        "code = tl.where(y > 0, code, 0)",
    ),
    conv(
        "",
        "the slope's input is kept too late",
        "y.to(before_ptr.dtype.element_ty)",
        "conv_activation(y).to(before_ptr.dtype.element_ty)",
    ),
    conv(
        "",
        "the rows of a window lie side by side",
        "row = row * 2 + pixel // (COLUMNS // 2)",
        "row = row * 2 + pixel % 2",
    ),
    conv(
        "",
        "windows of the tile before",
        "window = tile * (COLUMNS // 4) + tl.arange(0, COLUMNS // 4)",
        "window = tl.arange(0, COLUMNS // 4)",
    ),
    conv("_sum", "no padding above", "(row[None, :] + down >= 0) & ", ""),
    conv("_sum", "no padding at the right", " & (column + right < width)", ""),
    conv(
        "_sum",
        "what is masked in x is not zero",
        "offset[:, None], mask=x_mask, other=0.0)",
        "offset[:, None], mask=x_mask)",
        2,
    ),
    conv(
        "_sum",
        "what is masked in the weight is not zero",
        "mask=weight_mask, other=0.0)",
        "mask=weight_mask)",
        3,
    ),
    conv("_sum", "terms beyond the filter, of the weight", " & (term < TERMS)[None, :]", ""),
    conv("_sum", "terms beyond the filter, of x", " & (term < TERMS)[:, None]", ""),
    conv(
        "_sum", "the stride down is also that right", "column * C.stride[1]", "column * C.stride[0]"
    ),
    conv(
        "_sum",
        "the dilation down is also that right",
        "right = tap % C.kernel[1] * C.dilation[1]",
        "right = tap % C.kernel[1] * C.dilation[0]",
    ),
    conv("_sum", "all groups read the first", "x_ptr += group * GROUP_CHANNELS", "x_ptr += 0"),
    conv("_sum", "filters are square", "(tap // C.kernel[1] * ", "(tap // C.kernel[0] * "),
    conv(
        "_sum",
        "a row of the filter is one pixel longer",
        "weight_mask = filter_mask[:, None] & (right < C.kernel[1])",
        "weight_mask = filter_mask[:, None] & (right <= C.kernel[1])",
    ),
    conv(
        "_sum",
        "a pixel has four channels",
        "weight_mask &= (channel < C.channels)[None, :]",
        "pass",
    ),
    conv("_rows", "the row above the image is the one before it", "(row >= 0) & ", ""),
    conv(
        "_rows",
        "the fourth channel is another pixel's",
        " & (channel < CHANNELS)[None, :]",
        "",
    ),
    conv("_rows", "padding on one side", "+ 2 * geometry.pad[1]", "+ geometry.pad[1]"),
    conv(
        "_epilogue",
        "a scale behind the pool stands before it",
        'if C.scale == "pool":',
        'if C.scale == "sum":',
    ),
    conv(
        "_epilogue",
        "all pixels have the first one's residual",
        "residual_ptr + offset,",
        "residual_ptr + offset * 0,",
    ),
    conv(
        "_epilogue",
        "lanes that are masked have a distance",
        "tl.where(mask, y - mean[:, None], 0.0)",
        "y - mean[:, None]",
    ),
    conv(
        "_epilogue",
        "all tiles are full",
        "tl.where(window_mask, 1.0, 0.0)",
        "tl.where(window_mask, 1.0, 1.0)",
    ),
    conv(
        "_stage",
        "one pixel too many",
        "pixel < batch * conv_height * conv_width",
        "pixel <= batch * conv_height * conv_width",
    ),
    conv(
        "_stage",
        "filters that do not exist",
        "filter_mask = filter < C.filters",
        "filter_mask = filter >= 0",
    ),
]
POOLS = [
    conv(
        "_pool",
        "two corners change places",
        "return top_left, top_right, bottom_left",
        "return top_left, bottom_left, top_right",
    ),
    conv(
        "_pool",
        "the position is asked after the value",
        "code = tl.where(is_better(d, y), 4, code)\n        y = tl.where(is_better(d, y), d, y)",
        "y = tl.where(is_better(d, y), d, y)\n        code = tl.where(is_better(d, y), 4, code)",
    ),
    conv("_pool", "a pixel of the padding wins", "exists[None, :] & (is_better", "(is_better"),
    conv("_pool", "zero is the least", " | (code == 0)", ""),
    conv(
        "_pool",
        "the bits of two corners change places",
        "a | b << 1 | c << 2",
        "a | c << 1 | b << 2",
    ),
    conv("_pool", "a zero counts as alive", "tl.where(z <= 0, 0, 1)", "tl.where(z < 0, 0, 1)"),
    conv("_pool", "NaN counts as dead", "~(z <= 0)", "(z > 0)"),
    conv("_pool", "padding counts as alive", "exists[None, :] & ~", "~"),
    conv("_pool", "padding has a bias", "y += tl.where(exists[None, :], z, 0.0)", "y += z"),
    conv(
        "_pool",
        "the pool's dilation down is also that right",
        "% C.pool_size[1] * C.pool_dilation[1]",
        "% C.pool_size[1] * C.pool_dilation[0]",
    ),
    conv(
        "_pool",
        "the pool's stride down is also that right",
        "column * C.pool_stride[1]",
        "column * C.pool_stride[0]",
    ),
    Mistake(
        "windows.py",
        "the last of equals wins",
        "(z > best) | (z != itself)",
        "(z >= best) | (z != itself)",
    ),
    Mistake("windows.py", "NaN never wins", " | (z != itself)", ""),
    Mistake(
        "windows.py", "the first NaN wins", "(z != itself)", "((z != itself) & (best == best))"
    ),
    Mistake(
        "windows.py",
        "rows of another image",
        "pixel // columns % rows",
        "pixel // columns % columns",
    ),
    Mistake("windows.py", "an image fewer", "pixel // (rows * columns)", "pixel // (rows * rows)"),
    Mistake(
        "windows.py",
        "padding is counted at the bottom alone",
        "height + C.pool_pad[0]) - top",
        "height) - top",
    ),
    Mistake("windows.py", "padding above is counted", "tl.maximum(top, 0)", "top"),
    Mistake(
        "windows.py",
        "too few windows hold a pixel",
        "((w - 1) * d + s) // s",
        "max(1, (w - 1) * d // s)",
    ),
    Mistake("windows.py", "a window right of the last", " & (window_column < out_width)", ""),
    Mistake("windows.py", "a window before the first", "(window_row >= 0) & ", ""),
    Mistake(
        "windows.py",
        "positions are counted by columns",
        "down * C.pool_size[1] + right, 0",
        "down * C.pool_size[0] + right, 0",
    ),
    Mistake("windows.py", "between dilated pixels", "(down % C.pool_dilation[0] == 0) & ", ""),
]
BACKWARD = [
    conv("_rebuild", "the winner is one off", "winner == position + 1", "winner == position"),
    conv(
        "_rebuild",
        "an infinite gradient spreads over its window",
        "tl.where(winner == position + 1, gradient, 0.0)",
        "gradient * tl.where(winner == position + 1, 1.0, 0.0)",
    ),
    conv(
        "_bias_gradient",
        "an infinite gradient comes back from dead pixels",
        "tl.where(taking == 0, 0.0, gradient * taking / pixels)",
        "gradient * taking / pixels",
    ),
    conv(
        "_rebuild", "any bit is alive", "((alive >> position) & 1) == 1", "(alive >> position) > 0"
    ),
    conv("_rebuild", "a zero has a slope", "saved <= 0", "saved < 0"),
    conv(
        "_rebuild",
        "the activation's slope counts twice",
        'C.activation != "none" and not C.residual',
        'C.activation != "none"',
    ),
    conv("_input_gradient", "a column left of the first", " & (column >= 0) & ", " & "),
    conv(
        "_input_gradient",
        "a tap too few",
        "C.kernel[1] - first_right + C.tap_step[1] - 1",
        "C.kernel[1] - first_right - 1",
    ),
    conv(
        "_input_gradient",
        "a position beyond the window",
        "fits = (place_row < C.pool_size[0])",
        "fits = (place_row <= C.pool_size[0])",
    ),
    conv(
        "_input_gradient",
        "all groups write to the first",
        "offset += group * GROUP_CHANNELS",
        "offset += 0",
    ),
    conv("_input_gradient", "columns beyond the image", " & (column < width)", ""),
    conv(
        "_input_gradient",
        "a remainder below zero",
        " + MORE_RIGHT",
        "",
    ),
    conv(
        "_geometry",
        "every dilation is its own inverse",
        "pow(d, -1, step)",
        "d % max(step, 1)",
    ),
    conv("_geometry", "the inverse is left out", "pow(d, -1, step)", "1"),
    conv(
        "_input_gradient",
        "a phase twice",
        "phase_column = phase % CELL_WIDTH",
        "phase_column = phase_row",
    ),
    conv(
        "_weight_gradient",
        "splits overlap",
        "last = tl.minimum(first + tl",
        "last = tl.minimum(first + 1 + tl",
    ),
    conv(
        "_weight_gradient",
        "one window too many",
        "exists = window < batch",
        "exists = window <= batch",
    ),
    conv(
        "_weight_gradient",
        "the fourth channel is written",
        "term_mask &= channel < C.channels",
        "pass",
    ),
    conv(
        "_weight_gradient",
        "no padding below",
        "x_mask &= row[:, None] + down[None, :] < height",
        "pass",
    ),
    conv(
        "_weight_gradient",
        "x of the first group",
        "start += group * GROUP_CHANNELS",
        "start += 0",
    ),
    conv(
        "_weight_gradient",
        "positions of the first row",
        "position = step % POSITIONS",
        "position = step % C.pool_size[1]",
    ),
    conv(
        "_weight_gradient",
        "padding has a share of an average",
        "exists &= (row >= 0) & (row < conv_height)",
        "exists &= row < conv_height",
    ),
    conv("_bias_gradient", "dead windows count", "winner != 0", "winner >= 0"),
    conv(
        "_bias_gradient",
        "the first row of a window counts",
        "range(1, C.pool_size[0] * C.pool_size[1])",
        "range(1, C.pool_size[1])",
    ),
    conv(
        "_bias_gradient",
        "a residual's gradient passes the activation",
        "gradient.to(dz_ptr.dtype.element_ty), mask",
        "tl.load(gradient_ptr + offset, mask=mask), mask",
    ),
    conv(
        "_unpool",
        "a position beyond the window",
        "(right < C.pool_size[1])",
        "(right <= C.pool_size[1])",
    ),
    conv(
        "_operator",
        "a scaled weight's gradient is unscaled",
        "if scale is not None:\n",
        "if False:\n",
    ),
    conv(
        "_operator",
        "the input's gradient is of the unscaled weight",
        "if scale is not None and needs[0]:",
        "if False:",
    ),
]


def norm(part: str, name: str, old: str, new: str, times: int = 1, same: str = "") -> Mistake:
    return Mistake(f"norm{part}.py", name, old, new, times, same)


NORMS = [
    norm("_statistics", "tiles weigh the same", "tl.sum(mean * count,", "tl.sum(mean,"),
    norm(
        "_statistics",
        "tiles have one mean",
        "spread + distance * distance * count * share",
        "spread",
    ),
    norm(
        "_statistics", "lanes have one mean", "squares + distance * distance * count,", "squares,"
    ),
    norm(
        "_statistics",
        "the variance with bias is followed",
        "variance *= values / ",
        "variance *= 1 + 0 * values / ",
    ),
    norm(
        "_statistics",
        "momentum is that of the past",
        "(1 - momentum) * running",
        "momentum * running",
        2,
    ),
    norm(
        "_statistics",
        "a lane without a tile moves",
        "tl.where(mask, distance * share, 0.0)",
        "distance * share",
        same="what it holds then has no weight: its count is 0",
    ),
    norm(
        "_input_gradient", "the mean does not answer", "gradient - dbias[None, :] - ", "gradient - "
    ),
    norm("_input_gradient", "the variance does not answer", " - normal * dweight[None, :]", ""),
    norm("_input_gradient", "the weight is left out", "dz *= weight", "pass"),
    norm(
        "_input_gradient", "one pixel too many", "pixel < batch * height", "pixel <= batch * height"
    ),
    norm("_sums", "one pixel too many", "pixel < batch * height", "pixel <= batch * height"),
    norm(
        "_sums",
        "splits overlap",
        "last = tl.minimum(first + tl",
        "last = tl.minimum(first + 1 + tl",
    ),
    norm(
        "_sums",
        "lanes that are masked count",
        "dweight += tl.where(mask, gradient * normal, 0.0)",
        "dweight += gradient * normal",
        same="where their value is no number, none of the channel is",
    ),
    norm(
        "_rebuild",
        "the winner is one off",
        "winner == position[:, None] + 1",
        "winner == position[:, None]",
    ),
    norm("_rebuild", "a slope without its residual", "saved += tl.load", "saved += 0 * tl.load"),
    norm("_rebuild", "a slope without its bias", "saved * weight + bias", "saved * weight"),
    norm("_rebuild", "a zero has a slope", "saved <= 0", "saved < 0"),
    norm("", "padding has a mean", "y += tl.where(exists[:, None], z, 0.0)", "y += z"),
    norm("", "one window too many", "window < batch * out_height", "window <= batch * out_height"),
    norm("", "zero is the least", " | (winner == 0)", ""),
    norm("", "the residual is left out", "if C.residual:", "if False:"),
]


def fc(name: str, old: str, new: str, times: int = 1, same: str = "") -> Mistake:
    return Mistake("fc.py", name, old, new, times, same)


def fc_back(name: str, old: str, new: str, times: int = 1, same: str = "") -> Mistake:
    return Mistake("fc_gradients.py", name, old, new, times, same)


def image(name: str, old: str, new: str) -> Mistake:
    return Mistake("image.py", name, old, new)


def loss(name: str, old: str, new: str, times: int = 1, same: str = "") -> Mistake:
    return Mistake("loss.py", name, old, new, times, same)


OTHERS = [
    fc(
        "the last features are left out",
        "range((C.features + T.terms - 1) // T.terms)",
        "range(max(1, C.features // T.terms))",
    ),
    fc_back(
        "one step too many",
        "range((C.outputs + T.terms - 1) // T.terms)",
        "range(C.outputs // T.terms + 1)",
        same="all of that step is masked",
    ),
    fc(
        "features that do not exist are multiplied",
        "feature_mask = feature < C.features",
        "feature_mask = feature >= 0",
    ),
    fc_back(
        "features that do not exist are multiplied",
        "feature_mask = feature < C.features",
        "feature_mask = feature >= 0",
        2,
    ),
    fc("images that do not exist", "image_mask = image < batch", "image_mask = image <= batch"),
    fc_back(
        "images that do not exist", "image_mask = image < batch", "image_mask = image <= batch", 2
    ),
    fc_back("a zero has a slope", "saved <= 0", "saved < 0"),
    fc("the bias comes behind the activation", "if C.bias:", "if C.bias and False:"),
    fc(
        "the weight's row lies as that of x",
        "+ channel, channel * C.pixels + pixel",
        "+ channel, pixel * (C.features // C.pixels) + channel",
    ),
    fc(
        "channels that are left over begin a new group",
        "feature // (C.group * C.pixels) * C.group + feature % C.group",
        "feature // (8 * C.pixels) * 8 + feature % 8",
    ),
    fc(
        "the next group begins too early",
        "feature // (C.group * C.pixels) * C.group",
        "feature // C.pixels * C.group",
    ),
    fc_back(
        "dx lies as the weight",
        "C.features + place[None, :],\n        dx",
        "C.features + column[None, :],\n        dx",
    ),
    fc_back(
        "dweight lies as x",
        "C.features + column[None, :],\n        dweight",
        "C.features + place[None, :],\n        dweight",
    ),
    fc_back("the first images alone count", "range(tl.cdiv(batch, T.terms))", "range(1)"),
    fc_back("the first images alone count for the bias", "tl.cdiv(batch, ROWS)", "1"),
    loss("the mass is not scaled again", "mass * tl.exp(highest - base)", "mass"),
    loss("−∞ minus −∞", 'base = tl.where(higher == float("-inf"), 0.0, higher)', "base = higher"),
    loss("a class beyond the last", "(target >= 0) & (target < CLASSES)", "target >= 0", 2),
    loss(
        "a class that does not exist has a gradient",
        'wrong = tl.where(exists[:, None], wrong, float("nan"))',
        "wrong = wrong",
    ),
    loss(
        "rows that are left out count",
        "counts = row_mask & (target != IGNORED)",
        "counts = row_mask",
    ),
    loss(
        "rows that do not exist have a class",
        "mask=row_mask, other=IGNORED",
        "mask=row_mask, other=0",
        2,
        same="such a row counts for nothing, and is not stored",
    ),
    loss(
        "rows that are left out have a gradient",
        "tl.where((target != IGNORED)[:, None], wrong * share, 0.0)",
        "wrong * share",
    ),
    loss(
        "classes that do not exist have a logit of zero",
        'label[None, :], mask=mask, other=float("-inf"))',
        "label[None, :], mask=mask, other=0.0)",
    ),
    loss("the sum of several programs is divided", "num_programs(0) == 1", "num_programs(0) > 0"),
    loss("the gradient is that of the sum", " / tl.load(count_ptr)", ""),
    loss("the target's probability is not lowered", "1.0, 0.0)\n    # Of", "0.0, 0.0)\n    # Of"),
    fc(
        "a library's product is activated beyond its end",
        "mask = place < batch.to(tl.int64) * C.outputs\n    y",
        "mask = place <= batch.to(tl.int64) * C.outputs\n    y",
    ),
    fc_back(
        "a library is given the gradient behind the activation",
        "tl.store(dz_ptr + place, dz, mask=mask)",
        "tl.store(dz_ptr + place, tl.load(gradient_ptr + place, mask=mask), mask=mask)",
    ),
    image("the mean is one of bytes", "- 255.0 * mean", "- mean"),
    image("an image begins where the first one does", "place = image[:, None] +", "place ="),
    image("channels lie side by side", "channel[None, :] * channel_stride", "channel[None, :]"),
    image("a pixel of the image before", "pixel[:, None] % pixels", "pixel[:, None]"),
    image("pixels beyond the last", "pixel < batch * pixels", "pixel <= batch * pixels"),
    image("the last channels are left out", "channel < CHANNELS", "channel < CHANNELS - 1"),
]
MISTAKES = [*FORWARD, *POOLS, *BACKWARD, *NORMS, *OTHERS]
