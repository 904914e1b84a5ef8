"""The section of one region: what it computes, its kernels, its operator, and how it runs.

Knows how a section reads; the kernels' text comes from `kernels`.
"""

from collections.abc import Iterable, Sequence

from cnndsl.emit import kernels, layout
from cnndsl.emit.jobs import Job, family
from cnndsl.emit.share import Taken
from cnndsl.fuse.choices import title
from cnndsl.fuse.pins import Tile
from cnndsl.fuse.plan import plan
from cnndsl.fuse.regions import Region, is_maximum
from cnndsl.graph.graph import INPUT, Node
from cnndsl.layers.activations import Relu
from cnndsl.layers.types import ImageType, show
from cnndsl.record import Record

# By what the code of a region calls the module that holds a layer's weights.
MODULES = {"conv": ("conv", "nn.Conv2d"), "fc": ("linear", "nn.Linear")}
NORM = ("norm", "nn.BatchNorm2d")
# Activations that PyTorch can compute in place of what they are given.
IN_PLACE = frozenset({"relu", "relu6", "silu", "hardswish"})


# What each job of a region adds to the name of its function.
SUFFIXES = {"whole": "", "sums": "_sums", "norm": "_norm"}
# All names that the operators of a region in PyTorch may have, by what they add.
OPERATORS = (
    *("", "_backward", "_sums", "_sums_backward"),
    *("_norm", "_norm_backward", "_norm_statistics"),
)


class Use(Record):
    """A job with its names in the emitted file.

    `name` is that of its operator in PyTorch, `operator` the function that runs it, `geometry` the
    constant it is made with. `kernels` are shown here, as far as they are new; others of its
    kernels stand in the sections `elsewhere`. `tiles` is the constant with those that were
    measured, or empty.
    """

    job: Job
    name: str
    operator: str
    geometry: str
    kernels: Taken
    elsewhere: frozenset[int]
    tiles: str = ""


class Section(Record):
    """A region with its names in the emitted file.

    `function` runs it; `about` says how the kernels work, once in a file; `same` are the regions
    further on, with their numbers, that the function runs, too.
    """

    number: int
    region: Region
    function: str
    uses: tuple[Use, ...]
    about: str
    same: tuple[tuple[int, Region], ...] = ()


def write(section: Section, *, bound: bool = True) -> str:
    """The section's text; without its operators, if these are to be `bound` further down."""
    head = [layout.banner(f"region {section.number}: {title(section.region)}"), _story(section)]
    parts = ["\n".join(head)]
    for use in section.uses:
        if use.kernels.names or not kernels.launches(use.job.signature):
            parts.append(use.kernels.text)
            if bound:
                parts.append(_launches(use))
    if bound:
        parts += [f"{_geometry(use)}\n{_operator(use)}" for use in section.uses]
    parts.append(_function(section))
    return layout.blocks(parts)


def bindings(section: Section) -> str:
    """The geometries and operators of a section."""
    parts: list[str] = []
    for use in section.uses:
        if use.kernels.names or not kernels.launches(use.job.signature):
            parts.append(_launches(use))
        parts += [_geometry(use), _operator(use)]
    return "\n".join(parts)


def _launches(use: Use) -> str:
    own, names = use.job.signature, use.kernels.names
    functions = {n: names[f"{own.family}_launch_{n}"] for n in kernels.launches(own)}
    functions |= dict(own.functions)
    arguments = [f"{name}={function}" for name, function in functions.items()]
    return layout.call(f"{own.name}_launches = {own.family.capitalize()}Launches", arguments)


def functions(sections: Iterable[Section]) -> dict[str, str]:
    """The functions that run regions, by the names of the tensors that they give."""
    return {
        region.path: section.function
        for section in sections
        for region in (section.region, *(other for _, other in section.same))
    }


def form(region: Region) -> tuple[object, ...]:
    """What is equal for two regions that one function can run."""
    names = {name: f"x{index}" for index, name in enumerate(region.inputs)}
    names |= {node.path: str(index) for index, node in enumerate(region.nodes)}
    nodes = tuple(
        (node.layer, node.arrives, node.output, tuple(names[name] for name in node.inputs))
        for node in region.nodes
    )
    return (region.inputs[0] == INPUT, region.pins, *nodes)


def modules(region: Region) -> list[tuple[str, str, Node]]:
    """What holds its weights: the name of the parameter, its type, and the node."""
    name, type_ = MODULES[family(region)]
    found = [(name, type_, region.anchor)]
    if region.affine:
        found.append((*NORM, region.affine))
    return found


def _story(section: Section) -> str:
    """What the region computes, with its sizes, as a comment."""
    region = section.region
    cells = [("", f"reads {show(region.arrives)}", "")]
    for node in region.nodes:
        cells.append((node.path, node.layer.write(), show(node.output)))
        cells += [("", line, "") for line in node.layer.formula(node.arrives)]
    names = max(len(name) for name, _, _ in cells)
    what = max(len(what) for _, what, _ in cells)
    lines = [f"{a:<{names}}  {b:<{what}}  {c}".rstrip() for a, b, c in cells]
    lines += plan(region).sentences()
    lines += [f"Region {number}, {title(other)}, is the same." for number, other in section.same]
    elsewhere = sorted({number for use in section.uses for number in use.elsewhere})
    if elsewhere:
        is_new = any(use.kernels.text for use in section.uses)
        whose = "The rest of its kernels are" if is_new else "Its kernels are"
        numbers = " and ".join(str(number) for number in elsewhere)
        lines.append(f"{whose} those of region{'s' * (len(elsewhere) > 1)} {numbers}.")
    text = layout.comment(lines)
    if section.about:
        text += "\n#\n" + layout.comment(paragraphs(section.about))
    return text


def paragraphs(text: str) -> list[str]:
    """A line for each paragraph, an empty one between two."""
    found = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(found).split("\n")


def _geometry(use: Use) -> str:
    kind = f"{use.job.signature.family.capitalize()}Geometry"
    given = use.job.written_geometry()
    if not use.tiles:
        return layout.call(f"{use.geometry} = {kind}", given)
    rows = [f'    ("{t.kernel}", "{t.dtype}", {t.images}, {_tile(t.tile)}),' for t in use.job.tiles]
    lines = [f"{use.tiles} = (", f"    {_TILES}", *rows, ")"]
    text = layout.call(f"{use.geometry} = {kind}", [*given, f"tiles={use.tiles}"])
    return "\n".join([*lines, text])


_TILES = "# measured: kernel, type, images at most; rows, columns, terms a step, warps, stages"


def _tile(tile: Tile) -> str:
    return f"Tile({', '.join(map(str, tile.values()))})"


def _operator(use: Use) -> str:
    own = use.job.signature
    arguments = [f'f"{{NAMESPACE}}::{use.name}"', use.geometry, f"{own.name}_launches"]
    return layout.call(f"{use.operator} = {own.family}_op", arguments)


def _function(section: Section) -> str:
    """How the region runs: with its kernels, or with PyTorch's operators."""
    region = section.region
    held = modules(region)
    added = ["residual"] if region.merge else []
    parameters = ["x", *added]
    types = [f"{name}: Tensor" for name in parameters]
    types += [f"{name}: {type_}" for name, type_, _ in held]
    # Channels innermost once here, instead of in each kernel that reads the network's input.
    is_first = region.inputs[0] == INPUT and isinstance(region.arrives, ImageType)
    x = "channels_last(x)" if is_first else "x"
    body = [
        f'"""Run region {section.number}: its kernels on a GPU, PyTorch\'s operators elsewhere."""'
    ]
    use = section.uses[1 if region.affine else 0]
    weights = f"{use.job.signature.family}_weights({held[0][0]}, {use.geometry})"
    read = layout.spread("weight, bias = ", weights, column=8)
    body += ["if runs_kernels(x):", layout.indent(read)]
    if region.affine:
        body += _with_batchnorm(section, x, added)
    else:
        arguments = [x, "weight", "bias", *(f"{name}={name}" for name in added)]
        test = "weight is not None"
        if use.job.signature.family == "fc":
            # `fc` takes images of any rank; its kernels do not.
            test += f" and x.shape[1:] == fc_shape({use.geometry})"
        body += [f"    if {test}:", _return(use.operator, arguments, 12)]
    body += _steps(region, held)
    return layout.function(f"def {section.function}", types, "Tensor", body)


def _with_batchnorm(section: Section, x: str, added: Sequence[str]) -> list[str]:
    """The lines that run the kernels of a region with a batchnorm, in inference or in training."""
    whole, sums, norm = (use.operator for use in section.uses)
    inference = [x, "weight", "shift", "scale", *(f"{name}={name}" for name in added)]
    training = [x, "weight", "bias"]
    return [
        f"    if weight is not None and is_norm(norm, {section.uses[2].geometry}):",
        "        if takes_batch(norm):",
        layout.indent(layout.call(f"z, sums = {sums}", training, column=16), 12),
        _return(norm, ["z", "sums", "norm", *added], 16),
        "        scale, shift = scale_and_shift(norm, bias)",
        _return(whole, inference, 12),
    ]


def _return(function: str, arguments: Sequence[str], column: int) -> str:
    call = layout.call(f"return {function}", arguments, column=column)
    return layout.indent(call, column - 4)


def _steps(region: Region, held: Sequence[tuple[str, str, Node]]) -> list[str]:
    """The layers in PyTorch, a line each; see kernels/cpu.py for what a CPU does faster."""
    names = {node.path: name for name, _, node in held}
    nodes = _in_order(region)
    folds = region.affine is not None and nodes[1] is region.affine
    lines: list[str] = []
    for node in nodes:
        merged = ["residual" if name == region.residual else "x" for name in node.inputs]
        values = merged if node is region.merge else ["x"]
        call = node.layer.torch(node.arrives, names.get(node.path, ""), *values)
        if folds and node is region.anchor:
            continue
        if folds and node is region.affine:
            call = "conv_norm(x, conv, norm) if is_free else norm(conv(x))"
        elif call == "F.max_pool2d(x, 2)":
            call = "max_pool2(x)"
        elif node is region.merge:
            call = f"x.add_(residual) if is_free else {call}"
        elif node.layer.kind in IN_PLACE and region.pool is None and family(region) == "conv":
            call = f"{call[:-1]}, inplace=is_free)"
        start = "return " if node is nodes[-1] else "x = "
        lines.append(layout.spread(start, call, column=4))
    if any("is_free" in line for line in lines):
        layers = ", ".join(name for name, _, _ in held)
        lines.insert(0, f"is_free = is_unseen(x, {layers})")
    if family(region) == "conv":
        layers = ", ".join(name for name, _, _ in held)
        lines.insert(0, f"x = in_layout_for(x, {layers})")
    return lines


def _in_order(region: Region) -> list[Node]:
    """Its nodes; a ReLU goes behind the maximum that follows it, and gives the same for less.

    Both take the same pixel of each window, or one without a gradient, so even the bits are equal.
    """
    nodes = list(region.nodes)
    relu, pool = region.activation, region.pool
    if relu and pool and isinstance(relu.layer, Relu) and is_maximum(pool.layer):
        nodes.sort(key=lambda node: node is relu)
    return nodes
