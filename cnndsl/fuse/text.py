"""The regions for people, as `compile --emit regions` prints them."""

from cnndsl.fuse.plan import plan, step
from cnndsl.fuse.regions import Part, Region
from cnndsl.graph.graph import Node
from cnndsl.layers.types import show


def dump(parts: tuple[Part, ...]) -> str:
    """Each region with its layers, its launches and what it keeps; the other layers by name."""
    nodes = [n for part in parts for n in (part.nodes if isinstance(part, Region) else (part,))]
    widths = [max(map(len, column)) for column in zip(*map(_cells, nodes), strict=True)]
    lines: list[str] = []
    number = 0
    for part in parts:
        if isinstance(part, Region):
            number += 1
            lines.append(f"region {number}")
            lines += [f"  {_row(node, widths)}" for node in part.nodes]
            found = plan(part)
            lines += [f"  {sentence}" for sentence in found.sentences()]
            lines.append(f"  that is {found.bytes.pretty()} bytes for each image")
        else:
            lines += ["PyTorch's operator", f"  {_row(part, widths)}"]
    if number:
        lines.append(step(parts).sentence())
    return "\n".join(lines)


def _row(node: Node, widths: list[int]) -> str:
    return "  ".join(f"{c:<{w}}" for c, w in zip(_cells(node), widths, strict=True)).rstrip()


def _cells(node: Node) -> tuple[str, str, str]:
    return node.path, node.layer.write(), show(node.output)
