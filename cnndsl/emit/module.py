"""The whole emitted file, from a checked network: what stands in it, and in which order.

    text = emit(graph, source).text

The same network and version give the same bytes. Nothing from the source gets into the text but
names that are identifiers, strings as literals, and numbers.
"""

import hashlib
from collections.abc import Mapping, Sequence
from importlib import metadata

from cnndsl.emit import imports, kernels, layout, network, region, shared, splice
from cnndsl.emit.fit import fit
from cnndsl.emit.guard import inspect
from cnndsl.emit.jobs import Family, Signature, families, jobs
from cnndsl.emit.merge import merged
from cnndsl.emit.names import BUILTINS, KEYWORDS, Names, identifier, joined
from cnndsl.emit.region import Section, Use
from cnndsl.emit.share import Library, Taken
from cnndsl.fuse.choices import NONE, Choices, pinned
from cnndsl.fuse.regions import Region, alone, parts
from cnndsl.graph.graph import Graph
from cnndsl.layers.types import show
from cnndsl.record import Record
from cnndsl.source import Source

# What every network needs. `network` and `region` write code with these names.
_BASE = """\
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
"""
_BASE_NAMES = frozenset(
    {"F", "NAMESPACE", "Tensor", "nn", "partial", "refuse_input", "self", "torch", "x", "y"}
    | {"cross_entropy", "cross_entropy_op", "scaled", "scaled_op"}
)


# The text that programs share stands behind what it is written in.
_ANNOTATIONS = "from __future__ import annotations\n"


class Written(Record):
    """An emitted file: its text, and the name of the class in it."""

    text: str
    name: str


class Operator(Record):
    """By what the emitted text calls an operator: its function, geometry, and launches."""

    function: str
    geometry: str
    launches: str


class WrittenRegion(Record):
    """The emitted section of one region: its text, its function, its operators by their roles."""

    text: str
    name: str
    operators: tuple[tuple[str, Operator], ...]


def unbound(graph: Graph) -> tuple[str, ...]:
    """The symbols that no input tells: params that need a value before anything is emitted."""
    sizes = {str(dim) for dim in graph.source.dims}
    return tuple(symbol for symbol in graph.symbols if symbol not in sizes)


def emit(
    graph: Graph,
    source: Source,
    choices: Choices = NONE,
    *,
    fused: bool = True,
    standalone: bool = False,
) -> Written:
    """Write the module of a network that was checked.

    `choices` are what was measured for its regions; `ChoicesError` where they are for others.
    Without `fused` each layer is PyTorch's operator: what ours is measured against. What programs
    share is imported from cnndsl.rt; a file that is `standalone` holds it.
    """
    found = pinned(parts(graph), choices) if fused else alone(graph)
    regions = [part for part in found if isinstance(part, Region)]
    texts = _kernel_texts(regions)
    files = _files(regions)
    if standalone:
        files += [_ANNOTATIONS, *(shared.read(n) for n in shared.files(families(regions)))]
    names = _names(texts, files)
    name = names.give(identifier(graph.name))
    sections = _sections(regions, texts, names)
    class_ = network.network(graph, found, sections, name, names.taken)
    body = [layout.blocks([class_, network.check(graph, name)])]
    body += [region.write(section, bound=not standalone) for section in sections]
    if standalone:
        bound = [region.bindings(section) for section in sections]
        more = shared.text(_switches(regions), [*body, *bound])
        body = [body[0], *shared.early([*body, *more]), *body[1:], *more, *_bound(bound)]
    version = _version()
    title = f'"""{_docstring(graph, source, name, version, standalone=standalone)}\n"""'
    text = _with_head(title, name, body, files, "\n".join([version, graph.name, source.text]))
    inspect(text)
    return Written(text, name)


def emit_region(part: Region) -> WrittenRegion:
    """Write one region without a network around it, to try it out."""
    texts = _kernel_texts([part])
    names = _names(texts)
    (section,) = _sections([part], texts, names)
    title = f'"""Region {section.function}, alone."""'
    text = _with_head(title, section.function, [region.write(section)], _files([part]))
    inspect(text)
    operators = tuple(
        (u.job.role, Operator(u.operator, u.geometry, f"{u.job.signature.name}_launches"))
        for u in section.uses
    )
    return WrittenRegion(text, section.function, operators)


# ── kernels ──────────────────────────────────────────────────────────────────────────────────────


def _files(regions: Sequence[Region]) -> list[str]:
    """The texts of the files of kernels/ that these regions need."""
    return [kernels.read(n) for family in families(regions) for n in kernels.KERNELS[family]]


def _bound(texts: Sequence[str]) -> list[str]:
    """The last section of a file that stands alone."""
    title = layout.banner("the regions' operators, made of all this")
    return ["\n".join([title, *texts])] if texts else []


def _kernel_texts(regions: Sequence[Region]) -> dict[Signature, str]:
    """The kernels of each signature, under names of its own."""
    loose: dict[Signature, frozenset[str]] = {}
    whole = _merged(regions)
    for job in (job for part in regions for job in jobs(part)):
        own = whole[job.signature]
        loose[own] = loose.get(own, frozenset()) | job.loose
    return {
        own: kernels.specialised(
            "\n\n".join(kernels.read(name) for name in kernels.KERNELS[own.family]),
            own,
            sizes,
        )
        for own, sizes in loose.items()
    }


def _merged(regions: Sequence[Region]) -> dict[Signature, Signature]:
    return merged(job.signature for part in regions for job in jobs(part))


def _sections(
    regions: Sequence[Region], texts: Mapping[Signature, str], names: Names
) -> list[Section]:
    """The regions with their names; the first that needs a kernel shows it."""
    library = Library()
    whole = _merged(regions)
    shown: dict[Signature, tuple[int, str]] = {}
    sections: list[Section] = []
    explained: set[str] = set()
    forms: dict[tuple[object, ...], list[tuple[int, Region]]] = {}
    for number, part in enumerate(regions, 1):
        forms.setdefault(region.form(part), []).append((number, part))
    for (number, part), *same in forms.values():
        function = _function(names, joined(node.path for node in part.nodes))
        uses: list[Use] = []
        about: list[str] = []
        for job in jobs(part):
            own = whole[job.signature]
            new = Taken("", {}, frozenset())
            defined = set(splice.definitions(texts[own]))
            for name in kernels.KERNELS[own.family]:
                # Of a file from which nothing is taken there is nothing to explain.
                file = kernels.read(name)
                if name not in explained and defined & set(splice.definitions(file)):
                    explained.add(name)
                    about.append(splice.docstring(file))
            if own not in shown:
                prefix = _free_prefix(own.name, [name for _, name in shown.values()])
                shown[own] = (number, prefix)
                new = library.take(texts[own], f"{own.family}_", prefix, number)
            shown_in, prefix = shown[own]
            name = function + region.SUFFIXES[job.role]
            uses.append(
                Use(
                    job.replace(signature=own.replace(name=prefix)),
                    name,
                    names.give(f"{name}_op"),
                    names.give(name.upper()),
                    new,
                    new.regions | {shown_in} - {number},
                    names.give(f"{name.upper()}_TILES") if job.tiles else "",
                )
            )
        text = "\n\n".join(about)
        sections.append(Section(number, part, function, tuple(uses), text, tuple(same)))
    return sections


def _function(names: Names, wanted: str) -> str:
    """A name for the function of a region, from which its operators have theirs."""
    wanted = identifier(wanted)
    while any(f"{wanted}{suffix}" in names.taken for suffix in region.OPERATORS):
        wanted += "_"
    for suffix in region.OPERATORS:
        names.give(f"{wanted}{suffix}")
    return wanted


def _free_prefix(wanted: str, taken: Sequence[str]) -> str:
    number, name = 1, wanted
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def _switches(regions: Sequence[Region]) -> dict[Family, dict[str, object]]:
    """For each family the switches that have one value in all regions."""
    values: dict[Family, dict[str, set[object]]] = {}
    for own in (job.signature for part in regions for job in jobs(part)):
        for name, value in own.switches:
            found = values.setdefault(own.family, {}).setdefault(f"geometry.{name}", set())
            found.add(value)
    return {
        family: {name: next(iter(v)) for name, v in found.items() if len(v) == 1}
        for family, found in values.items()
    }


def _names(texts: Mapping[Signature, str], more: Sequence[str] = ()) -> Names:
    """The names that are free in a file with these kernels, and more."""
    own = splice.words([*texts.values(), *more])
    return Names(_BASE_NAMES | BUILTINS | KEYWORDS | shared.names() | own)


# ── the file ─────────────────────────────────────────────────────────────────────────────────────


def _with_head(
    title: str, name: str, body: Sequence[str], files: Sequence[str], origin: str = ""
) -> str:
    """The file below its docstring: imports, the name of its operators, and the body.

    `files` are the texts whose imports the body may need.
    """
    written = fit(layout.blocks(body))
    digest = hashlib.sha256(f"{origin}\n{written}".encode()).hexdigest()
    used = splice.read_names(written)
    found = [s for text in (_BASE, *files) for s in imports.statements(text)]
    found = [s for s in found if not splice.is_own(s)]
    package = shared.statement(used - set(splice.definitions(written)))
    used |= {"annotations", *(alias.name for alias in package.names)}
    head = [title, "", imports.write([*found, package], used), ""]
    if package.names:
        head += [f"requires({shared.VERSION})  # the version of {shared.PACKAGE}", ""]
    if "NAMESPACE" in used:
        space = f"cnndsl_{name.lower()}_{digest[:12]}"
        head += ["# Of this module's operators in PyTorch, so that two modules never meet."]
        head += [f"NAMESPACE = {layout.literal(space)}", ""]
    return "\n".join([*head, "", written])


def _docstring(graph: Graph, source: Source, name: str, version: str, *, standalone: bool) -> str:
    digest = hashlib.sha256(source.text.encode()).hexdigest()
    valid = f"valid where {graph.valid}" if graph.symbols else "valid for this size of image only"
    made = f"Made by cnndsl {version} from a source with this SHA-256; {valid}."
    needs = "torch and triton" if standalone else "torch, triton and cnndsl"
    lines = [
        f"{name}, a convolutional network: {show(graph.source)} to {network.outcome(graph)}.",
        "",
        *layout.folded(made),
        digest,
        "",
        f"It needs {needs}. A region is a few layers in a row that one kernel",
        "computes forward, and a few kernels backward. They run on CUDA, and in Triton's",
        "interpreter where TRITON_INTERPRET=1 is set before the import; elsewhere the layers run",
        "as PyTorch's operators. To see how, begin with the function at the end of a region.",
    ]
    return "\n".join(lines)


def _version() -> str:
    try:
        return metadata.version("cnndsl")
    except metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"
