"""Processes that compile side by side, as many as there are cores; they stay until they are closed.

Processes of their own, not forks: a process that uses a GPU must not be forked.
"""

import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cnndsl.tune import worker
from cnndsl.tune.subject import Question
from cnndsl.tune.task import Static

MOST = 16


class Compilers:
    """A few workers, started when there is something to do."""

    def __init__(self, gpu: str, count: int | None = None) -> None:
        """`gpu` is a target as `compile --target` takes it."""
        self._gpu = gpu
        self._count = count or max(1, min(MOST, len(os.sched_getaffinity(0))))
        self._all: list[subprocess.Popen[str]] = []
        self._free: queue.SimpleQueue[subprocess.Popen[str] | None] = queue.SimpleQueue()
        for _ in range(self._count):
            self._free.put(None)

    def compile(self, questions: Sequence[Question]) -> list[Static]:
        """What each uses, in their order."""
        lines = [worker.ask(question, self._gpu) for question in questions]
        with ThreadPoolExecutor(self._count) as threads:
            return list(threads.map(self._answer, lines))

    def _answer(self, line: str) -> Static:
        process = self._free.get()
        try:
            if process is None or process.poll() is not None:
                process = self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError as error:
            return Static(error=f"the compiler's process ended: {error}")
        finally:
            self._free.put(process)
        # A compiler may crash: that is the candidate's fault, and only its loss.
        return worker.understand(answer) if answer else Static(error="the compiler crashed")

    def _start(self) -> subprocess.Popen[str]:
        # Kernels that are made for the interpreter cannot be compiled.
        environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        process = subprocess.Popen(
            [sys.executable, "-m", "cnndsl.tune.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._all.append(process)
        return process

    def close(self) -> None:
        """End the workers."""
        for process in self._all:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._all:
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._all.clear()
