"""Random numbers: seeding Python's, numpy's and torch's, and keeping their state as JSON.

Every epoch starts from a seed of its own, so that its order and its dropout follow from the run's
seed and the epoch alone; inside an epoch, a checkpoint keeps where each generator stands.
"""

import hashlib
import random
from base64 import b64decode, b64encode
from typing import Any

import numpy as np
import torch
from torch import Tensor


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for one epoch of a run; those of neighbouring seeds and epochs have no relation."""
    text = f"cnndsl {seed} {epoch}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "little")


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators, on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType] (torch's annotation)


def state() -> dict[str, Any]:
    """Where every generator stands, as values that JSON takes."""
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    return {
        "python": [version, list(words), gauss],
        "numpy": {
            "key": [int(word) for word in numpy_state["state"]["key"]],
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": _text(torch.get_rng_state()),
        "cuda": [_text(s) for s in torch.cuda.get_rng_state_all()],
    }


def restore(kept: dict[str, Any]) -> None:
    """Put every generator where it stood."""
    version, words, gauss = kept["python"]
    random.setstate((version, tuple(words), gauss))
    numbers = kept["numpy"]
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": np.array(numbers["key"], dtype=np.uint32), "pos": numbers["pos"]},
            "has_gauss": numbers["has_gauss"],
            "gauss": numbers["gauss"],
        }
    )
    torch.set_rng_state(_tensor(kept["torch"]))
    if len(kept["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_tensor(s) for s in kept["cuda"]])


def _text(values: Tensor) -> str:
    return b64encode(values.cpu().numpy().tobytes()).decode("ascii")


def _tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(b64decode(text)), dtype=torch.uint8)
