"""Ctrl-C while training: the first ends the step and saves, a second one ends at once.

SIGTERM, with which machines are shut down and jobs are ended, is taken in the same way.
"""

import os
import signal
import socket
import threading
from types import FrameType, TracebackType
from typing import ClassVar, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# How long a process that trains with others may take to come back from a step after a signal.
_GRACE = 5.0


class Interrupts:
    """While this is entered, signals only leave a mark. Outside the main thread it does nothing.

    In a job of several processes, `is_patient`, a second signal means nothing: torchrun passes on
    what the terminal has sent to each process already. There, `Watch` sees to it that all end.
    """

    END = signal.SIGTERM

    def __init__(self, *, is_patient: bool = False) -> None:
        self.caught: int | None = None
        self._is_patient = is_patient
        self._before: dict[int, signal.Handlers | object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType] (as it was given)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.caught is not None and not self._is_patient:
            os._exit(128 + number)
        self.caught = number


class Watch:
    """Ends a process that is told to end while it waits for another one, which may be gone.

    Python runs signal handlers between instructions, so never in a wait that does not return. This
    one reads from a thread of its own which signals came, and gives the main thread some seconds.
    """

    _open: ClassVar[list["Watch"]] = []

    def __init__(self, grace: float = _GRACE) -> None:
        self._grace = grace
        self._noticed = threading.Event()
        self._ours, self._theirs = socket.socketpair()
        self._before = -1
        self._is_set = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._theirs.setblocking(False)
            self._before = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
            self._is_set = True
            threading.Thread(target=self._look, daemon=True).start()
        self._open.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.remove(self)
        self._noticed.set()
        if self._is_set:
            signal.set_wakeup_fd(self._before)
        self._theirs.close()  # which ends the thread

    @classmethod
    def notice(cls) -> None:
        """The main thread has come back, and sees to the end itself."""
        for watch in cls._open:
            watch._noticed.set()

    def _look(self) -> None:
        with self._ours:
            while numbers := self._ours.recv(64):
                for number in numbers:
                    if number in _SIGNALS and not self._noticed.wait(self._grace):
                        os._exit(128 + number)
