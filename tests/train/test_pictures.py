"""Pictures are read as people see them, by training and by `predict` alike."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cnndsl.train as training
from cnndsl.cli.main import main
from cnndsl.train.data import Scale
from cnndsl.train.trained import Network
from tests.train import trainee

RAMP = np.linspace(0, 1, 64).reshape(8, 8)  # black to white
ORIENTATION = 0x0112


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **more: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **more)


def forms() -> dict[str, tuple[np.ndarray, str | None]]:
    """Each way to store the ramp: its ending, its pixels, and Pillow's mode."""
    grey = np.round(RAMP * 255).astype(np.uint8)
    return {
        "8.png": (grey, None),
        "16.png": (np.round(RAMP * 65535).astype(np.uint16), None),
        "16.tif": (np.round(RAMP * 65535).astype(np.uint16), None),
        "float.tif": (RAMP.astype(np.float32), None),
        "palette.png": (grey, "P"),
        "alpha.png": (grey, "LA"),
        "colour.png": (grey, "RGB"),
        "clear.png": (grey, "RGBA"),
        "print.tif": (np.stack([0 * grey, 0 * grey, 0 * grey, 255 - grey], 2), None),
        "still.gif": (grey, "P"),
    }


@pytest.mark.parametrize("name", list(forms()))
@pytest.mark.parametrize("channels", [1, 3])
def test_each_form_of_a_ramp_reads_as_the_ramp(tmp_path: Path, name: str, channels: int) -> None:
    pixels, mode = forms()[name]
    image = Image.fromarray(pixels, "CMYK") if name == "print.tif" else Image.fromarray(pixels)
    for label in "ab":
        (tmp_path / label).mkdir()
        (image.convert(mode) if mode else image).save(tmp_path / label / name)
    data = training.load(str(tmp_path), (channels, None, None))
    values = next(data.train.batches(1, None)).images[0]
    scale = data.scale
    assert scale is not None
    assert scale.mean[0] == pytest.approx(0.5, abs=0.01)
    shown = values * torch.tensor(scale.deviation).view(-1, 1, 1) + torch.tensor(scale.mean).view(
        -1, 1, 1
    )
    assert np.allclose(shown.numpy(), RAMP[None], atol=0.01)


def test_sixteen_bits_are_kept_and_a_mixed_set_is_read_in_one_way(tmp_path: Path) -> None:
    fine = (1000 + np.arange(64).reshape(8, 8)).astype(np.uint16)  # one step of 8 bits
    save(tmp_path / "a" / "fine.png", fine)
    save(tmp_path / "b" / "plain.png", np.full((8, 8), 51, np.uint8))
    images = training.load(str(tmp_path), (1, None, None), scale=Scale((0.0,), (1.0,))).train.images
    assert len(images[0].unique()) == 64
    assert float(images[1].mean()) == pytest.approx(0.2)


def test_floats_outside_of_0_to_1_share_one_range_which_the_run_keeps(tmp_path: Path) -> None:
    for label, low in (("a", -100.0), ("b", 0.0)):
        for number in range(3):
            pixels = np.full((6, 6), low + 50 * number, np.float32)
            save(tmp_path / "set" / label / f"{number}.tif", pixels)
    data = training.load(str(tmp_path / "set"), (1, None, None), scale=Scale((0.0,), (1.0,)))
    assert (data.range.low, data.range.high) == (-100, 100)
    assert "hold values from -100 to 100" in data.notes[0]
    assert data.test is not None
    values = torch.cat([data.train.images, data.test.images]).mean((1, 2, 3))
    assert sorted(values.tolist()) == [0.0, 0.25, 0.5, 0.5, 0.75, 1.0]
    model = trainee.network(2)
    one = trainee.RECIPE.replace(epochs=1)
    with pytest.warns(UserWarning, match="this range becomes 0 to 1"):
        training.train(model, data, out=tmp_path / "run", recipe=one)
    used = training.Trained(training.open_run(tmp_path / "run"), model)
    assert used.range == data.range


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photo_is_turned_as_its_exif_data_say(tmp_path: Path, turn: int) -> None:
    upright = np.zeros((6, 4), np.uint8)
    upright[0, 0], upright[0, 3] = 255, 128
    views = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    for label in "ab":
        save(tmp_path / label / "1.png", np.ascontiguousarray(views[turn]), exif=exif)
    images = training.load(str(tmp_path), (1, None, None), is_inside=True).train.images
    assert np.array_equal(images[0, 0].numpy(), upright)


def test_what_is_transparent_is_white_and_the_first_frame_stands(tmp_path: Path) -> None:
    clear = np.zeros((4, 4, 4), np.uint8)  # black that nobody sees
    save(tmp_path / "a" / "clear.png", clear)
    frames = [Image.new("L", (4, 4), level) for level in (200, 0)]
    (tmp_path / "b").mkdir()
    frames[0].save(tmp_path / "b" / "move.gif", save_all=True, append_images=frames[1:])
    data = training.load(str(tmp_path), (1, None, None), is_inside=True)
    assert [int(i.float().mean()) for i in data.train.images] == [255, 200]
    assert "of 1 picture with several frames, the first is used" in data.notes


def test_strange_files_are_left_out_and_counted_and_broken_ones_named(tmp_path: Path) -> None:
    for label in "ab":
        save(tmp_path / label / "1.png", np.zeros((4, 4), np.uint8))
    for name in ("._1.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "x.heic", "notes.txt"):
        (tmp_path / "a" / name).write_bytes(b"?")
    (tmp_path / "__MACOSX" / "a").mkdir(parents=True)
    os.mkfifo(tmp_path / "b" / "pipe.png")
    data = training.load(str(tmp_path), (1, None, None))
    assert data.train.count == 2
    assert data.notes == (
        "left out 7 files: 4 hidden, 1 .txt, 1 .heic (pillow cannot decode them), "
        "1 special (a pipe, a device or a broken link)",
    )
    whole = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "a" / "torn.png").write_bytes(whole[:-30])
    (tmp_path / "b" / "text.jpg").write_text("<html>")
    (tmp_path / "b" / "none.jpg").write_bytes(b"")
    with pytest.raises(training.TrainError, match="3 files cannot be read") as caught:
        training.load(str(tmp_path), (1, None, None))
    assert all(n in caught.value.message for n in ("torn.png", "text.jpg", "none.jpg"))


@pytest.mark.parametrize("content", ["1.heic", "._1.png", None])
def test_a_class_without_a_picture_is_refused(tmp_path: Path, content: str | None) -> None:
    save(tmp_path / "a" / "1.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "empty").mkdir()
    if content:
        (tmp_path / "empty" / content).write_bytes(b"?")
    with pytest.raises(training.TrainError, match="empty` has no picture that can be read"):
        training.load(str(tmp_path))


@pytest.mark.parametrize("valid", [None, "val", "Valid", "validation", "dev"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "TESTING")])
def test_parts_are_found_by_their_names(
    tmp_path: Path, train: str, test: str, valid: str | None
) -> None:
    for part, count in ((train, 4), (test, 1), (valid, 2)):
        for number in range(count if part else 0):
            for label in "ab":
                save(tmp_path / str(part) / label / f"{number}.png", np.zeros((4, 4), np.uint8))
    data = training.load(str(tmp_path))
    assert data.classes == ("a", "b")
    counts = [p.count if p else None for p in (data.train, data.test, data.final)]
    assert counts == ([8, 4, 2] if valid else [8, 2, None])
    assert data.judged_on == ("valid" if valid else "test")


def test_a_class_may_be_called_train_and_a_folder_too_high_is_named(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        save(tmp_path / "set" / name / "1.png", np.zeros((4, 4), np.uint8))
    assert training.load(str(tmp_path / "set")).classes == ("plane", "train")
    with pytest.raises(training.TrainError) as caught:
        training.load(str(tmp_path))
    assert f"give `{tmp_path / 'set'}`" in caught.value.fixes[0]


def test_decoded_batch_by_batch_the_training_is_the_same_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    for number in range(12):
        pixels = draw.integers(0, 255, (6, 6), np.uint8)
        save(tmp_path / "set" / "abc"[number % 3] / f"{number}.png", pixels)
    found = []
    for room in ("2048", "0"):
        monkeypatch.setenv("CNNDSL_IMAGE_MEMORY", room)
        data = training.load(str(tmp_path / "set"), (1, None, None))
        model = trainee.network()
        recipe = trainee.RECIPE.replace(epochs=2, batch=4)
        outcome = training.train(model, data, recipe=recipe)
        found.append((data.fingerprint, outcome.metrics[-1]["loss"], model[0].weight.tolist()))
        assert isinstance(data.train, training.examples.TensorExamples) == (room == "2048")
    assert found[0] == found[1]
    monkeypatch.setenv("CNNDSL_IMAGE_MEMORY", "much")
    with pytest.raises(training.UsageError, match="CNNDSL_IMAGE_MEMORY is `much`"):
        training.load(str(tmp_path / "set"))


def test_predict_sees_what_training_saw(tmp_path: Path) -> None:
    """A network that gives the mean of what it gets, and its opposite."""

    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean((1, 2, 3))
            return torch.stack([mean, -mean], 1)

    used = Network(Mean(), scale=Scale((0.0,) * 3, (1.0,) * 3), device="cpu")
    for name, (pixels, mode) in forms().items():
        if name != "print.tif":
            save(tmp_path / name, pixels, mode)
            chance = dict(used.predict(tmp_path / name).classes)["0"]
            assert chance == pytest.approx(1 / (1 + np.exp(-1)), abs=0.01), name


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "nothing"])
def test_what_is_no_file_is_refused_and_never_waited_for(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = {"device": Path("/dev/zero")}.get(kind, tmp_path / "x.png")
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "folder":
        path.mkdir()
    used = Network(trainee.network(), device="cpu")
    with pytest.raises(training.TrainError, match=r"not an image file|there is no image"):
        used.predict(path)
    if kind != "folder":
        with pytest.raises(training.TrainError):
            training.load(str(path))


def test_rare_classes_are_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(30):
        save(tmp_path / "set" / "many\x1b[2J" / f"{number}.png", np.zeros((6, 6), np.uint8))
    save(tmp_path / "set" / "rare" / "1.png", np.full((6, 6), 200, np.uint8))
    (tmp_path / "n.cnn").write_text("input 6 x 6 x 1\nflatten\nfc 2\n")
    command = ["train", str(tmp_path / "n.cnn"), "--data", str(tmp_path / "set"), "--epochs", "1"]
    assert main([*command, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"images of each class: many\x1b[2J 24, rare 1" in out
    assert "24 times as many" in out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["classes"] == ["many\x1b[2J", "rare"]
