"""Run folders and checkpoints: whole or not there, checked when read, safe from a second run."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cnndsl.train as training
from cnndsl.train import disk
from cnndsl.train.checkpoint import Checkpoint, load, save
from cnndsl.train.progress import Quiet
from cnndsl.train.run import Origin
from tests.train import trainee

ONE_EPOCH = trainee.RECIPE.replace(epochs=1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "small"
    training.train(trainee.network(), trainee.data(), out=path, recipe=ONE_EPOCH)
    return path


def test_what_is_in_a_run_folder(tmp_path: Path) -> None:
    origin = Origin("model Small\n", ("width=3",), "class Small: ...\n")
    path = tmp_path / "a" / "run"
    training.train(trainee.network(), trainee.data(), out=path, recipe=ONE_EPOCH, origin=origin)
    assert (path / "source.cnn").read_text() == "model Small\n"
    assert (path / "model.py").read_text() == "class Small: ...\n"
    assert (path / "checkpoints" / "latest").read_text() == "step-00000006\n"
    config = training.open_run(path).config
    assert config["set"] == ["width=3"]
    assert config["recipe"] == dict(zip(ONE_EPOCH.__fields__, ONE_EPOCH.values(), strict=True))
    assert config["data"]["classes"] == ["top", "middle", "bottom"]
    assert len(training.open_run(path).metrics) == 1
    assert list(tmp_path.rglob(".*")) == []


def test_only_the_two_newest_checkpoints_stay(tmp_path: Path) -> None:
    recipe = trainee.RECIPE.replace(epochs=4)
    training.train(trainee.network(), trainee.data(), out=tmp_path / "run", recipe=recipe)
    steps = sorted(p.name for p in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert steps == ["step-00000018", "step-00000024"]


def damage_nothing_but(path: Path, how: str) -> None:
    content = path.read_bytes()
    match how:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "bit":
            middle = len(content) // 2
            path.write_bytes(
                content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )
        case "empty":
            path.write_bytes(b"")
        case _:
            path.unlink()


@pytest.mark.parametrize("how", ["cut", "bit", "empty", "missing"])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over_and_named(run: Path, name: str, how: str) -> None:
    newest = run / "checkpoints" / "step-00000006"
    damage_nothing_but(newest / name, how)
    found = load(run)
    assert found.checkpoint.step == 0
    assert len(found.skipped) == 1
    assert str(newest) in found.skipped[0]
    assert name in found.skipped[0]


def test_a_state_that_somebody_changed_is_passed_over(run: Path) -> None:
    path = run / "checkpoints" / "step-00000006" / "state.json"
    path.write_text(path.read_text().replace('"epoch": 1', '"epoch": 0'))
    assert "state.json does not fit its sha256" in load(run).skipped[0]


def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(
    run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    training.train(trainee.network(), trainee.data(), out=other, recipe=ONE_EPOCH)
    (run / "checkpoints" / "step-00000006" / "model.safetensors").write_bytes(b"rubbish")
    training.resume(run, trainee.network(), trainee.data())
    assert trainee.difference(run, other) == ""


def test_a_run_without_a_valid_checkpoint_says_why(run: Path) -> None:
    for path in (run / "checkpoints").glob("step-*"):
        (path / "state.json").write_text("{}")
    with pytest.raises(training.TrainError, match=r"no checkpoint that can be used; .*state\.json"):
        training.resume(run, trainee.network(), trainee.data())


def test_a_checkpoint_keeps_every_kind_of_tensor_bit_for_bit(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    tensors = {
        "view": shared.view(2, 3).t(),
        "same memory": shared,
        "half": torch.tensor([1.5, 3e38], dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 3),
    }
    save(tmp_path, Checkpoint(5, tensors, {}, {"loss": 0.1 + 0.2}, {}))
    kept = load(tmp_path).checkpoint
    assert kept.state["loss"] == 0.1 + 0.2
    assert kept.model.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert kept.model[name].dtype == tensor.dtype
        assert torch.equal(kept.model[name], tensor)


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────


def test_a_torn_last_line_of_metrics_is_left_out_and_mended(tmp_path: Path) -> None:
    path = tmp_path / "run"
    recipe = trainee.RECIPE.replace(epochs=3)
    stop = type("Stop", (Quiet,), {"epoch": lambda *_: os.kill(os.getpid(), 2)})
    training.train(trainee.network(), trainee.data(), out=path, recipe=recipe, reporter=stop())
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch": 2, "loss": 0.')
    assert [m["epoch"] for m in training.open_run(path).metrics] == [1]
    training.resume(path, trainee.network(), trainee.data())
    lines = (path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(text)["epoch"] for text in lines] == [1, 2, 3]


def test_an_epoch_that_is_trained_again_is_not_listed_twice(run: Path) -> None:
    """Killed after its line was written and before its checkpoint was."""
    newest = run / "checkpoints" / "step-00000006"
    (newest / "state.json").unlink()
    training.resume(run, trainee.network(), trainee.data())
    assert [m["epoch"] for m in training.open_run(run).metrics] == [1]


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


def test_a_new_run_never_overwrites_another(run: Path) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(training.UsageError, match="holds a run already") as caught:
        training.train(trainee.network(), trainee.data(), out=run)
    assert f"--resume {run}" in caught.value.fixes[0]
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_a_new_run_never_overwrites_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(training.UsageError, match="exists and is no run"):
        training.train(trainee.network(), trainee.data(), out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    training.train(trainee.network(), trainee.data(), out=tmp_path / "run", recipe=ONE_EPOCH)
    assert training.open_run(tmp_path / "run").metrics


def test_what_a_killed_start_left_goes_with_the_next_one(tmp_path: Path) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    dead, alive = int(gone.stdout), os.getppid()
    for process in (dead, alive):
        (tmp_path / f".run.{process}.new").mkdir()
    training.train(trainee.network(), trainee.data(), out=tmp_path / "run", recipe=ONE_EPOCH)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".run.{alive}.new", "run"]


def test_two_processes_do_not_train_in_one_folder(run: Path) -> None:
    holder = training.open_run(run)
    holder.lock()
    with pytest.raises(training.UsageError, match="another process is training"):
        training.resume(run, trainee.network(), trainee.data())
    holder.unlock()
    training.resume(run, trainee.network(), trainee.data())


def test_another_network_or_other_data_are_refused(run: Path) -> None:
    with pytest.raises(training.TrainError, match="those of another network"):
        training.resume(run, trainee.network().append(torch.nn.Linear(3, 3)), trainee.data())
    others = training.as_data(trainee.images(seed=9))
    with pytest.raises(training.TrainError, match="not those that"):
        training.resume(run, trainee.network(), others)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no run in"),
        ("{", "is not whole"),
        ("[]", "describes no run"),
        ('{"version": 1}', "another version of cnndsl"),
    ],
)
def test_a_folder_that_is_no_run_is_told(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(training.TrainError, match=message):
        training.resume(tmp_path, trainee.network(), trainee.data())


def test_a_full_disk_stops_with_the_way_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    (run / "checkpoints" / "step-00000006" / "state.json").unlink()  # so that there is work left
    write = disk.write
    monkeypatch.setattr(disk, "write", full)
    with pytest.raises(training.TrainError, match="No space left on device") as caught:
        training.resume(run, trainee.network(), trainee.data())
    assert f"--resume {run}" in caught.value.fixes[0]
    monkeypatch.setattr(disk, "write", write)
    assert len(training.resume(run, trainee.network(), trainee.data()).metrics) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 KiB, which takes a few checkpoints of these networks."""
    disk_path = tmp_path / "disk"
    disk_path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.decode().strip()}")
    yield disk_path
    subprocess.run(["umount", str(disk_path)], check=True)


@pytest.mark.parametrize("recipe", [trainee.RECIPE, trainee.FULL], ids=["plain", "full"])
def test_a_disk_that_is_full_loses_nothing_that_was_saved(
    small_disk: Path, tmp_path: Path, recipe: training.Recipe
) -> None:
    """Another file fills it up to some byte, at another moment of a save each time."""
    unbroken, run, filler = tmp_path / "unbroken", small_disk / "run", small_disk / "filler"
    training.train(trainee.network(), trainee.data(), out=unbroken, recipe=recipe)
    stop = type("Stop", (Quiet,), {"step": lambda *_: os.kill(os.getpid(), 2)})
    training.train(trainee.network(), trainee.data(), out=run, recipe=recipe, reporter=stop())
    refusals: list[training.TrainError] = []
    for room in range(0, 60_000, 4096):
        before = load(run).checkpoint.step
        filler.write_bytes(b"0" * max(0, shutil.disk_usage(small_disk).free - room))
        try:
            stop = type("Stop", (Quiet,), {"epoch": lambda *_: os.kill(os.getpid(), 2)})
            training.resume(run, trainee.network(), trainee.data(), reporter=stop(), save_every=0)
        except training.TrainError as error:
            refusals.append(error)
        found = load(run)
        assert found.skipped == ()
        assert found.checkpoint.step >= before
        filler.unlink()
    assert len(refusals) >= 3
    assert all("No space left on device" in error.message for error in refusals)
    assert all(f"--resume {run}" in error.fixes[0] for error in refusals)
    training.resume(run, trainee.network(), trainee.data())
    assert trainee.difference(unbroken, run) == ""


def test_a_disk_without_room_for_a_new_run_leaves_no_half_of_one(small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * (shutil.disk_usage(small_disk).free - 12_000))
    with pytest.raises(training.TrainError, match="No space left on device"):
        training.train(trainee.network(), trainee.data(), out=small_disk / "run")
    assert [p.name for p in small_disk.iterdir()] == ["filler"]
    filler.unlink()
    training.train(trainee.network(), trainee.data(), out=small_disk / "run", recipe=ONE_EPOCH)
    assert [p.name for p in small_disk.iterdir()] == ["run"]


# ── kill −9 ──────────────────────────────────────────────────────────────────────────────────────


MANY = os.environ.get("CNNDSL_MANY") == "1"  # what takes minutes runs only when asked for


@pytest.mark.parametrize(
    ("recipe", "kills"), [("plain", 100 if MANY else 8), ("full", 100 if MANY else 8)]
)
def test_killed_at_any_moment_a_run_goes_on_to_the_same_bits(
    tmp_path: Path, recipe: str, kills: int
) -> None:
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-m", "tests.train.killer", str(tmp_path)]
    ended = subprocess.run(
        [*command, "--kills", str(kills), "--recipe", recipe],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=20 + 10 * kills,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith(f"{kills} kills")
