"""The chooser: never what is wrong, however fast; else what is fastest; all from a table."""

import pytest
import torch

from cnndsl.fuse.choice import Choice
from cnndsl.fuse.pins import Tile, TileOf
from cnndsl.tune.candidates import neighbours
from cnndsl.tune.chooser import choose
from cnndsl.tune.errors import TuneError
from cnndsl.tune.expected import Expected, mistake
from cnndsl.tune.task import Static
from tests.tune.simulated import Simulated, rows_by_name, task_of

CONV = "input 8 x 8 x 16; relu; conv 64 3x3 pad=1; relu; pool max 2"
FIRST = "input 8 x 8 x 3; conv 64 3x3 pad=1; relu; pool max 2"


@pytest.fixture(scope="module")
def conv():
    return task_of(CONV)


@pytest.fixture(scope="module")
def first():
    return task_of(FIRST)


def test_the_rule_stays_where_all_take_the_same(conv):
    verdict = choose(conv, Simulated())
    assert verdict.pin.choice == Choice("apart", "fused", "library")
    assert verdict.pin.tiles == ()
    assert len(verdict.rows) > 20


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ({"forward: library": 20.0}, Choice("apart", "library", "library")),
        ({"forward: staged": 20.0}, Choice("apart", "staged", "library")),
        ({"backward: fused": 20.0}, Choice("apart", "fused", "fused")),
        ({"forward: library": 20.0, "backward: fused": 20.0}, Choice("apart", "library", "fused")),
        # a gain that is lost in noise is none
        ({"forward: library": 99.5}, Choice("apart", "fused", "library")),
    ],
)
def test_the_fastest_way_is_taken(conv, times, wanted):
    assert choose(conv, Simulated(times)).pin.choice == wanted


def test_taps_are_one_for_both_directions(first):
    """What they gain in one direction they may lose in the other."""
    taken = {
        "forward: fused, rows": 10.0,
        "backward: fused, rows": 500.0,
        "backward: library": 300.0,
    }
    assert choose(first, Simulated(taken)).pin.choice == Choice("packed", "fused", "fused")
    taken["backward: library"] = 120.0
    assert choose(first, Simulated(taken)).pin.choice == Choice("rows", "fused", "library")


def test_a_better_tile_is_pinned_for_type_and_bucket(conv):
    tile = "forward: fused, apart, forward 64x128x32, 4 warps, 3 stages"
    verdict = choose(conv.replace(images=50), Simulated({tile: 40.0}))
    wanted = TileOf("forward", "fp32", 64, Tile(64, 128, 32, 4, 3))
    assert verdict.pin.tiles == (wanted,)
    assert verdict.why[0].startswith("forward: fused, apart, forward 64x128x32, 4 warps, 3 stages")
    assert "takes 40.0 µs" in verdict.why[0]
    assert "with its rule's tiles 100.0" in verdict.why[0]


def test_better_tiles_of_two_kernels_are_tried_together(conv):
    fused = "backward: fused, apart"
    dx, dw = "input_gradient 64x128x32", "weight_gradient 64x64x64"
    table = {fused: 50.0, f"{fused}, {dx}": 40.0, f"{fused}, {dw}": 45.0}
    verdict = choose(conv, Simulated(table))
    rows = rows_by_name(verdict)
    both = [name for name in rows if "input_gradient" in name and "weight_gradient" in name]
    assert len(both) == 1
    # The table does not know them together: the part that fits last gives 45.
    assert {t.kernel for t in verdict.pin.tiles} == {"input_gradient"}
    table[both[0]] = 35.0
    verdict = choose(conv, Simulated(table))
    assert {t.kernel: t.tile for t in verdict.pin.tiles} == {
        "input_gradient": Tile(64, 128, 32, 4, 3),
        "weight_gradient": Tile(64, 64, 64, 4, 3),
    }


@pytest.mark.parametrize("how", ["wrong", "failing"])
def test_a_wrong_candidate_is_never_timed_nor_chosen(conv, how):
    fast = {"forward: library": 1.0, "backward: fused": 2.0, "forward 64x128x32": 3.0}
    bad = ["forward: library", "backward: fused", "forward 64x128x32"]
    device = Simulated(fast, **{how: bad})
    verdict = choose(conv, device)
    assert verdict.pin.choice == Choice("apart", "fused", "library")
    assert verdict.pin.tiles == ()
    assert not [name for name in device.timed if any(part in name for part in bad)]
    row = rows_by_name(verdict)["forward: library"]
    assert row.us is None
    assert row.why == (
        "is wrong: 1 of 12 values of y are wrong, by up to 1"
        if how == "wrong"
        else "fails: CUDA error: an illegal instruction"
    )
    assert "were not timed" in verdict.why[0]


def test_what_fails_with_the_whole_batch_alone_is_left_out(conv):
    device = Simulated({"forward: library": 1.0, "forward: staged": 20.0})
    device.too_large = ("forward: library", "input_gradient")
    verdict = choose(conv, device)
    assert verdict.pin.choice == Choice("apart", "staged", "library")
    assert rows_by_name(verdict)["forward: library"].why == "fails: CUDA out of memory"
    device.too_large = ("forward",)
    with pytest.raises(TuneError, match="no way through `conv1"):
        choose(conv, device)


@pytest.mark.parametrize(
    ("static", "why"),
    [
        (Static(spills=3), "spills: 3 instructions move registers to memory and back"),
        (Static(shared_bytes=100_001), "takes 100,001 bytes of shared memory"),
        (Static(error="does not compile"), "does not compile"),
    ],
)
def test_what_the_compiler_says_comes_before_anything_is_run(conv, static, why):
    device = Simulated({"forward: library": 1.0}, static={"forward: library": static})
    verdict = choose(conv, device)
    assert verdict.pin.choice == Choice("apart", "fused", "library")
    assert rows_by_name(verdict)["forward: library"].why.startswith(why)
    assert not [name for name in (*device.ran, *device.timed) if name == "forward: library"]


def test_where_no_way_is_right_nothing_is_chosen(conv):
    device = Simulated(wrong=["backward"])
    with pytest.raises(TuneError, match="no way through `conv1") as raised:
        choose(conv, device)
    assert "backward, library, is wrong" in str(raised.value)


def test_a_broken_gpu_ends_it_and_names_the_candidate(conv):
    device = Simulated(failing=["forward: staged"])
    device.alive = False
    with pytest.raises(TuneError, match="`staged, apart` has broken"):
        choose(conv, device)


def test_nothing_is_measured_while_a_graph_is_captured(conv):
    device = Simulated()
    device.capturing = True
    with pytest.raises(TuneError, match="while a CUDA graph is captured"):
        choose(conv, device)
    assert (device.opened, device.ran, device.timed) == ([], [], [])


def test_a_batchnorm_in_training_is_chosen_for_by_itself():
    text = "input 8 x 8 x 16; conv 32 3x3; batchnorm; relu"
    whole, sums = task_of(text), task_of(text, role="sums")
    assert sums.name == "conv1 + batchnorm1 + relu1 (training)"
    for task in (whole, sums):
        verdict = choose(task, Simulated({"forward: library": 5.0}))
        assert verdict.pin.choice == Choice("apart", "library", "library")


def test_a_fully_connected_layer_is_multiplied_by_whoever_is_faster():
    task = task_of("input 400; fc 120; relu")
    verdict = choose(task, Simulated({"forward: fused, forward 64x128x32": 7.0}))
    assert verdict.pin.choice == Choice("none", "fused", "fused")
    assert [t.tile for t in verdict.pin.tiles] == [Tile(64, 128, 32, 4, 3)]
    verdict = choose(task, Simulated({"backward: library": 5.0}))
    assert verdict.pin.choice == Choice("none", "fused", "library")
    assert "backward: library takes 5.0 µs, fused" in verdict.why[1]


def test_tiles_near_a_tile(conv, first):
    fused, rows = Choice("apart", "fused", "fused"), Choice("rows", "fused", "fused")
    tile = Tile(64, 128, 32, 4, 3)
    for kernel in ("forward", "input_gradient", "weight_gradient"):
        found = neighbours(conv, kernel, tile, fused)
        assert 4 < len(found) <= 12
        assert tile not in found
        for other in found:
            assert other.is_possible
            differences = [a != b for a, b in zip(tile.values(), other.values(), strict=True)]
            assert sum(differences) == 1
    # No more filters than there are; what follows from a kernel's form stays.
    assert max(t.rows for t in neighbours(conv, "forward", tile, fused)) == 64
    assert {t.terms for t in neighbours(first, "forward", tile, rows)} == {32}
    assert {t.columns for t in neighbours(first, "weight_gradient", tile, rows)} == {128}
    library = Choice("apart", "library", "fused")
    assert {t.terms for t in neighbours(conv, "forward", tile, library)} == {32}


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (torch.zeros(3), ""),
        (torch.tensor([0.0, 0.0, 1.0]), "1 of 3 values of y are wrong, by up to 1"),
        (torch.tensor([0.0, float("nan"), 0.0]), "1 of 3 values of y are wrong, by up to inf"),
        (torch.zeros(4), "y has shape (4,), not (3,)"),
        (None, "y is missing"),
    ],
)
def test_mistakes(found, problem):
    assert mistake(found, Expected("y", torch.zeros(3).double())) == problem


def test_what_nobody_asked_for_must_not_come():
    assert mistake(torch.zeros(3), Expected("dx", None)) == "dx is there"
    assert mistake(None, Expected("dx", None)) == ""


def test_the_bound_is_that_of_the_type():
    wanted = Expected("y", torch.tensor([1.0 + 2.0**-9]).double())
    assert mistake(torch.tensor([1.0]).bfloat16(), wanted) == ""
    assert mistake(torch.tensor([1.0]), wanted) != ""
