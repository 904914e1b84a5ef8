"""The whole emitted file, from a checked network: what stands in it, and in which order.

    text = emit(graph, source).text

The same network and version give the same bytes. Nothing from the source gets into the text but
names that are identifiers, strings as literals, and numbers.
"""

import ast
import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import metadata

from cnndsl.emit import imports, kernels, layout, network, region, splice
from cnndsl.emit.fit import fit
from cnndsl.emit.guard import inspect
from cnndsl.emit.jobs import Signature, families, jobs
from cnndsl.emit.names import BUILTINS, KEYWORDS, Names, identifier, joined
from cnndsl.emit.prune import prune
from cnndsl.emit.region import Section, Use
from cnndsl.emit.share import Library, Taken
from cnndsl.fuse.choices import NONE, Choices, pinned
from cnndsl.fuse.regions import Region, alone, parts
from cnndsl.graph.graph import Graph
from cnndsl.layers.regularise import Scale
from cnndsl.layers.types import ImageType, show
from cnndsl.record import Record
from cnndsl.source import Source

LOSS, IMAGE = "loss.py", "image.py"
SCALE = "scale.py"  # the one layer with weights that PyTorch has no module for
# What every network needs. `network` and `region` write code with these names.
_BASE = "import torch\nimport torch.nn.functional as F\nfrom torch import Tensor, nn\n"
_BASE_NAMES = frozenset(
    {"F", "NAMESPACE", "Tensor", "nn", "refuse_input", "self", "torch", "x", "y"}
    | {"cross_entropy", "cross_entropy_op", "scaled", "scaled_op"}
)


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


def emit(graph: Graph, source: Source, choices: Choices = NONE, *, fused: bool = True) -> Written:
    """Write the module of a network that was checked.

    `choices` are what was measured for its regions; `ChoicesError` where they are for others.
    Without `fused` each layer is PyTorch's operator: what ours is measured against.
    """
    found = pinned(parts(graph), choices) if fused else alone(graph)
    regions = [part for part in found if isinstance(part, Region)]
    files = _files(regions, takes_bytes=graph.takes_bytes)
    if any(isinstance(node.layer, Scale) for node in graph.nodes):
        files[SCALE] = kernels.read(SCALE)
    texts = _kernel_texts(regions)
    names = Names(_BASE_NAMES | BUILTINS | KEYWORDS | _words([*texts.values(), *files.values()]))
    name = names.give(identifier(graph.name))
    sections = _sections(regions, files, texts, names)
    body = [region.write(section) for section in sections]
    if graph.takes_bytes:
        body.insert(0, _images(files.get(IMAGE), is_image=isinstance(graph.source, ImageType)))
    if regions and network.takes_classes(graph):
        body.append(_loss(files[LOSS]))
    class_ = network.network(graph, found, sections, name, names.taken)
    body.append(_network(graph, name, class_, files.get(SCALE)))
    body = [*_shared(regions, files, body), *body]
    text = _file(graph, source, name, body, [_BASE, *files.values()])
    inspect(text)
    return Written(text, name)


def emit_region(part: Region) -> WrittenRegion:
    """Write one region without a network around it, to try it out."""
    files, texts = _files([part]), _kernel_texts([part])
    names = Names(_BASE_NAMES | BUILTINS | KEYWORDS | _words([*texts.values(), *files.values()]))
    (section,) = _sections([part], files, texts, names)
    body = [region.write(section)]
    body = [*_shared([part], files, body), *body]
    title = f'"""Region {section.function}, alone."""'
    text = _with_head(title, section.function, body, [_BASE, *files.values()])
    inspect(text)
    operators = tuple(
        (u.job.role, Operator(u.operator, u.geometry, f"{u.job.signature.name}_launches"))
        for u in section.uses
    )
    return WrittenRegion(text, section.function, operators)


# ── kernels ──────────────────────────────────────────────────────────────────────────────────────


def _files(regions: Sequence[Region], *, takes_bytes: bool = False) -> dict[str, str]:
    """The texts of the files of kernels/ that these regions need, in the order of their use."""
    if not regions:
        return {n: kernels.read(n) for n in kernels.AROUND} if takes_bytes else {}
    found = families(regions)
    names = [*kernels.AROUND, *kernels.SHARED, LOSS]
    names += [IMAGE] if takes_bytes else []
    names += [name for kind in found for name in kernels.OPERATORS[kind]]
    names += [name for kind in found for name in kernels.KERNELS[kind]]
    return {name: kernels.read(name) for name in names}


def _kernel_texts(regions: Sequence[Region]) -> dict[Signature, str]:
    """The kernels of each signature, under names of its own."""
    loose: dict[Signature, frozenset[str]] = {}
    for job in (job for part in regions for job in jobs(part)):
        loose[job.signature] = loose.get(job.signature, frozenset()) | job.loose
    return {
        own: kernels.specialised(
            "\n\n".join(kernels.read(name) for name in kernels.KERNELS[own.family]),
            own,
            sizes,
        )
        for own, sizes in loose.items()
    }


def _sections(
    regions: Sequence[Region],
    files: dict[str, str],
    texts: dict[Signature, str],
    names: Names,
) -> list[Section]:
    """The regions with their names; the first that needs a kernel shows it."""
    library = Library()
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
            own = job.signature
            new = Taken("", {}, frozenset())
            defined = set(splice.definitions(texts[own]))
            for name in kernels.KERNELS[own.family]:
                # Of a file from which nothing is taken there is nothing to explain.
                if name not in explained and defined & set(splice.definitions(files[name])):
                    explained.add(name)
                    about.append(splice.docstring(files[name]))
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


def _shared(regions: Sequence[Region], files: dict[str, str], body: Sequence[str]) -> list[str]:
    """What the sections use together, without what no region needs."""
    found: list[str] = []
    users = list(body)
    operators = [name for kind in families(regions) for name in kernels.OPERATORS[kind]]
    for name in [*reversed(operators), *reversed(kernels.SHARED), *reversed(kernels.AROUND)]:
        if name not in files:
            continue
        text, _ = splice.bare(files[name])
        if name in operators:
            switches = _common_switches(regions, name)
            text = splice.settle(text, switches)
            if switches.get("geometry.tiles") is False:
                text = splice.without_field(text, "tiles")
            if switches.get("geometry.pixels") == 1:
                text = splice.without_field(splice.without_field(text, "size"), "pixels")
        roots = _words(users)
        text = prune(text, [n for n in splice.definitions(text) if n in roots])
        if text.strip():
            found.insert(0, text)
            users.append(text)
    title = layout.banner("what all regions share")
    return [title, *found] if found else []


def _images(text: str | None, *, is_image: bool) -> str:
    """The section that scales images of bytes: its kernel, if there is one, and how it runs."""
    of_channels = ".view(-1, 1, 1)" if is_image else ""
    lines = [
        '"""Put bytes x as (x / 255 − mean) / deviation, a channel each."""',
        f"shift = 255 * widened(mean){of_channels}",
        f"factor = 255 * widened(deviation){of_channels}",
        "return ((x - shift) / factor).to(mean.dtype)",
    ]
    title, kernel = layout.banner("the images"), list[str]()
    if text is not None:
        bare, _ = splice.bare(text)
        title += "\n" + layout.comment(region.paragraphs(splice.docstring(text)))
        kernel = [prune(bare, ["image_op"]), 'scaled_op = image_op(f"{NAMESPACE}::scaled")\n']
        lines[1:1] = [
            "if runs_kernels(mean) and not needs_operators(x):",
            "    return scaled_op(x, mean, deviation)",
        ]
    parameters = ["x: Tensor", "mean: Tensor", "deviation: Tensor"]
    return layout.blocks(
        [title, *kernel, layout.function("def scaled", parameters, "Tensor", lines)]
    )


def _loss(text: str) -> str:
    """The section of the loss: its kernels, its operator, and how it runs."""
    bare, _ = splice.bare(text)
    about = layout.comment(region.paragraphs(splice.docstring(text)))
    return layout.blocks(
        [
            "\n".join([layout.banner("the loss"), about]),
            prune(bare, ["loss_op"]),
            'cross_entropy_op = loss_op(f"{NAMESPACE}::cross_entropy")\n',
            layout.function(
                "def cross_entropy", ["logits: Tensor", "target: Tensor"], "Tensor", _CROSS_ENTROPY
            ),
        ]
    )


_CROSS_ENTROPY = (
    '"""Mean cross-entropy: one kernel each way on a GPU, PyTorch\'s operators elsewhere."""',
    "if runs_kernels(logits) and not target.is_floating_point():",
    "    return cross_entropy_op(logits, target)",
    "return F.cross_entropy(logits, target)",
)


def _common_switches(regions: Sequence[Region], operators: str) -> dict[str, object]:
    """The switches that have one value in all regions of a family."""
    values: dict[str, set[object]] = {}
    for own in (job.signature for part in regions for job in jobs(part)):
        if operators in kernels.OPERATORS[own.family]:
            for name, value in own.switches:
                values.setdefault(f"geometry.{name}", set()).add(value)
    return {name: next(iter(found)) for name, found in values.items() if len(found) == 1}


def _words(texts: Iterable[str]) -> frozenset[str]:
    """All names in these texts."""
    return frozenset[str]().union(*(_words_of(text) for text in texts))


@lru_cache(maxsize=256)
def _words_of(text: str) -> frozenset[str]:
    names = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
    return frozenset(names.union(splice.definitions(text)))


# ── the file ─────────────────────────────────────────────────────────────────────────────────────


def _network(graph: Graph, name: str, text: str, scale: str | None) -> str:
    """The last section: what the network takes, the layer that PyTorch lacks, and the class."""
    title = layout.banner("the network")
    layers = [] if scale is None else [splice.bare(scale)[0]]
    return layout.blocks([title, network.check(graph, name), *layers, text])


def _file(
    graph: Graph, source: Source, name: str, body: Sequence[str], texts: Iterable[str]
) -> str:
    version = _version()
    title = f'"""{_docstring(graph, source, name, version)}\n"""'
    return _with_head(title, name, body, texts, "\n".join([version, graph.name, source.text]))


def _with_head(
    title: str, name: str, body: Sequence[str], texts: Iterable[str], origin: str = ""
) -> str:
    """The file below its docstring: imports, the name of its operators, and the body."""
    written = fit(layout.blocks(body))
    digest = hashlib.sha256(f"{origin}\n{written}".encode()).hexdigest()
    head = f"{title}\n\n"
    used = {n.id for n in ast.walk(ast.parse(written)) if isinstance(n, ast.Name)}
    found = [statement for text in texts for statement in imports.statements(text)]
    head += imports.write([s for s in found if not splice.is_own(s)], used) + "\n"
    if "NAMESPACE" in used:
        space = f"cnndsl_{name.lower()}_{digest[:12]}"
        head += "\n# Of this module's operators in PyTorch, so that two modules never meet.\n"
        head += f"NAMESPACE = {layout.literal(space)}\n\n"
    return f"{head}\n{written}"


def _docstring(graph: Graph, source: Source, name: str, version: str) -> str:
    digest = hashlib.sha256(source.text.encode()).hexdigest()
    valid = f"valid where {graph.valid}" if graph.symbols else "valid for this size of image only"
    made = f"Made by cnndsl {version} from a source with this SHA-256; {valid}."
    lines = [
        f"{name}, a convolutional network: {show(graph.source)} to {network.outcome(graph)}.",
        "",
        *layout.folded(made),
        digest,
        "",
        "It needs torch and triton. A region is a few layers in a row that one kernel computes",
        "forward, and a few kernels backward. They run on CUDA, and in Triton's interpreter where",
        "TRITON_INTERPRET=1 is set before the import; elsewhere the layers run as PyTorch's",
        "operators. To see how, begin with the function at the end of a region.",
    ]
    return "\n".join(lines)


def _version() -> str:
    try:
        return metadata.version("cnndsl")
    except metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"
