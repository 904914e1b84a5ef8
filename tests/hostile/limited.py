"""Checks a file in a process that may use so much time and memory; prints what it found.

`python -m tests.hostile.limited FILE` prints `ok`, or the codes; a traceback is a failure.
"""

import math
import resource
import sys
from pathlib import Path

SECONDS = 2
BYTES = 300 * 2**20


def main(path: str) -> None:
    # The modules are loaded first: what a hostile text costs is what counts.
    import cnndsl.sizes.condition  # noqa: F401 (isl, loaded as above)
    from cnndsl.check import check_file
    from cnndsl.diagnostics.model import Sink
    from cnndsl.diagnostics.render import report as render

    spent = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(spent.ru_utime + spent.ru_stime + SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    report, source = check_file(path, {}, Sink())
    render(report.diagnostics)
    for diagnostic in report.diagnostics:
        text = diagnostic.span.source.text
        assert 0 <= diagnostic.span.start <= diagnostic.span.end <= len(text)
    assert source is None or report.ok == (report.graph is not None)
    print("ok" if report.ok else " ".join(sorted({d.code for d in report.diagnostics})))


if __name__ == "__main__":
    assert Path(sys.argv[1]).name
    main(sys.argv[1])
