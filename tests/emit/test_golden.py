"""Networks' graphs, regions and modules as files: read them, and their changes, as a user would."""

from pathlib import Path

import pytest

from cnndsl.check import check_source
from cnndsl.emit.module import emit
from cnndsl.fuse.regions import parts
from cnndsl.fuse.text import dump as dump_regions
from cnndsl.graph.text import dump as dump_graph
from cnndsl.source import Source
from tests.golden import Golden

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["lenet", "residual", "mobile"])
def test_what_a_network_becomes(name: str, golden: Golden) -> None:
    folder = ROOT / "tests" / "golden" / name
    path = folder / "model.cnn"
    if not path.exists():
        path = ROOT / "examples" / f"{name}.cnn"
    source = Source(path.name, path.read_text(encoding="utf-8"))
    graph = check_source(source).graph
    assert graph is not None
    golden.check(folder / "graph.txt", f"{dump_graph(graph)}\n")
    golden.check(folder / "regions.txt", f"{dump_regions(parts(graph))}\n")
    golden.check(folder / "module.py", emit(graph, source).text)
