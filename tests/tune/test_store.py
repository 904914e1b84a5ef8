"""What was chosen lies in the cache whole and ours, or counts for nothing."""

import json
import os
import stat

import pytest
import torch

from cnndsl.tune import door
from cnndsl.tune.chooser import choose
from cnndsl.tune.door import Shape, measure
from cnndsl.tune.store import Store, key
from tests.fuse.pinning import graph_of
from tests.tune.simulated import Simulated, quick_text, task_of

CONV = "input 8 x 8 x 16; relu; conv 64 3x3 pad=1; relu; pool max 2"
TABLE = {"forward: library": 5.0, "backward: fused, apart, input_gradient 32x64x32": 6.0}


@pytest.fixture(scope="module")
def task():
    return task_of(CONV)


@pytest.fixture
def kept(tmp_path, task):
    """A store with one verdict, and its file."""
    store, device = Store(tmp_path / "choices"), Simulated(TABLE)
    verdict = choose(task, device)
    store.put(task, device, verdict)
    (path,) = (tmp_path / "choices").iterdir()
    return store, device, verdict, path


def test_what_is_kept_comes_back(kept, task):
    store, device, verdict, path = kept
    assert store.get(task, device) == verdict
    assert Store(path.parent).get(task, device) == verdict
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-1],
        lambda text: "",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"library"', '"fused"', 1),
        lambda text: text.replace("6.0", "9.0"),
        lambda text: text + " " * 2**21,
        lambda text: json.dumps({**json.loads(text), "pin": {"tiles": []}}),
    ],
)
def test_a_damaged_file_counts_for_nothing_and_is_made_anew(kept, task, damage):
    store, device, verdict, path = kept
    text = path.read_text()
    assert damage(text) != text
    path.write_text(damage(text))
    assert store.get(task, device) is None
    store.put(task, device, verdict)
    assert store.get(task, device) == verdict


def test_a_file_or_folder_of_somebody_else_is_not_read(kept, task, monkeypatch):
    store, device, _, path = kept
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    assert store.get(task, device) is None


def test_a_link_is_not_followed(kept, task):
    store, device, _, path = kept
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)
    assert store.get(task, device) is None


def test_a_folder_that_is_open_to_others_is_closed(kept, task):
    store, device, verdict, path = kept
    path.parent.chmod(0o777)
    assert store.get(task, device) == verdict
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_where_nothing_can_be_written_one_warning_says_so(tmp_path, task):
    (tmp_path / "choices").write_text("a file where the folder would be")
    store, device = Store(tmp_path / "choices"), Simulated(TABLE)
    verdict = choose(task, device)
    with pytest.warns(UserWarning, match="cannot be kept"):
        store.put(task, device, verdict)
    store.put(task, device, verdict)  # a second warning would be an error
    assert store.get(task, device) is None


def test_a_full_disk_leaves_nothing_behind(tmp_path, task, monkeypatch):
    import pathlib

    store, device = Store(tmp_path / "choices"), Simulated(TABLE)
    verdict = choose(task, device)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "replace", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        store.put(task, device, verdict)
    assert list((tmp_path / "choices").iterdir()) == []


def test_all_that_may_change_the_choice_is_in_the_key(task):
    device = Simulated()
    found = {key(task, device)}
    others = [
        task.replace(images=65),
        task.replace(size=(9, 8)),
        task.replace(dtype="bf16"),
        task.replace(text=task.text + "\n"),
        task.replace(role="sums"),
        task_of(CONV.replace("relu; conv", "conv")),
        task_of(CONV.replace("64 3x3", "64 5x5").replace("pad=1", "pad=2")),
    ]
    found |= {key(other, device) for other in others}
    found.add(key(task, Simulated(name="another")))
    newer = Simulated()
    newer.versions = {"torch": "2", "triton": "1"}
    found.add(key(task, newer))
    assert len(found) == len(others) + 3


def test_batches_of_one_bucket_share_a_choice(task):
    device = Simulated()
    assert {key(task.replace(images=n), device) for n in (33, 50, 64)} == {key(task, device)}
    assert key(task.replace(images=32), device) != key(task, device)


def test_a_network_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "text_of", quick_text)
    graph, _ = graph_of(CONV)
    device, store = Simulated(TABLE), Store(tmp_path / "choices")
    first = measure(graph, Shape(64, (), torch.float32), device, store)
    assert len(device.opened) == 1
    again = measure(graph, Shape(40, (), torch.float32), device, store)
    assert len(device.opened) == 1
    assert again.regions == first.regions
    # Two regions that are alike are one task.
    twice, _ = graph_of("input 8 x 8 x 16\nrelu\n" + "conv 16 3x3 pad=1; relu\n" * 2)
    measure(twice, Shape(64, (), torch.float32), device, Store(tmp_path / "others"))
    assert len(device.opened) == 2


def test_a_wrong_candidate_is_not_in_the_file(tmp_path, task):
    device = Simulated({"forward: library": 1.0}, wrong=["forward: library"])
    store = Store(tmp_path / "choices")
    store.put(task, device, choose(task, device))
    found = store.get(task, device)
    assert found is not None
    assert found.pin.choice is not None
    assert found.pin.choice.forward == "fused"
