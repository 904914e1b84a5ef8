"""Darknet's sections and Caffe's layers: names with values, and what they are here.

`read_section` and `read_message` read one at a place of a text, at most `MAX_WORDS` words of it;
`darknet` and `caffe` say what it is. Knows nothing of Python.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cnndsl.syntax.foreign.call import Unwritable, Written

MAX_WORDS = 400


class Section(NamedTuple):
    """A name, its values in order, and where it ends."""

    name: str
    values: Mapping[str, str]
    end: int


# ── Darknet ──────────────────────────────────────────────────────────────────────────────────────

_HEADER = re.compile(r"\[([a-z0-9_]+)\][ \t]*+(?:#[^\n]*+)?(?=\r?\n|$)")
_ENTRY = re.compile(r"[ \t]*+([a-z_0-9]+)[ \t]*+=[ \t]*+([^\n#;{}]*+)(?:#[^\n]*+)?(?=\r?\n|$)")
_EMPTY = re.compile(r"(?:[ \t]*+(?:[#;][^\n]*+)?\r?\n)++")


def read_section(text: str, start: int) -> Section | None:
    """`[convolutional]` and the lines of the form `filters=32` below it."""
    header = _HEADER.match(text, start)
    if header is None:
        return None
    values: dict[str, str] = {}
    end = header.end()
    while len(values) < MAX_WORDS:
        gap = _EMPTY.match(text, end)
        entry = _ENTRY.match(text, gap.end()) if gap else None
        if entry is None:
            break
        values[entry[1]] = entry[2].strip()
        end = entry.end()
    return Section(header[1], values, end)


class _Keys:
    """The values of a section; what nobody asked for is lacking."""

    def __init__(self, section: Section) -> None:
        self.name, self._values = section.name, section.values
        self._asked: set[str] = set()
        self.lacks: list[str] = []
        self.notes: list[str] = []

    def text(self, *names: str, usual: str = "") -> str:
        self._asked.update(names)
        return next((self._values[name] for name in names if name in self._values), usual)

    def number(self, *names: str, usual: int | None = None) -> int:
        text = self.text(*names, usual="" if usual is None else str(usual))
        if not re.fullmatch(r"[0-9]{1,9}", text):
            said = f"`{names[0]}` is `{text[:40]}`" if text else f"`{names[0]}` is missing"
            raise Unwritable(f"{said}, and a whole number is needed")
        return int(text)

    def ignore(self, *names: str) -> None:
        self._asked.update(names)

    @property
    def rest(self) -> list[str]:
        return [name for name in self._values if name not in self._asked]


def darknet(section: Section) -> Written:
    """The line of a section."""
    return _said(section, _DARKNET.get(section.name), "section")


def _said(section: Section, make: Callable[[_Keys], str] | str | None, what: str) -> Written:
    if make is None:
        return Written("", (f"there is no such {what} here",))
    if isinstance(make, str):
        return Written("", (make,))
    keys = _Keys(section)
    try:
        text = make(keys)
    except Unwritable as why:
        return Written("", (str(why),))
    lacks = [*keys.lacks, *(f"there is no `{name[:40]}` here" for name in keys.rest[:8])]
    return Written(text, tuple(lacks), tuple(keys.notes))


_DARKNET_ACTIVATIONS = {
    "linear": "",
    "leaky": "; leaky_relu 0.1",
    "logistic": "; sigmoid",
    "swish": "; silu",
    **{word: f"; {word}" for word in ("relu", "relu6", "elu", "tanh", "gelu")},
}


def _activation(keys: _Keys, usual: str) -> str:
    word = keys.text("activation", usual=usual)
    if word not in _DARKNET_ACTIVATIONS:
        keys.lacks.append(f"there is no activation `{word[:40]}` here")
        return ""
    return _DARKNET_ACTIVATIONS[word]


def _option(name: str, value: int, usual: int) -> str:
    return "" if value == usual else f" {name}={value}"


def _convolutional(keys: _Keys) -> str:
    size = keys.number("size", usual=1)
    pad = keys.number("padding", usual=0)
    if keys.number("pad", usual=0):
        pad = size // 2
    normalised = keys.number("batch_normalize", usual=0) != 0
    line = (
        f"conv {keys.number('filters', usual=1)} {size}x{size}"
        + _option("stride", keys.number("stride", usual=1), 1)
        + _option("pad", pad, 0)
        + _option("groups", keys.number("groups", usual=1), 1)
        + (" bias=no; batchnorm momentum=0.01" if normalised else "")
    )
    if normalised:
        keys.notes.append("Darknet adds its small number outside the root; `batchnorm` inside")
    return line + _activation(keys, "logistic")


def _maxpool(keys: _Keys) -> str:
    """Windows start at the first pixel, and the last one may hang over."""
    stride = keys.number("stride", usual=1)
    size = keys.number("size", usual=stride)
    padding = keys.number("padding", usual=max(size - 1, 0))
    if size == 1:
        return f"pool max 1{_option('stride', stride, 1)}"
    if (size, stride, padding) == (2, 2, 1):
        return "pool max 2 ceil=yes"
    if padding == size - 1 and size % 2:
        return f"pool max {size}{_option('stride', stride, size)} pad={size // 2}"
    keys.lacks.append("such a padding, on one side alone, is not here: `pad T B L R` puts zeros")
    return f"pool max {size}{_option('stride', stride, size)}"


def _connected(keys: _Keys) -> str:
    return f"fc {keys.number('output', usual=1)}" + _activation(keys, "logistic")


def _net(keys: _Keys) -> str:
    sides = keys.number("height"), keys.number("width"), keys.number("channels", usual=3)
    text = "input {} x {} x {}".format(*sides)
    if keys.rest:
        keys.notes.append("the rest of this section is of training: `cnndsl train --help`")
        keys.ignore(*keys.rest)
    return text


def _dropout(keys: _Keys) -> str:
    text = keys.text("probability", usual="0.5")
    if not re.fullmatch(r"0?\.[0-9]{1,9}", text):
        raise Unwritable("`probability` is no number between 0 and 1")
    return f"dropout {text if text[0] == '0' else '0' + text}"


def _softmax(keys: _Keys) -> str:
    keys.ignore("groups", "temperature")
    return "softmax"


def _upsample(keys: _Keys) -> str:
    return f"upsample {keys.number('stride', usual=2)} nearest"


def _avgpool(keys: _Keys) -> str:
    del keys
    return "globalpool avg"


_DARKNET: Mapping[str, Callable[[_Keys], str] | str] = {
    "avgpool": _avgpool,
    "connected": _connected,
    "conv": _convolutional,
    "convolutional": _convolutional,
    "cost": "a file describes the network alone; its last layer says the task",
    "detection": "this language has no detection layers",
    "dropout": _dropout,
    "maxpool": _maxpool,
    "net": _net,
    "network": _net,
    "region": "this language has no detection layers",
    "route": "name a tensor with `as LABEL`, then write `from LABEL` or `concat LABEL`",
    "shortcut": "name a tensor with `as LABEL`, then write `add LABEL`",
    "softmax": _softmax,
    "upsample": _upsample,
    "yolo": "this language has no detection layers",
}


# ── Caffe ────────────────────────────────────────────────────────────────────────────────────────

OPENER = re.compile(r"(layers?|[a-z_]+_param)[ \t]*+:?[ \t]*+\{")
_WORD = re.compile(r"(?:\s++|#[^\n]*+)*+(?:([A-Za-z_][\w.]*+)|(\"[^\"\n]*+\"|[-+\w.]++)|([{}:]))")


def read_message(text: str, start: int) -> Section | None:
    """`layer { type: "Convolution" convolution_param { … } }`, or a parameter alone.

    Values inside `…_param` stand under their own names, deeper ones under `filler` and the like.
    """
    opener = OPENER.match(text, start)
    if opener is None:
        return None
    values: dict[str, str] = {}
    at, path, name = opener.end(), [opener[1]], ""
    for _ in range(MAX_WORDS):
        found = _WORD.match(text, at)
        if found is None:
            return None
        at = found.end()
        word = found[0].split()[-1] if found[3] else found[1] or found[2]
        if word == "}":
            path.pop()
            if not path:
                return Section(opener[1], values, at)
        elif word == "{":
            if not name:
                return None
            path.append(name)
            name = ""
        elif word == ":":
            continue
        elif name:
            inner = [part for part in path[1:] if not part.endswith("_param")]
            key = inner[0] if inner else name
            values[key] = (
                f"{values[key]} {word}" if key in ("dim", "shape") and key in values else word
            )
            name = ""
        else:
            name = word
    return None


def caffe(message: Section) -> Written:
    """The line of a layer, or of a parameter alone."""
    kind = message.values.get("type", message.name).strip('"')
    return _said(message, _CAFFE.get(kind.lower().removesuffix("_param").replace("_", "")), "layer")


def _caffe_frame(keys: _Keys) -> None:
    keys.ignore("name", "type", "bottom", "top", "engine")


def _caffe_size(keys: _Keys) -> str:
    if keys.text("kernel_h"):
        return f"{keys.number('kernel_h')}x{keys.number('kernel_w')}"
    size = keys.number("kernel_size", "kernelsize")
    return f"{size}x{size}"


def _caffe_conv(keys: _Keys, word: str = "conv") -> str:
    _caffe_frame(keys)
    return (
        f"{word} {keys.number('num_output')} {_caffe_size(keys)}"
        + _option("stride", keys.number("stride", usual=1), 1)
        + _option("pad", keys.number("pad", usual=0), 0)
        + _option("dilation", keys.number("dilation", usual=1), 1)
        + _option("groups", keys.number("group", usual=1), 1)
        + (" bias=no" if keys.text("bias_term") == "false" else "")
    )


def _caffe_deconv(keys: _Keys) -> str:
    return _caffe_conv(keys, "deconv")


def _caffe_pool(keys: _Keys) -> str:
    _caffe_frame(keys)
    function = {"": "max", "MAX": "max", "AVE": "avg"}.get(keys.text("pool"))
    if function is None:
        raise Unwritable("`pool` is `max` or `avg` here")
    if keys.text("global_pooling") == "true":
        return f"globalpool {function}"
    size = keys.number("kernel_size")
    stride, pad = keys.number("stride", usual=1), keys.number("pad", usual=0)
    ceil = "" if stride == 1 else " ceil=yes"
    if ceil:
        keys.notes.append("Caffe rounds the size of a pool up: `ceil=yes`")
    return f"pool {function} {size}{_option('stride', stride, size)}{_option('pad', pad, 0)}{ceil}"


def _caffe_fc(keys: _Keys) -> str:
    _caffe_frame(keys)
    keys.notes.append("Caffe flattens images by itself: write `flatten` above if one comes here")
    bias = " bias=no" if keys.text("bias_term") == "false" else ""
    return f"fc {keys.number('num_output')}{bias}"


def _caffe_plain(line: str) -> Callable[[_Keys], str]:
    def make(keys: _Keys) -> str:
        _caffe_frame(keys)
        return line

    return make


def _caffe_dropout(keys: _Keys) -> str:
    _caffe_frame(keys)
    ratio = keys.text("dropout_ratio", usual="0.5")
    if not re.fullmatch(r"0?\.[0-9]{1,9}", ratio):
        raise Unwritable("`dropout_ratio` is no number between 0 and 1")
    return f"dropout {ratio if ratio[0] == '0' else '0' + ratio}"


def _caffe_lrn(keys: _Keys) -> str:
    _caffe_frame(keys)
    alpha, beta = keys.text("alpha", usual="1.0"), keys.text("beta", usual="0.75")
    if not all(re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) for text in (alpha, beta)):
        raise Unwritable("`alpha` and `beta` have to be numbers")
    return f"lrn size={keys.number('local_size', usual=5)} alpha={alpha} beta={beta} k=1"


_CAFFE_MERGE = "name a tensor with `as LABEL`, then write `concat LABEL` or `add LABEL`"
_CAFFE: Mapping[str, Callable[[_Keys], str] | str] = {
    "concat": _CAFFE_MERGE,
    "convolution": _caffe_conv,
    "data": "a file describes the network alone; `cnndsl train --data` names the images",
    "deconvolution": _caffe_deconv,
    "dropout": _caffe_dropout,
    "eltwise": _CAFFE_MERGE,
    "innerproduct": _caffe_fc,
    "lrn": _caffe_lrn,
    "pooling": _caffe_pool,
    "relu": _caffe_plain("relu"),
    "sigmoid": _caffe_plain("sigmoid"),
    "softmax": _caffe_plain("softmax"),
    "softmaxwithloss": "end in the last `fc`: training takes its values as they are",
    "tanh": _caffe_plain("tanh"),
}
