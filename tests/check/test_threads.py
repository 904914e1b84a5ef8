"""Many threads check at once: all end, each with the answers that one thread gets.

In a process of its own with a time limit, so that a deadlock fails and hangs nothing.
`CNNDSL_MANY=1` lets each thread check 500 files instead of three.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MANY = os.environ.get("CNNDSL_MANY") == "1"
THREADS, FILES, SECONDS = 20, 500 if MANY else 3, 3000 if MANY else 120

PROGRAM = """
import sys
import threading
import cnndsl

threads, files = map(int, sys.argv[1:])
sys.setswitchinterval(1e-5)

def text(n):
    # Sizes and remainders of its own in each, so that no thread finds another one's answers.
    size, step = 2 + n % 7, 2 + n % 5
    return (
        f"input H x W x 3\\nrequire H % {n + 2} == 0, W >= {n + 8}\\n"
        f"conv {n % 9 + 1} {size}x{size} stride={step}\\npool max 2\\n"
        + ("crop 0 0 0 1\\n" if n % 3 else "if H % 2 == 1 { relu } else { relu }\\n")
        + ("globalpool avg\\nflatten\\nfc 10" if n % 2 else "flatten\\nfc 10")
    )

def answer(n):
    report = cnndsl.check(source=text(n))
    return report.ok, report.valid, [(d.code, d.message, d.notes) for d in report.diagnostics]

numbers = [[i % files if i % 2 else t * files + i for i in range(files)] for t in range(threads)]
found = [None] * threads

def work(t):
    found[t] = [answer(n) for n in numbers[t]]

workers = [threading.Thread(target=work, args=(t,), daemon=True) for t in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
asked = sorted({n for row in numbers for n in row})
alone = {n: answer(n) for n in asked[:: 1 + len(asked) // 40]}
wrong = [
    (n, got, alone[n])
    for row, answers in zip(numbers, found)
    for n, got in zip(row, answers or [None] * len(row))
    if n in alone and got != alone[n]
]
print(len(alone), wrong[:3])
sys.exit(1 if wrong else 0)
"""


def test_threads_that_check_at_once_all_end_with_the_right_answers():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(THREADS), str(FILES)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert int(done.stdout.split()[0]) > min(FILES, 30)  # answers that were compared
