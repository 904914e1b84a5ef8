"""Work in several forked processes, with what torchrun would tell them in their environment.

Forked from one that has imported torch, they start in milliseconds.
"""

import faulthandler
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable

from cnndsl.train import RankError

LOST = 3  # the exit status of a process that found another one gone


def side_by_side(world: int, work: Callable[[], None]) -> list[int]:
    """Start the work in so many processes; their ids."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            status = 1
            faulthandler.dump_traceback_later(110)  # where it hangs, if it does
            try:
                names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}
                os.environ.update({name: str(value) for name, value in names.items()})
                os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
                work()
                status = 0
            except RankError:
                status = LOST
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    return children


def ends(children: list[int], within: float) -> list[int | None]:
    """The exit statuses of processes that end in time; None, and an end, for the others."""
    until = time.monotonic() + within
    found: dict[int, int] = {}
    while len(found) < len(children) and time.monotonic() < until:
        for child in children:
            if child not in found:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    found[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    for child in children:
        if child not in found:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return [found.get(child) for child in children]
