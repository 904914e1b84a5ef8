"""Mistakes to plant in a valid network: each is a line that is wrong by itself, or a line made so.

A mistake takes what is known where it is planted and gives the wrong lines, of which the first is
to be blamed unless it says otherwise; None where it cannot be made there.
"""

import random
from collections.abc import Callable

from cnndsl.layers.types import ImageType, TensorType
from cnndsl.record import Record


class Spot(Record):
    """Where a mistake is planted: the current tensor, the labels and blocks that are known there.

    `after` is a line number from 0: the mistake follows that many lines.
    """

    rng: random.Random
    type: TensorType
    labels: tuple[str, ...]
    blocks: tuple[str, ...]
    names: tuple[str, ...]


class Wrong(Record):
    """Lines to insert, the codes that may be given, and which of the lines is to blame.

    Around those of a mistake in `CHANGES`, lines are put that go back to the tensor above it.
    """

    text: str
    codes: tuple[str, ...]
    blamed: int = 0


# What the wrong lines make of the tensor, were they right, is not what the network below expects.
CHANGES = frozenset(
    {
        "a misspelt option",
        "a missing argument",
        "no argument at all",
        "too many arguments",
        "an argument twice",
        "a positional argument by name",
        "a value of the wrong kind",
        "a negative value",
        "an unknown name",
        "a filter too large",
        "same with an even filter",
        "too much padding",
        "average with dilation",
        "filters that groups do not divide",
        "channels that are not there",
        "no channels",
        "nothing left by a crop",
        "nothing left by padding",
        "room that there is not",
        "an assertion of another shape",
        "branches that differ",
        "an image and a vector merged",
        "one branch",
        "a_vector_where_an_image_is_needed",
        "a_mistake_in_a_block",
        "a_mistake_in_a_branch",
    }
)

Mistake = Callable[[Spot], Wrong | None]
MISTAKES: dict[str, Mistake] = {}


def mistake(make: Mistake) -> Mistake:
    MISTAKES[make.__name__] = make
    return make


def on_images(*wrong: str, codes: str) -> Mistake:
    """Lines that are wrong on any image."""

    def make(spot: Spot) -> Wrong | None:
        if not isinstance(spot.type, ImageType):
            return None
        height, width, channels = (dim.constant for dim in spot.type.dims)
        text = spot.rng.choice(wrong).format(h=height, w=width, c=channels, more=channels + 1)
        return Wrong(text, tuple(codes.split()))

    return make


def anywhere(*wrong: str, codes: str, blamed: int = 0) -> Mistake:
    """Lines that are wrong on any tensor."""
    return lambda spot: Wrong(spot.rng.choice(wrong), tuple(codes.split()), blamed)


MISTAKES |= {
    "a misspelt layer": anywhere(
        "cnov 4 3x3", "rellu", "maxpool 2", "Linear 10", "soft_max", "bachnorm as b7", codes="E201"
    ),
    "a layer of another language": anywhere(
        "Conv2d(3, 6, 5)", "x = relu(x)", "conv 3, 3", codes="E1"
    ),
    "a misspelt option": on_images(
        "conv 4 1x1 strid=1", "pool max 1 padding=0", "batchnorm epsilon=1", codes="E204"
    ),
    "an option of another layer": on_images(
        "relu stride=2", "softmax pad=1", "dropout slope=1", codes="E204"
    ),
    "a missing argument": on_images(
        "conv 4", "pool 2", "pool max", "deconv 1x1", "globalpool", "take 0", codes="E202"
    ),
    "no argument at all": on_images("conv", "pool", "upsample", "groupnorm", codes="E202"),
    "too many arguments": on_images(
        "conv 4 1x1 2", "relu 3", "pool max 1 1", "pool max to 1x1 1", "flatten 2", codes="E203"
    ),
    "an argument twice": on_images(
        "conv 4 1x1 pad=0 pad=1", "pool max 1 stride=1 stride=1", codes="E205"
    ),
    "a positional argument by name": on_images("conv filters=4 1x1", codes="E204"),
    "a value of the wrong kind": on_images(
        "conv 4 1x1 bias=3",
        "conv yes 1x1",
        'conv "a" 1x1',
        "conv 4 1.5",
        "pool avg 0",
        "conv 4 1x1 stride=0x1",
        "dropout p=2",
        "dropout p=1x1",
        "batchnorm eps=0",
        "conv 0 1x1",
        "pool min 1",
        "conv 4 1x1 pad=valid",
        "upsample 2 cubic",
        "conv 1 < 2 1x1",
        codes="E206 E1",
    ),
    "a negative value": on_images("conv (0 - 4) 1x1", "conv 4 1x1 pad=(-1)", codes="E206"),
    "an unknown name": anywhere(
        "take 0 breadth",
        "dropout p=rate_of_it",
        "repeat often { skip }",
        "let z9 = q9 + 1",
        codes="E211",
    ),
    "a division by zero": anywhere("let z9 = 3 // 0", "let z9 = 3 % (2 - 2)", codes="E207"),
    "a hole in an expression": anywhere("let z9 = ?", "repeat ? { skip }", codes="E212 E1"),
    "an unknown label": anywhere(
        "from nowhere", "add nowhere", "concat nowhere as it", "output nowhere", codes="E218"
    ),
    "like what is not there": on_images("upsample like nowhere", "crop like nowhere", codes="E218"),
    "a filter too large": on_images(
        "conv 4 {more}0x{w}00 as l8",
        "pool max {h}00x1 pad=0 stride=1",
        "conv 4 3x3 dilation={h}0x{w}0 pad=0",
        codes="E301 E307",  # a `default` may say `pad=same`, and 30 is even
    ),
    "same with an even filter": on_images(
        "conv 4 2x2 pad=same", "pool max 4 pad=same", codes="E307"
    ),
    "too much padding": on_images("pool max 1 pad=1", "pool avg 1x3 pad=0x2", codes="E308"),
    "average with dilation": on_images("pool avg 1 dilation=2", codes="E310"),
    "groups that do not divide": on_images(
        "conv {c} 1x1 groups={more}", "groupnorm {more}", "shuffle {more}", codes="E306"
    ),
    "filters that groups do not divide": lambda spot: (
        Wrong(f"conv 1 1x1 groups={spot.type.dims[-1]}", ("E306",))
        if isinstance(spot.type, ImageType) and spot.type.dims[-1].constant > 1
        else None
    ),
    "channels that are not there": on_images("take 0 {more}", "take {c} {more}", codes="E317"),
    "no channels": anywhere("take 1 1", codes="E317"),
    "nothing left by a crop": on_images("crop {h} 0 0 0", "crop 0 0 1 {w}", codes="E315 E316"),
    "nothing left by padding": on_images("deconv 4 1x1 pad={h}x{w} stride=1", codes="E316"),
    "room that there is not": on_images("deconv 4 3x3 output_pad=3", codes="E314"),
    "an assertion of another shape": on_images(
        "skip -> {h} x {w} x {more}", "relu -> {more}", "flatten -> {h} x {w} x {c}", codes="E305"
    ),
    "an assertion of no shape": anywhere("skip -> 3 x 3", codes="E305"),
    "an image where a vector is needed": on_images("fc 10", codes="E303"),
    "branches that differ": on_images(
        "add {{ skip }} {{ conv {more} 1x1 pad=0 }}",
        "concat {{ skip }} {{ pad 1 0 0 0 }}",
        "multiply {{ pad 1 1 1 1 }} {{ pad 1 1 1 2 }}",
        codes="E304",
    ),
    "an image and a vector merged": on_images(
        "add {{ skip }} {{ flatten }}", "concat {{ flatten }} {{ skip }}", codes="E304"
    ),
    "one branch": anywhere("add { relu }", "concat { skip } as l8", codes="E217"),
    "an unknown default": anywhere("default cnov pad=same", codes="E201"),
    "a default of no option": anywhere("default conv padd=same", codes="E204"),
    "a block of a layer's name": anywhere("block relu() { skip }", codes="E208"),
    "an endless block": lambda spot: Wrong("block e8(n) { skip; e8 n }\ne8 1", ("E506",)),
    "too many layers": anywhere("repeat 1M { repeat 1M { skip } }", codes="E505"),
    "a repeat of nothing known": anywhere(
        "repeat 1x1 { skip }", "repeat 0 - 1 { skip }", codes="E206 E1"
    ),
    "a label that comes twice": anywhere("repeat 2 { skip as l8 }", codes="E208"),
    "a label of the input": anywhere("skip as input", codes="E208 E1"),
    "a value that has one": anywhere("let z9 = 1; let z9 = 2", codes="E208"),
    "a condition that is none": anywhere("if 3 { skip }", "require 3", codes="E206"),
    "a promise that cannot be": anywhere("require 3 < 2", codes="E403"),
    "a number that is none": anywhere("let z9 = 3x3 // 2", 'let z9 = "a" + 1', codes="E206 E1"),
    "an expectation that is wrong": anywhere("expect params == 123_456_789", codes="E311"),
    "a second input": anywhere("input 8 x 8 x 3", codes="E210"),
    "a second model": anywhere("model A; model B", codes="E210"),
    "another file": anywhere('use "nothing.cnn"', codes="E216"),
    "a lonely bracket": anywhere("}", ")", codes="E1"),
    "a string that does not end": anywhere('labels "a', codes="E1"),
    "a line of nonsense": anywhere("-> 3", "as l8", "= 4", "conv 4 5 x 5", "5 conv", codes="E1"),
    "a repeat without a count": anywhere("repeat { relu }", codes="E1"),
    "a block without a body": anywhere("block b8(n)", codes="E1"),
    "a number too long": anywhere("fc 12345678901234567890", codes="E513"),
}


@mistake
def a_vector_where_an_image_is_needed(spot: Spot) -> Wrong | None:
    if isinstance(spot.type, ImageType):
        lines = spot.rng.choice(["conv 4 1x1", "pool max 1", "globalpool avg", "pad 1 1 1 1"])
        return Wrong(f"flatten\n{lines}", ("E302",), 1)
    return Wrong(spot.rng.choice(["conv 4 1x1", "flatten", "upsample 2 nearest"]), ("E302",))


@mistake
def a_label_that_is_taken(spot: Spot) -> Wrong | None:
    labels = [label for label in spot.labels if label.count(".") < 2]
    return Wrong(f"skip as {spot.rng.choice(labels)}", ("E208",)) if labels else None


@mistake
def a_block_that_is_there(spot: Spot) -> Wrong | None:
    blocks = spot.blocks
    return Wrong(f"block {blocks[0]}() {{ skip }}", ("E208",)) if blocks else None


@mistake
def a_block_without_its_argument(spot: Spot) -> Wrong | None:
    del spot
    return Wrong("block e9(n) { dropout p=n }\ne9 as l8", ("E202",), 1)


@mistake
def a_block_with_an_unknown_argument(spot: Spot) -> Wrong | None:
    wrong = spot.rng.choice(["0.5 filterz=3", "0.5 1 1 1", "0.5 rate=0.5", "q9"])
    codes = ("E202", "E203", "E204", "E205", "E211")
    return Wrong(f"block e9(rate) {{ dropout p=rate }}\ne9 {wrong} as l8", codes, 1)


@mistake
def a_name_that_is_near(spot: Spot) -> Wrong | None:
    return Wrong(f"let z9 = {spot.names[0]}s", ("E211",)) if spot.names else None


@mistake
def a_mistake_in_a_block(spot: Spot) -> Wrong | None:
    line = spot.rng.choice(["cnov n 1x1", "conv n 1x1 strid=2", "skip -> 1 x 1"])
    return Wrong(f"block e8(n) {{\n{line}\n}}\ne8 3\ne8 4 as l8", ("E201", "E204", "E305"), 1)


@mistake
def a_mistake_in_a_repeat(spot: Spot) -> Wrong | None:
    line = spot.rng.choice(["add nowhere", "cnov", "relu slope=1", "skip -> 1 x 2"])
    return Wrong(f"repeat 3 as l8 {{\n{line}\n}}", ("E218", "E201", "E204", "E305"), 1)


@mistake
def a_mistake_in_a_branch(spot: Spot) -> Wrong | None:
    line = spot.rng.choice(["cnov", "relu slope=1", "skip -> 1 x 2", "from nowhere", "dropout q=1"])
    codes = ("E218", "E201", "E204", "E305")
    return Wrong(f"add {{ skip }} {{\nskip\n{line}\nscale\n}} as l8\nconcat l8", codes, 2)
