"""The section of one region: what it computes, its kernels, its operator, and how it runs.

Knows how a section reads; the kernels' text comes from `kernels`.
"""

from collections.abc import Sequence

from cnndsl.emit import kernels, layout
from cnndsl.emit.kernels import Signature
from cnndsl.fuse.plan import plan
from cnndsl.fuse.regions import Region
from cnndsl.graph.graph import INPUT, Node
from cnndsl.layers.types import show
from cnndsl.record import Record

# By what the code of a region calls the module that holds a layer's weights.
MODULES = {"conv": ("conv", "nn.Conv2d"), "fc": ("linear", "nn.Linear")}
NORM = ("norm", "nn.BatchNorm2d")


class Section(Record):
    """A region with its names in the emitted file.

    `function` runs it; `operator` is its fused operator, `geometry` the constant it is made with.
    `kernels` is the text of its kernels, or empty where those of `shown_in` serve it too; `about`
    says how they work, once in a file.
    """

    number: int
    region: Region
    signature: Signature
    function: str
    operator: str
    geometry: str
    kernels: str
    shown_in: int
    about: str


def title(region: Region) -> str:
    """`conv1 + relu1 + pool1`."""
    return " + ".join(node.path for node in region.nodes)


def write(section: Section) -> str:
    """The section's text."""
    head = [layout.banner(f"region {section.number}: {title(section.region)}"), _story(section)]
    own = section.signature.name
    arguments = [f"{n}={own}_launch_{n}" for n in kernels.LAUNCHES]
    launches = "ConvLaunches" if section.signature.family == "conv" else "FcLaunches"
    parts = ["\n".join(head)]
    if section.kernels:
        parts += [section.kernels, layout.call(f"{own}_launches = {launches}", arguments)]
    parts.append(f"{_geometry(section)}\n{_operator(section)}")
    parts.append(_function(section))
    return layout.blocks(parts)


def modules(region: Region) -> list[tuple[str, str, Node]]:
    """What holds its weights: the name of the parameter, its type, and the node."""
    name, type_ = MODULES[kernels.family(region)]
    found = [(name, type_, region.anchor)]
    if region.affine:
        found.append((*NORM, region.affine))
    return found


def _story(section: Section) -> str:
    """What the region computes, with its sizes, as a comment."""
    region = section.region
    cells = [("", f"reads {show(region.anchor.arrives)}", "")]
    for node in region.nodes:
        cells.append((node.path, node.layer.write(), show(node.output)))
        cells += [("", line, "") for line in node.layer.formula(node.arrives)]
    names = max(len(name) for name, _, _ in cells)
    what = max(len(what) for _, what, _ in cells)
    lines = [f"{a:<{names}}  {b:<{what}}  {c}".rstrip() for a, b, c in cells]
    lines += plan(region).sentences()
    if not section.kernels:
        lines.append(f"Its kernels are those of region {section.shown_in}.")
    text = layout.comment(lines)
    if section.about:
        text += "\n#\n" + layout.comment(paragraphs(section.about))
    return text


def paragraphs(text: str) -> list[str]:
    """A line for each paragraph, an empty one between two."""
    found = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(found).split("\n")


def _geometry(section: Section) -> str:
    kind = "ConvGeometry" if section.signature.family == "conv" else "FcGeometry"
    fields = kernels.written_geometry(section.region)
    return layout.call(f"{section.geometry} = {kind}", fields)


def _operator(section: Section) -> str:
    make = f"{section.signature.family}_op"
    arguments = [f'f"{{NAMESPACE}}::{section.function}"', section.geometry]
    arguments.append(f"{section.signature.name}_launches")
    return layout.call(f"{section.operator} = {make}", arguments)


def _function(section: Section) -> str:
    """How the region runs: with its kernels, or with PyTorch's operators."""
    region = section.region
    held = modules(region)
    parameters = ["x: Tensor", *(f"{name}: {type_}" for name, type_, _ in held)]
    name = held[0][0]
    arguments = ["x", f"{name}.weight", f"{name}.bias"]
    test = "if runs_kernels(x):"
    prepare: list[str] = []
    if region.affine:
        test = "if runs_kernels(x) and not norm.training:"
        prepare = ["    scale, shift = scale_and_shift(norm, conv.bias)"]
        arguments = ["x", "conv.weight", "shift", "scale"]
    if region.input == INPUT and section.signature.family == "conv":
        arguments[0] = "channels_last(x)"  # once here, instead of in each kernel that reads it
    body = [
        f'"""Run region {section.number}: its kernels on a GPU, PyTorch\'s operators elsewhere."""',
        *(_TRAINING if region.affine else ()),
        test,
        *prepare,
        layout.indent(layout.call(f"return {section.operator}", arguments, column=8)),
        *_steps([(node, name) for node, name in _named(region, held)]),
    ]
    return layout.function(f"def {section.function}", parameters, "Tensor", body)


_TRAINING = (
    "# A batchnorm in training takes its scale from the whole batch, which no kernel has seen yet",
    "# when it ends: so it runs as PyTorch's operators on every device.",
)


def _named(region: Region, held: Sequence[tuple[str, str, Node]]) -> list[tuple[Node, str]]:
    names = {node.path: name for name, _, node in held}
    return [(node, names.get(node.path, "")) for node in region.nodes]


def _steps(nodes: list[tuple[Node, str]]) -> list[str]:
    """The layers in PyTorch, a line each."""
    lines: list[str] = []
    for node, name in nodes:
        start = "return " if node is nodes[-1][0] else "x = "
        lines.append(layout.spread(start, node.layer.torch(node.arrives, name, "x"), column=4))
    return lines
