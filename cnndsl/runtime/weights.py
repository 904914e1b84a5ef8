"""Weights in safetensors files: read for a model, and written under the names of its layers.

Nothing in such a file can run code. A pickle (`.pth`, `.pt`) can, so none is read: a message says
how to convert it. Knows tensors and files; which tensor goes where is for `matching`.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cnndsl.record import Record
from cnndsl.runtime.errors import WeightsError
from cnndsl.runtime.matching import COUNTER, Form, Match, natural
from cnndsl.runtime.scaling import NAMES, Scaling, takes_bytes, tell_scaling

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


def read(path: str | os.PathLike[str]) -> Weights:
    """What is in a file; `WeightsError` if it is none of weights."""
    path = Path(path)
    with _opened(path) as file:
        metadata: dict[str, str] = file.metadata() or {}
        forms: dict[str, Form] = {}
        for name in cast("list[str]", file.offset_keys()):
            part = file.get_slice(name)
            kind = str(part.get_dtype())
            forms[name] = Form(tuple(part.get_shape()), kind.startswith(("F", "BF")))
    told = metadata.get(_ORDER, "").split("\n")
    is_told = sorted(told) == sorted(forms)
    names = told if is_told else sorted(forms, key=natural)
    return Weights(path, {n: forms[n] for n in names}, is_told, _scaling(path, metadata))


def forms_of(model: nn.Module) -> dict[str, Form]:
    """What a model wants: all that is in its state, in order."""
    state = cast("Mapping[str, Tensor]", model.state_dict())
    return {n: Form(tuple(t.shape), t.dtype.is_floating_point) for n, t in state.items()}


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
            f"`{weights.path}` does not fit {type(model).__name__}: "
            + "; ".join(_cut(problems, _SHOWN)),
            "`cnndsl weights MODEL --from STATE.safetensors` finds out what belongs where",
            "to let a layer begin anew: `cnndsl train … --fresh fc`, cnndsl.load(…, fresh=['fc'])",
        )
    tensors = weights.tensors(n for n in names if n in weights.forms)
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


def write(
    path: str | os.PathLike[str],
    model: nn.Module,
    weights: Weights,
    found: Match,
    scaling: Scaling | None,
) -> None:
    """Write what was matched, under the names and with the types of the model; in one step."""
    state = cast("Mapping[str, Tensor]", model.state_dict())
    sources = found.sources
    read_ = weights.tensors(sources.values())
    tensors = {n: read_[t].to(state[n].dtype).contiguous() for n, t in sources.items()}
    tensors |= {n: torch.zeros((), dtype=state[n].dtype) for n in found.counters}
    tensors = {n: tensors[n] for n in state if n in tensors}
    metadata = {"format": "pt", _ORDER: "\n".join(tensors)}
    used = scaling or weights.scaling
    if used is not None:
        metadata |= {"mean": _numbers(used.mean), "deviation": _numbers(used.deviation)}
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(descriptor)
    try:
        _save_file(tensors, temporary, metadata)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _problems(wanted: Mapping[str, Form], weights: Weights, kept: frozenset[str]) -> list[str]:
    """What stands in the way, a line each."""
    found: list[str] = []
    for name, form in wanted.items():
        given = weights.forms.get(name)
        if given is None and not name.endswith(COUNTER):
            found.append(f"it has no `{name}`")
        elif given is not None and given != form:
            found.append(f"its `{name}` is {given}, where the model has {form}")
    strangers = [n for n in weights.forms if n not in wanted and n not in kept]
    return found + [f"the model has no `{name}`" for name in strangers]


def below(names: Iterable[str], labels: Sequence[str]) -> frozenset[str]:
    """The names below these labels; `WeightsError` for a label that there is not."""
    names = tuple(names)
    found: set[str] = set()
    for label in labels:
        inside = [name for name in names if f"{name}.".startswith(f"{label}.")]
        if not inside:
            layers = dict.fromkeys(name.rpartition(".")[0] for name in names)
            raise WeightsError(
                f"the model has no layer `{label}` with weights",
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
        raise WeightsError(f"`{path}`: mean and deviation are no numbers") from error
    return Scaling(mean, deviation)


def _numbers(values: Iterable[float]) -> str:
    return ",".join(map(repr, values))


def _opened(path: Path) -> Any:  # noqa: ANN401 (safetensors has no types)
    """The file, open; `WeightsError` in plain words if it cannot be."""
    start = b""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        return safe_open(str(path), framework="pt")
    except FileNotFoundError as error:
        raise WeightsError(f"there is no file `{path}`", "check the path") from error
    except IsADirectoryError as error:
        raise WeightsError(
            f"`{path}` is a folder", "weights are a file: `STATE.safetensors`"
        ) from error
    except SafetensorError as error:
        if start.startswith(_PICKLES):
            new = str(path.with_suffix(".safetensors"))
            code = _CONVERSION.format(old=str(path), new=new)
            raise WeightsError(
                f"`{path}` is a pickle, which can hold code that runs when it is read",
                f'convert it once, where you trust it: python -c "{code}"',
            ) from error
        raise WeightsError(
            f"`{path}` is no whole safetensors file: {error}", "fetch or save it anew"
        ) from error
