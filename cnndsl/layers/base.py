"""What every layer says of itself, and the roles by which fusion and emission know it.

A layer is one class: its fields are its arguments in the language; its methods give conditions,
output, parameters, arithmetic and the PyTorch meaning. Knows no syntax, no graph, no kernels.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, dataclass_transform

from cnndsl.layers.arguments import Kind
from cnndsl.layers.types import ImageType, TensorType, VectorType
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim

ZERO = Dim.of(0)
REQUIRED = object()

Input = Any
"""The type of the tensor that a layer reads: one of its `accepts`; of a merge, a tuple of them."""


Way = Literal["place", "name", "either", "to", "like"]


class Slot(Record):
    """One argument of a layer: its kind, its value when it is left out, and how it is written."""

    kind: Kind
    default: Any
    way: Way
    axis: int | None = None  # of a number for one side of an image: 0 for height, 1 for width

    @property
    def required(self) -> bool:
        """Whether a file must give it, in its place among the others that it must give."""
        return self.by_place and self.default is REQUIRED

    @property
    def by_place(self) -> bool:
        """Whether it may stand alone, in its place."""
        return self.way in ("place", "either")

    @property
    def by_name(self) -> bool:
        """Whether it may stand behind its name and an equals sign."""
        return self.way in ("name", "either")


def argument(
    kind: Kind,
    *,
    default: Any = REQUIRED,  # noqa: ANN401 (it stands for the field, which has any type)
    way: Way | None = None,
    axis: int | None = None,
) -> Any:  # noqa: ANN401 (as above)
    """Declare an argument. Without a default it is positional, with one it is `name=value`.

    `way` is `to` or `like` for arguments behind these words, as in `pool max to 7x7`; a layer of
    several forms is one class a form, and the word chooses between them. It is `place` for one
    that stands alone like a positional one, but may be left out: `upsample to 56x56 bilinear`. It
    is `either` for the one number of a layer: `dropout 0.2`, or `dropout p=0.2`.
    `axis` says which side of an image a number is for, where it is for one only.
    """
    return Slot(kind, default, way or ("place" if default is REQUIRED else "name"), axis)


class Suggestion(Record):
    """A fix in the terms of a layer; without changes it is only advice.

    `changes` gives arguments new values, as text; `above` and `below` are layers to insert in
    front of this one and behind it. A change keeps the shapes of the weights: what alters a
    window's size or a count that the user wrote is advice.
    """

    message: str
    changes: tuple[tuple[str, str], ...] = ()
    above: str = ""
    below: str = ""


class Claim(Record):
    """A condition that a layer needs: `left operator right`, for every size of the input.

    `argument` is the one at fault (None: the layer as a whole), `about` the dim of the input that
    it meets; where a layer has several inputs, `between` says which two do not fit together there.
    `message` says what is wrong when it does not hold, `caption` a few words under the carets,
    `notes` the numbers.
    """

    left: Dim
    operator: Literal[">=", "=="]
    right: Dim
    code: str
    message: str
    argument: str | None = None
    about: int | None = None  # index into the input's dims
    caption: str = ""
    notes: tuple[str, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    between: tuple[int, int] | None = None  # indices into the inputs


def never(
    code: str,
    message: str,
    argument: str | None = None,
    caption: str = "",
    suggestions: tuple[Suggestion, ...] = (),
) -> Claim:
    """The claim that fails whatever the sizes are: what was asked for does not exist."""
    one = Dim.of(1)
    return Claim(ZERO, ">=", one, code, message, argument, None, caption, (), suggestions)


class Weight(Record):
    """A tensor that belongs to a layer, by PyTorch's name and shape."""

    name: str
    shape: tuple[Dim, ...]
    trained: bool = True  # False: a buffer

    @property
    def count(self) -> Dim:
        """How many numbers it holds."""
        product = Dim.of(1)
        for dim in self.shape:
            product = product * dim
        return product


class Step(Record):
    """How a layer moves over an image, for receptive fields; each for height and width.

    The window of output pixel i starts at i·stride − before and spans `extent` pixels. A layer that
    makes images larger moves over an input with `finer` − 1 empty pixels between any two: what it
    sees of the input are the pixels p for which p·finer lies in the window.
    """

    extent: tuple[Dim, Dim]
    stride: tuple[int, int]
    before: tuple[int, int]
    finer: tuple[int, int] = (1, 1)


# Output pixel i sees just input pixel i.
IN_PLACE = Step((Dim.of(1), Dim.of(1)), (1, 1), (0, 0))


@dataclass_transform(frozen_default=True, kw_only_default=False, field_specifiers=(argument,))
class Layer(Record):
    """The base of all layers.

    `kind` is its word in the language; `accepts` the type that it reads; `slots` its arguments;
    `examples` are lines of the language that use it, for documentation and tests.
    """

    kind: ClassVar[str]
    accepts: ClassVar[tuple[type, ...]] = (ImageType,)
    slots: ClassVar[dict[str, Slot]]
    examples: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        """Read the arguments off the class body."""
        declared = {n: s for n, s in cls.__defaults__.items() if isinstance(s, Slot)}
        cls.slots = {**getattr(cls, "slots", {}), **declared}
        for name, slot in declared.items():
            if slot.default is REQUIRED:
                del cls.__defaults__[name]
            else:
                cls.__defaults__[name] = slot.default

    def requires(self, x: Input, /) -> Iterator[Claim]:
        """What must hold for this input, each with its own message."""
        del x
        return iter(())

    def output(self, x: Input, /) -> TensorType:
        """The type that comes out, once `requires` holds."""
        return x

    def weights(self, x: Input, /) -> tuple[Weight, ...]:
        """Its parameters and buffers, in PyTorch's order."""
        del x
        return ()

    def macs(self, x: Input, /) -> Dim:
        """Multiply-accumulates for one image; only anchors have any."""
        del x
        return ZERO

    def step(self, x: Input, /) -> Step | None:
        """How it moves over an image; None where it moves by no fixed stride."""
        del x
        return IN_PLACE

    def formula(self, x: Input, /) -> tuple[str, ...]:
        """Lines for `--explain`: the formula of its output size with the numbers put in."""
        del x
        return ()

    def module(self, x: Input, /) -> str | None:
        """The `torch.nn` module that holds its weights, as source text; None where it has none."""
        del x
        return None

    def torch(self, x: Input, module: str, value: str, /) -> str:
        """Its meaning as a PyTorch expression.

        `module` names what `module()` made, `value` is the input's expression: a name, for it may
        be used twice. A layer that reads several tensors takes a value for each.
        """
        raise NotImplementedError(f"{self.kind} says nothing of its PyTorch meaning")

    def write(self) -> str:
        """The line of the language that makes it; arguments at their default are left out."""
        parts = [self.kind]
        for name, slot in self.slots.items():
            value = getattr(self, name)
            if slot.way in ("to", "like"):
                parts.append(f"{slot.way} {slot.kind.write(value)}")
                continue
            if value == slot.default and not slot.required:
                continue
            text = slot.kind.write(value)
            # By its place, a number with a minus would need parentheses.
            is_alone = slot.by_place and not text.startswith("-")
            parts.append(text if is_alone else f"{name}={text}")
        return " ".join(parts)

    def data(self) -> dict[str, object]:
        """Its arguments for JSON."""
        return {name: slot.kind.data(getattr(self, name)) for name, slot in self.slots.items()}


# ── the roles ────────────────────────────────────────────────────────────────────────────────────


class Anchor(Layer):
    """A product with weights: a region is built around one."""

    kernel: ClassVar[str]  # which file of kernels/ computes it


class Window(Layer):
    """A window that slides over an image and keeps its channels."""


class Pointwise(Layer):
    """A function of each value alone, with its Triton text.

    `rises` says that the function never falls, so that it may change places with a maximum.
    `slope_from` says from what its derivative is computed, as in PyTorch: from its `input`, or from
    its `output`, which only a function that rises may say. `relu`: from its output, of which the
    sign is enough.
    """

    accepts: ClassVar[tuple[type, ...]] = (ImageType, VectorType)
    slope_from: ClassVar[Literal["relu", "output", "input"]]
    rises: ClassVar[bool] = True

    def triton(self, x: str) -> str:
        """The Triton expression of the function; `x` names a tile of fp32 values."""
        raise NotImplementedError(f"{self.kind} has no kernel")

    def triton_gradient(self, saved: str, gradient: str) -> str:
        """That of the gradient before it; `saved` names what `slope_from` says."""
        raise NotImplementedError(f"{self.kind} has no backward kernel")

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A call of the function, which most have under their own name."""
        del x, module
        return f"{self.function}({value})"

    @property
    def function(self) -> str:
        """The function in PyTorch, without a call."""
        return f"F.{self.kind}"

    @property
    def inverse(self) -> str:
        """PyTorch's function from its output to an input of the same value and slope.

        Only for a `slope_from` the output; empty if the value itself is such an input.
        """
        return ""


class Affine(Layer):
    """In inference a scale and a shift for each channel, in training statistics of the batch."""


class View(Layer):
    """The same values under other indices: never a kernel."""


class Opaque(Layer):
    """A PyTorch call; it ends a region."""


class Merge(Layer):
    """Several tensors made one; its methods take the tuple of their types.

    All that it is given beside them are the tensors themselves, which the language writes as
    branches or labels; so it has no arguments.
    """

    accepts: ClassVar[tuple[type, ...]] = (ImageType, VectorType)
