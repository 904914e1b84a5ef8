"""Files of choices: taken whole, unchanged, and for their own network only."""

import json

import pytest

from cnndsl.fuse.choices import (
    NONE,
    Choices,
    ChoicesError,
    layers,
    load,
    pinned,
    read,
    title,
    write,
)
from cnndsl.fuse.pins import Tile, bucket
from cnndsl.fuse.plan import plan
from cnndsl.fuse.regions import Region, parts
from cnndsl.fuse.ways import allowed, chosen, roles, ruled
from tests.fuse.pinning import TEXT, choices, graph_of, regions


def test_what_is_written_is_read():
    found = choices(graph_of()[0], 3)
    text = write(found)
    assert read(text, "x.json") == found
    assert write(read(text, "x.json")) == text
    assert read(write(NONE), "x.json") == NONE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-40], "it is not JSON"),
        (lambda text: "[" * 100_000, "it is not JSON"),
        (lambda text: "[]", "no file of choices"),
        (lambda text: text.replace('"rows": 16', '"rows": 32', 1), "was changed after"),
        (lambda text: text.replace('"staged"', '"library"', 1), "was changed after"),
        (lambda text: text.replace('"version": 1', '"version": 2', 1), "another version of cnndsl"),
    ],
)
def test_a_damaged_file_is_refused(change, message):
    text = write(choices(graph_of()[0], 4))
    assert change(text) != text
    with pytest.raises(ChoicesError, match=message):
        read(change(text), "x.json")


def resealed(text: str, change) -> str:
    """The file with a change that its sum knows."""
    from cnndsl.fuse import choices as module

    content = json.loads(text)
    change(content["regions"][0])
    del content["sha256"]
    return json.dumps({**content, "sha256": module._digest(content)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda region: region["pins"]["whole"].update(forward="quick"), "'quick' is none of"),
        (
            lambda region: region["pins"]["whole"]["tiles"][0].update(rows=24),
            "no kernel has a tile",
        ),
        (lambda region: region["pins"]["whole"]["tiles"][0].update(rows=True), "no number"),
        (lambda region: region["pins"]["whole"]["tiles"][0].update(warps=32), "no kernel has"),
        (lambda region: region["pins"]["whole"]["tiles"][0].pop("warps"), "says nothing: 'warps'"),
        (lambda region: region.update(layers="conv"), "'conv' is no list"),
        (lambda region: region["layers"].pop(), "were made for `nothing`, and now it is `pool"),
        (lambda region: region["pins"].update(all={"tiles": []}), "'all' is none of"),
        (lambda region: region["pins"].clear(), "are not all there"),
        (lambda region: region.update(region="conv9"), "`conv9`, which is no region"),
        (
            lambda region: region["layers"].__setitem__(0, "reads nothing"),
            "made for `reads nothing`",
        ),
        (lambda region: region["pins"]["whole"].update(taps="apart"), "cannot go the ways"),
        (
            lambda region: region["pins"]["whole"].update(forward="library", backward="library"),
            "has a tile for the kernel `input_gradient`",
        ),
    ],
)
def test_a_choice_for_something_else_is_refused(change, message):
    graph = graph_of()[0]
    text = write(choices(graph))
    with pytest.raises(ChoicesError, match=message):
        pinned(parts(graph), read(resealed(text, change), "x.json"))


def test_a_tile_that_a_kernel_cannot_have_is_refused():
    """With rows, terms follow from the filter: with others it would compute nonsense."""
    graph = graph_of()[0]
    found = choices(graph, -1)
    assert isinstance(pinned(parts(graph), found)[0], Region)
    first = found.regions[0]
    ((role, pin),) = first.pins
    assert pin.choice is not None
    assert pin.choice.taps == "rows"
    tiles = tuple(t.replace(tile=t.tile.replace(terms=32)) for t in pin.tiles)
    first = first.replace(pins=((role, pin.replace(tiles=tiles)),))
    with pytest.raises(ChoicesError, match="computes nothing right with 16x32x32"):
        pinned(parts(graph), found.replace(regions=(first,)))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ChoicesError, match="No such file"):
        load(tmp_path / "none.json")
    with pytest.raises(ChoicesError, match="is not a file"):
        load(tmp_path)
    (tmp_path / "x.json").write_bytes(b"\xff\x00")
    with pytest.raises(ChoicesError, match="not JSON"):
        load(tmp_path / "x.json")


def test_regions_without_choices_follow_the_rule():
    graph = graph_of()[0]
    some = choices(graph, 1)
    some = some.replace(regions=some.regions[1:])
    first, second, *_ = (p for p in pinned(parts(graph), some) if isinstance(p, Region))
    assert chosen(first, "whole") == ruled(first, "whole") == allowed(first, "whole")[0]
    assert chosen(second, "sums") == allowed(second, "sums")[1] != ruled(second, "sums")
    assert pinned(parts(graph), Choices()) == parts(graph)


def test_the_plan_tells_the_ways_that_were_chosen():
    graph = graph_of("input 8 x 8 x 16; conv 16 3x3; relu; pool max 2")[0]
    (region,) = regions(graph)
    ways = {(c.forward, c.backward): number for number, c in enumerate(allowed(region, "whole"))}
    assert set(ways) == {
        (f, b) for f in ("fused", "library", "staged") for b in ("fused", "library")
    }
    for (forward, backward), number in ways.items():
        (part,) = pinned(parts(graph), choices(graph, number))
        assert isinstance(part, Region)
        found = plan(part)
        assert len(found.forward) == (2 if forward == "staged" else 1)
        assert ("output" in found.products) == (forward == "library")
        assert len(found.gradients) == (3 if backward == "fused" else 1)


def test_groups_are_never_staged():
    text = "input 8 x 8 x 32; conv 32 3x3 groups=4; batchnorm"
    (region,) = regions(graph_of(text)[0])
    for role in roles(region):
        assert {c.forward for c in allowed(region, role)} == {"fused", "library"}


def test_layers_tell_one_region_from_another():
    small = regions(graph_of(TEXT)[0])
    large = regions(graph_of(TEXT.replace("12 x 12", "16 x 16"))[0])
    assert [title(r) for r in small] == [title(r) for r in large]
    assert all(layers(a) != layers(b) for a, b in zip(small, large, strict=True))


@pytest.mark.parametrize(
    ("images", "wanted"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128), (100, 128)]
)
def test_buckets(images, wanted):
    assert bucket(images) == wanted


def test_what_a_tile_may_be():
    assert Tile(64, 128, 32, 4, 3).is_possible
    for wrong in (
        *(Tile(8, 64, 32, 4, 3), Tile(64, 96, 32, 4, 3), Tile(512, 16, 16, 4, 3)),
        *(Tile(256, 256, 16, 8, 3), Tile(64, 64, 64, 2, 3), Tile(64, 64, 64, 4, 6)),
    ):
        assert not wrong.is_possible
