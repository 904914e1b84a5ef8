"""photos-10: small colour images with real pixels, in CIFAR's shape, cut out of ten photographs.

The class of an image is the photograph that it was cut from. A photograph is divided into cells of
64 x 64 pixels, and each cell goes to training or to the test as a whole: no pixel is in both.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from cnndsl.train.errors import TrainError

Pair = tuple[Tensor, Tensor]

# Class by class: the file and the package that has it.
PHOTOGRAPHS = {
    "astronaut": ("skimage", "astronaut.png"),
    "cat": ("skimage", "chelsea.png"),
    "china": ("sklearn", "china.jpg"),
    "coffee": ("skimage", "coffee.png"),
    "flower": ("sklearn", "flower.jpg"),
    "galaxies": ("skimage", "hubble_deep_field.jpg"),
    "motorcycle": ("skimage", "motorcycle_left.png"),
    "retina": ("skimage", "retina.jpg"),
    "rocket": ("skimage", "rocket.jpg"),
    "tissue": ("skimage", "ihc.png"),
}

SIZE = 32
TRAINING, TEST = 640, 160  # images of each class
_CELL = 64
_TEST_CELL = 5  # every fifth cell is kept for the test
_STEP = 5  # pixels between the places in a cell where images are cut


def cut(read: Callable[[str, str], bytes]) -> tuple[Pair, Pair]:
    """Training and test images, uint8 (N, 3, 32, 32), of the photographs that `read` finds."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    labels: tuple[list[int], list[int]] = ([], [])
    for label, (package, name) in enumerate(PHOTOGRAPHS.values()):
        pixels = _pixels(read(package, name), name)
        cells = [
            (top, left)
            for top in range(0, pixels.shape[1] - _CELL + 1, _CELL)
            for left in range(0, pixels.shape[2] - _CELL + 1, _CELL)
        ]
        held_back = [cell for i, cell in enumerate(cells) if i % _TEST_CELL == _TEST_CELL - 1]
        kept = [cell for i, cell in enumerate(cells) if i % _TEST_CELL != _TEST_CELL - 1]
        for part, (chosen, count) in enumerate(((kept, TRAINING), (held_back, TEST))):
            parts[part].extend(_cut(pixels, chosen, count))
            labels[part].extend([label] * count)
    training, test = (
        (torch.stack(images), torch.tensor(classes))
        for images, classes in zip(parts, labels, strict=True)
    )
    return training, test


def _pixels(content: bytes, name: str) -> Tensor:
    try:
        image = Image.open(BytesIO(content)).convert("RGB")
    except OSError as error:
        raise TrainError(f"`{name}` cannot be read as an image: {error}", "get it anew") from error
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(image.height, image.width, 3).permute(2, 0, 1)


def _cut(pixels: Tensor, cells: Sequence[tuple[int, int]], count: int) -> list[Tensor]:
    """So many images, spread over the cells evenly and within a cell over all places."""
    places = [
        (top, left)
        for top in range(0, _CELL - SIZE + 1, _STEP)
        for left in range(0, _CELL - SIZE + 1, _STEP)
    ]
    if len(cells) > count:
        cells = [cells[i * len(cells) // count] for i in range(count)]
    images: list[Tensor] = []
    for number in range(count):
        turn, cell = divmod(number, len(cells))
        # Where cells are many, each gives few images; let neighbours give them from other places.
        down, right = places[(turn * 11 + cell * 17) % len(places)]
        top, left = cells[cell][0] + down, cells[cell][1] + right
        images.append(pixels[:, top : top + SIZE, left : left + SIZE])
    return images


def installed(package: str, name: str, places: Sequence[str]) -> bytes | None:
    """The content of a photograph of an installed package, which is not imported for it."""
    folder = "data" if package == "skimage" else "datasets/images"
    found = next(
        (p for p in (Path(place) / folder / name for place in places) if p.is_file()), None
    )
    return found.read_bytes() if found else None
