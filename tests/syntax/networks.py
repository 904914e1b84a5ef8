"""Texts that use the whole language, for the tests of this folder."""

from cnndsl.diagnostics.model import Diagnostic, Sink
from cnndsl.record import Record
from cnndsl.source import Source, Span
from cnndsl.syntax import tree
from cnndsl.syntax.parse import parse
from cnndsl.syntax.spacing import ONE_NUMBER

LENET = """\
# Two convolution stages and a classifier, for 28×28 grey digits.
model LeNet

input 28 x 28 x 1               # height x width x channels

conv 6 5x5 pad=same             # 6 filters of 5x5
relu
pool max 2
conv 16 5x5
relu
pool max 2      -> 5 x 5 x 16   # an assertion: checked, and shown when it fails
flatten
fc 120; relu
fc 84; relu
fc 10
softmax
"""

EVERYTHING = """\
model Every
use "parts/blocks.cnn"
input H x W x 3 u8
param width = 64; param depth
let kernel = 3x3
let wide = (width + 1) * -2 // 3 % 5 - 1
require H >= 32, H % 32 == 0 and not W < 32 or W == 2_048
default conv pad=same bias=no

block residual(f, stride=1, size=3x3, slope=1e-2) {
    add { skip }
        # the long way
        {
            conv f size stride=stride; batchnorm
            leaky_relu slope=slope
        } as sum -> H//stride x W x f
}

repeat depth as layer1 { residual 64 stride=1 }
if stride > 1 and channels != 64 {
    pool max 3 stride=2
}
else if width <= 1.5k { pool avg to 7x7 } else { }
conv 64 (-1 + 2) pad=? groups=channels as layer2.0.conv1 -> 28x28 x C
upsample like layer1.0.sum
concat layer1.0.sum layer2.0.conv1 as both
multiply { globalpool avg } { skip }
from both
output layer2.0.conv1
crop (
    -1
) 2 3 4
take 0 channels//2
labels "cat" "a dog # not a comment"
expect params == 61_706, macs <= 5M, training_bytes <= 2GiB, 1 < 2 < 3
"""


def read(text: str) -> tuple[tree.File, tuple[Diagnostic, ...]]:
    """A text's tree and its mistakes."""
    sink = Sink()
    return parse(Source("test.cnn", text), sink), sink.sorted()


def good(text: str) -> tuple[tree.Statement, ...]:
    """The statements of a text without mistakes."""
    file, found = read(text)
    assert found == (), [(d.code, d.message, d.span.text) for d in found]
    return file.statements


def one(text: str) -> tree.Statement:
    """The only statement of a text."""
    (statement,) = good(text)
    return statement


def records(node: object):
    """All records of a tree, spans apart."""
    if isinstance(node, tuple):
        for item in node:
            yield from records(item)
    elif isinstance(node, Record) and not isinstance(node, Span):
        yield node
        for value in node.values():
            yield from records(value)


def plain(node: object) -> object:
    """A tree without its places, for comparing meanings."""
    if isinstance(node, tuple):
        return tuple(plain(item) for item in node)
    if isinstance(node, tree.File):
        return plain(node.statements)
    if isinstance(node, Record):
        fields = zip(node.__fields__, node.values(), strict=True)
        inside = tuple(plain(v) for n, v in fields if not isinstance(v, Span))
        return (type(node).__name__, *inside)
    return node


def meaning(text: str) -> object:
    """The tree; the one number of a layer counts as written by its place."""
    return by_place(plain(good(text)))


def by_place(node: object) -> object:
    match node:
        case ("LayerCall", ("Name", layer), (("Keyword", ("Name", name), value), *rest), *tail) if (
            ONE_NUMBER.get(layer) == name
        ):
            return ("LayerCall", ("Name", layer), (("Positional", value), *rest), *tail)
        case tuple():
            return tuple(map(by_place, node))
        case _:
            return node
