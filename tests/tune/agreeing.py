"""Two processes that tune together; each writes what it was given.

torchrun --nproc-per-node 2 -m tests.tune.agreeing FOLDER
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from cnndsl.fuse.choices import write
from cnndsl.tune import TuneError, door, ranks
from cnndsl.tune.door import Shape
from cnndsl.tune.store import Store
from tests.fuse.pinning import graph_of
from tests.tune.simulated import Simulated, quick_text


def main() -> None:
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    device = Simulated({"forward: library": 5.0} if rank == 0 else {"forward: staged": 5.0})
    door.text_of = quick_text
    graph, _ = graph_of("input 8 x 8 x 16\nconv 16 3x3; relu\nflatten; fc 3\n")

    def decide() -> str:
        shape = Shape(4, (), torch.float32)
        return write(door.measure(graph, shape, device, Store(folder / f"cache{rank}")))

    (folder / f"{rank}.json").write_text(ranks.decided(decide))
    (folder / f"{rank}.opened").write_text(str(min(1, len(device.opened))))
    device.capturing = rank == 0
    try:
        ranks.decided(decide)
    except TuneError as error:
        (folder / f"{rank}.error").write_text(str(error))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
