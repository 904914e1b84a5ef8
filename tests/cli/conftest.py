"""What tests of commands share."""

import pytest

from cnndsl.emit.module import emit
from cnndsl.runtime import load


@pytest.fixture(scope="module")
def emitted_once():
    """Writing a module takes a second, and the tests of one file ask for the same few."""
    known = {}

    def emit_once(graph, source):
        if source.text not in known:
            known[source.text] = emit(graph, source)
        return known[source.text]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "emit", emit_once)
        yield
