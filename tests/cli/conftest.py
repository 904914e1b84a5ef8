"""What tests of commands share."""

import pytest

from cnndsl.emit.module import emit
from cnndsl.runtime import load


@pytest.fixture(scope="module")
def emitted_once():
    """Writing a module takes a second, and the tests of one file ask for the same few."""
    known = {}

    def emit_once(graph, source, *given, **how):
        key = source.text, given, *how.items()
        if key not in known:
            known[key] = emit(graph, source, *given, **how)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "emit", emit_once)
        yield
