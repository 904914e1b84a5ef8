"""Names in the emitted file: what a label becomes where Python or PyTorch already uses its name.

A label keeps its name wherever it can, so that published weights load. Else it gets `_` behind it,
or `layer` in front where it begins with `_`, which Python and PyTorch keep for themselves.
"""

import builtins
import keyword
import re
from collections.abc import Iterable, Mapping

from cnndsl.record import Record

# What `torch.nn.Module` and `torch.nn.ModuleDict` call their own; this file may not import torch. A
# test compares the list with theirs.
_TORCH = """
    T_destination add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda
    double dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter
    get_submodule half ipu items keys load_state_dict modules mtia named_buffers named_children
    named_modules named_parameters parameters pop register_backward_hook register_buffer
    register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
    set_submodule share_memory state_dict to to_empty train training type update values xpu
    zero_grad
"""
MODULE_NAMES = frozenset(_TORCH.split())
# What the emitted class defines itself.
OWN_NAMES = frozenset(
    {"classes", "dynamic_shapes"}
    | {"input_deviation", "input_dtype", "input_mean", "input_shape"}
    | {"logits", "loss", "outputs"}
)
KEYWORDS = frozenset(keyword.kwlist) | frozenset(keyword.softkwlist)
BUILTINS = frozenset(dir(builtins))

_WORD = re.compile(r"[A-Za-z0-9_]+")


class Names:
    """Gives each name once."""

    __slots__ = ("_taken",)

    def __init__(self, taken: Iterable[str]) -> None:
        """`taken` are names that must not be given."""
        self._taken = set(taken)

    @property
    def taken(self) -> frozenset[str]:
        """All names that are given or must not be."""
        return frozenset(self._taken)

    def give(self, wanted: str) -> str:
        """The name itself, or the nearest to it that is free and an identifier."""
        return self._free(identifier(wanted))

    def give_key(self, wanted: str) -> str:
        """The same for a key of a `ModuleDict`, which may be a number."""
        return self._free(wanted if wanted.isdigit() else identifier(wanted))

    def _free(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def identifier(text: str) -> str:
    """An ASCII identifier for any text: what is itself one stays, unless it begins with `_`."""
    name = "_".join(_WORD.findall(text))
    return f"layer{name}" if not name or name[0] == "_" or name[0].isdigit() else name


def joined(paths: Iterable[str]) -> str:
    """One name for several layers: their paths, with what all have in common said once."""
    parts = [path.split(".") for path in paths]
    shared = 0
    while all(len(p) > shared + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    rest = ["_".join(p[shared:]) for p in parts]
    return "_".join([*parts[0][:shared], *rest])


class Place(Record):
    """Where a module hangs in the network: `keys` from the root."""

    keys: tuple[str, ...]

    def expression(self, depth: int = 0) -> str:
        """Python that reads it: `self.conv1`, or `self.layer1["0"]["conv1"]`.

        In a block, where `depth` keys lead from the root, it is `self["conv1"]`.
        """
        first = "" if depth else f".{self.keys[0]}"
        return f"self{first}" + "".join(f'["{key}"]' for key in self.keys[depth or 1 :])


def places(paths: Iterable[str]) -> dict[str, Place]:
    """Where the modules of these paths hang: dotted paths lie in modules within modules."""
    paths = tuple(paths)
    scopes: dict[tuple[str, ...], Names] = {(): Names(MODULE_NAMES | OWN_NAMES | KEYWORDS)}
    given: dict[tuple[tuple[str, ...], str, bool], str] = {}
    found: dict[str, Place] = {}
    # Leaves first: a published file of weights has their names.
    for path in sorted(paths, key=lambda p: (p.count("."), paths.index(p))):
        keys: tuple[str, ...] = ()
        words = path.split(".")
        for depth, word in enumerate(words):
            is_leaf = depth == len(words) - 1
            scope = scopes.setdefault(keys, Names(MODULE_NAMES))
            known = given.get((keys, word, is_leaf))
            if known is None:
                known = scope.give_key(word) if keys else scope.give(word)
                given[keys, word, is_leaf] = known
            keys = (*keys, known)
        found[path] = Place(keys)
    return {path: found[path] for path in paths}


def branches(hung: Mapping[str, Place]) -> dict[tuple[str, ...], Place]:
    """Where that hangs which holds others, by the words of its label."""
    found: dict[tuple[str, ...], Place] = {}
    for path, place in hung.items():
        words = tuple(path.split("."))
        for depth in range(1, len(words)):
            found.setdefault(words[:depth], Place(place.keys[:depth]))
    return found


def class_name(words: Iterable[str], taken: Iterable[str]) -> str:
    """The name of the class of a block: `Layer1Block0` for `layer1.0`."""
    parts = [f"Block{word}" if word.isdigit() else identifier(word) for word in words]
    name = "".join(part[:1].upper() + part[1:] for text in parts for part in text.split("_"))
    known, found, number = set(taken), name, 1
    while found in known:
        number += 1
        found = f"{name}Form{number}"
    return found
