"""Weights in safetensors files: read for a model, and written under the names of its layers.

Nothing in such a file can run code. A pickle (`.pth`, `.pt`) can, so none is read: a message says
how to convert it. Knows tensors and files; which tensor goes where is for `matching`.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from errno import EIO
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cnndsl import output
from cnndsl.diagnostics.safe import safe
from cnndsl.record import Record
from cnndsl.runtime.errors import WeightsError
from cnndsl.runtime.matching import COUNTER, Form, Match, natural
from cnndsl.runtime.scaling import NAMES, Scaling, takes_bytes, tell_scaling
from cnndsl.runtime.values import refuse_bad_values

if find_spec("safetensors") is None:
    raise ModuleNotFoundError(
        "weights lie in safetensors files, and safetensors is not installed\n"
        "  help: pip install 'cnndsl[train]'",
        name="safetensors",
    )

import safetensors.torch
from safetensors import SafetensorError, safe_open

# safetensors' types are not whole.
_save_file = cast(
    "Callable[[dict[str, Tensor], str, dict[str, str]], None]", vars(safetensors.torch)["save_file"]
)

_SHOWN = 6  # things in a message; networks have hundreds
_ORDER = "order"  # in the metadata: the names in the order of the model that was saved, one a line
_WRITER = ("writer", "cnndsl")  # in the metadata of what is written here
_KINDS = {"I": "integers", "U": "integers", "B": "booleans", "C": "complex numbers"}
_PICKLES = (b"PK\x03\x04", b"\x80")  # how what `torch.save` wrote begins
_CONVERSION = (
    "import torch, safetensors.torch; "
    "s = torch.load({old!r}, weights_only=True); "
    "s = {{n: t.contiguous().clone() for n, t in s.items()}}; "
    "safetensors.torch.save_file(s, {new!r}, {{'order': '\\n'.join(s)}})"
)


class Weights(Record):
    """A file of weights: what is in it, by name, in the order of the model that was saved.

    `is_ordered` is False where the file does not tell that order: names are sorted then, numbers in
    them as numbers. `scaling` is there if `cnndsl weights` was told it.
    """

    path: Path
    forms: dict[str, Form]
    is_ordered: bool
    scaling: Scaling | None

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Read these tensors."""
        with _opened(self.path) as file:
            return {name: file.get_tensor(name) for name in names}


def is_ours(head: bytes) -> bool:
    """Whether a file begins as one does that `write` wrote."""
    return b'"%s":"%s"' % tuple(word.encode() for word in _WRITER) in head


def read(path: str | os.PathLike[str], order: Sequence[str] | None = None) -> Weights:
    """What is in a file; `WeightsError` if it is none of weights.

    `order` has the names in the order of the model that was saved, where the user knows it; of an
    empty one, the names' own order is the right one.
    """
    path = Path(path)
    with _opened(path) as file:
        metadata: dict[str, str] = file.metadata() or {}
        forms: dict[str, Form] = {}
        for name in cast("list[str]", file.offset_keys()):
            part = file.get_slice(name)
            forms[name] = _form(tuple(part.get_shape()), str(part.get_dtype()))
    told = metadata.get(_ORDER, "").split("\n")
    is_told = sorted(told) == sorted(forms)
    names = told if is_told else sorted(forms, key=natural)
    if order is not None:
        names = sorted(forms, key=natural)
        if order:
            _refuse_other_names(order, names)
            names = list(order)
        is_told = True
    return Weights(path, {n: forms[n] for n in names}, is_told, _scaling(path, metadata))


def _form(shape: tuple[int, ...], dtype: str) -> Form:
    """What safetensors says of a tensor: its shape, and `F32`, `BF16`, `I64` and their like."""
    if dtype in ("F64", "F32", "F16", "BF16"):
        return Form(shape)
    # Shorter floats mean nothing without the scales that were chosen for them.
    kind = f"{dtype}, which needs scales" if dtype.startswith("F") else _KINDS.get(dtype[:1], dtype)
    return Form(shape, is_float=False, kind=kind)


def _refuse_other_names(order: Sequence[str], names: Sequence[str]) -> None:
    """Raise unless these are all names of the file, each once."""
    if sorted(order) == sorted(names):
        return
    strangers = [name for name in order if name not in set(names)]
    lacking = [name for name in names if name not in set(order)]
    what = "it has a name twice"
    if strangers:
        what = f"the weights have no `{safe(strangers[0])}`"
    elif lacking:
        what = f"it lacks `{safe(lacking[0])}`"
    raise WeightsError(
        f"the order that you gave is not that of these weights: {what}",
        "it has the name of each tensor, one a line, as `print('\\n'.join(state))` shows them",
    )


def forms_of(model: nn.Module) -> dict[str, Form]:
    """What a model wants: all that is in its state, in order."""
    state = cast("Mapping[str, Tensor]", model.state_dict())
    kinds = {False: "integers", True: "booleans"}
    return {
        n: Form(tuple(t.shape), t.dtype.is_floating_point, kinds[t.dtype == torch.bool])
        for n, t in state.items()
    }


def load_into(model: nn.Module, weights: Weights, fresh: Sequence[str] = ()) -> None:
    """Give the model the weights of the file, which has the names of its layers.

    `fresh` names layers that keep what they have; a model that takes bytes keeps how it scales them
    where the file does not say it. `WeightsError` unless everything else fits.
    """
    wanted = forms_of(model)
    kept = below(wanted, fresh) | unsaid(wanted, weights)
    names = [name for name in wanted if name not in kept]
    problems = _problems({name: wanted[name] for name in names}, weights, kept)
    if problems:
        raise WeightsError(
            f"`{safe(weights.path)}` does not fit {type(model).__name__}: "
            + "; ".join(_cut(problems, _SHOWN)),
            "`cnndsl weights MODEL --from STATE.safetensors` finds out what belongs where",
            "to let a layer begin anew: `cnndsl train … --fresh fc`, cnndsl.load(…, fresh=['fc'])",
        )
    tensors = weights.tensors(n for n in names if n in weights.forms)
    _refuse_bad(weights, model, {name: name for name in tensors}, tensors)
    model.load_state_dict(tensors, strict=False)
    if takes_bytes(model):
        tell_scaling(model, weights.scaling)


def unsaid(wanted: Iterable[str], weights: Weights) -> frozenset[str]:
    """The tensors that scale a model's bytes, where the file has none of them."""
    return frozenset(name for name in wanted if name in NAMES and name not in weights.forms)


def tell(model: nn.Module, **facts: tuple[object, ...]) -> None:
    """Keep facts with a model, as attributes."""
    for name, value in facts.items():
        setattr(model, name, value)


def fitted(model: nn.Module, weights: Weights, found: Match) -> dict[str, Tensor]:
    """What was matched, under the names and with the shapes and types of the model.

    `WeightsError` for numbers that no network can compute with.
    """
    state = cast("Mapping[str, Tensor]", model.state_dict())
    sources = found.sources
    read_ = weights.tensors(sources.values())
    _refuse_bad(weights, model, sources, read_)
    tensors = {
        name: read_[source].to(state[name].dtype).reshape(state[name].shape).contiguous()
        for name, source in sources.items()
    }
    tensors |= {n: torch.zeros((), dtype=state[n].dtype) for n in found.counters}
    return {n: tensors[n] for n in state if n in tensors}


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    scaling: Scaling | None,
) -> None:
    """Write tensors, in their order, with how images are scaled for them; in one step."""
    metadata = {_WRITER[0]: _WRITER[1], "format": "pt", _ORDER: "\n".join(tensors)}
    if scaling is not None:
        metadata |= {"mean": _numbers(scaling.mean), "deviation": _numbers(scaling.deviation)}
    with output.replacing(path) as file:
        try:
            _save_file(dict(tensors), str(file), metadata)
        except SafetensorError as error:  # a full disk, for example
            raise OSError(EIO, str(error), os.fspath(path)) from error


def _refuse_bad(
    weights: Weights, model: nn.Module, sources: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> None:
    state = cast("Mapping[str, Tensor]", model.state_dict())
    dtypes = {theirs: state[ours].dtype for ours, theirs in sources.items()}
    refuse_bad_values(f"`{safe(weights.path)}`", tensors, dtypes)


def _problems(wanted: Mapping[str, Form], weights: Weights, kept: frozenset[str]) -> list[str]:
    """What stands in the way, a line each."""
    found: list[str] = []
    for name, form in wanted.items():
        given = weights.forms.get(name)
        if given is None and not name.endswith(COUNTER):
            found.append(f"it has no `{safe(name)}`")
        elif given is not None and given != form:
            found.append(f"its `{safe(name)}` is {given}, where the model has {form}")
    strangers = [n for n in weights.forms if n not in wanted and n not in kept]
    return found + [f"the model has no `{safe(name)}`" for name in strangers]


def below(names: Iterable[str], labels: Sequence[str]) -> frozenset[str]:
    """The names below these labels; `WeightsError` for a label that there is not."""
    names = tuple(names)
    found: set[str] = set()
    for label in labels:
        inside = [name for name in names if f"{name}.".startswith(f"{label}.")]
        if not inside:
            layers = dict.fromkeys(name.rpartition(".")[0] for name in names)
            raise WeightsError(
                f"the model has no layer `{safe(label)}` with weights",
                f"it has: {', '.join(_cut(list(layers), _SHOWN))}",
            )
        found.update(inside)
    return frozenset(found)


def _cut(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"… and {len(lines) - most} more"]


def _scaling(path: Path, metadata: Mapping[str, str]) -> Scaling | None:
    if "mean" not in metadata or "deviation" not in metadata:
        return None
    try:
        mean, deviation = (
            tuple(float(v) for v in metadata[key].split(",")) for key in ("mean", "deviation")
        )
    except ValueError as error:
        raise WeightsError(f"`{safe(path)}`: mean and deviation are not numbers") from error
    return Scaling(mean, deviation)


def _numbers(values: Iterable[float]) -> str:
    return ",".join(map(repr, values))


def _opened(path: Path) -> Any:  # noqa: ANN401 (safetensors has no types)
    """The file, open; `WeightsError` in plain words if it cannot be."""
    name = safe(path)
    start = b""
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise WeightsError(  # to open a pipe would wait for ever
                f"`{name}` is a device or a pipe, and weights are read from a file",
                "save them to a file first",
            )
        with path.open("rb") as file:
            start = file.read(4)
        return safe_open(str(path), framework="pt")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise WeightsError(f"there is no file `{name}`", "check the path") from error
    except IsADirectoryError as error:
        raise WeightsError(
            f"`{name}` is a folder", "weights are a file: `STATE.safetensors`"
        ) from error
    except SafetensorError as error:
        if start.startswith(_PICKLES):
            # The command is copied into a shell, so no name may mean anything there.
            old = path if re.fullmatch(r"[\w./+@,:=-]+", str(path)) else Path("STATE.pth")
            code = _CONVERSION.format(old=str(old), new=str(old.with_suffix(".safetensors")))
            raise WeightsError(
                f"`{name}` is a pickle, which can hold code that runs when it is read",
                f'convert it once, where you trust it: python -c "{code}"',
            ) from error
        what = f"is not a whole safetensors file: {safe(error)}" if start else "is empty"
        raise WeightsError(f"`{name}` {what}", "fetch it or save it again") from error
