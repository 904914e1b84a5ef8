"""Several processes that train together run the same kernels: the first decides, the others follow.

torch.distributed carries what was decided, as text. Knows nothing of what it says.
"""

import json
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist

from cnndsl.tune.errors import TuneError


def decided(decide: Callable[[], str]) -> str:
    """What `decide` gives in the first process; in the others it is not called.

    Where it raises `TuneError` there, all raise it: nobody waits for a decision that never comes.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return decide()
    answer = ""
    failed: BaseException | None = None
    if dist.get_rank() == 0:
        try:
            answer = json.dumps({"found": decide()})
        except BaseException as error:
            failed = error
            known = [error.message, *error.fixes] if isinstance(error, TuneError) else None
            answer = json.dumps({"error": known or [f"the first process failed: {error}"]})
    found = json.loads(_broadcast(answer))
    if failed is not None:
        raise failed
    if "error" in found:
        raise TuneError(*found["error"])
    return found["found"]


def _broadcast(text: str) -> str:
    """The first process's text, in all."""
    # NCCL sends what lies on GPUs, gloo what lies in memory.
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    content = list(text.encode())
    length = torch.tensor([len(content)], dtype=torch.int64, device=device)
    dist.broadcast(length, 0)
    values: Any = torch.zeros(int(length), dtype=torch.uint8, device=device)
    if content:
        values.copy_(torch.tensor(content, dtype=torch.uint8))
    dist.broadcast(values, 0)
    return bytes(cast("list[int]", values.cpu().tolist())).decode()
