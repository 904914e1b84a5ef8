"""Random networks of the whole language against PyTorch, and free sizes against given ones.

`CNNDSL_MANY=1` draws 500 of each kind instead of a few.
"""

import os
from contextlib import suppress

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from cnndsl.check import check_source
from cnndsl.source import Source
from cnndsl.syntax.format import format_text
from tests.properties.author import Author
from tests.properties.language import Meaning, Refused, text_of
from tests.properties.pytorch import Ran
from tests.syntax.networks import meaning

MANY = os.environ.get("CNNDSL_MANY") == "1"

randoms = st.randoms(use_true_random=False)
few = settings(
    max_examples=500 if MANY else 40,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def check(text, **values):
    return check_source(Source("drawn.cnn", text), values)


def found(report) -> list[str]:
    return [f"{d.code} {d.span.line}: {d.message}" for d in report.diagnostics]


def meaning_of(network) -> Meaning:
    meaning = Meaning(network.types, network.names, network.defaults)
    with suppress(Refused):
        meaning.walk(network.statements, network.names, "")
    return meaning


def drawn(rng, **options):
    network = Author(rng, **options).network()
    text = text_of(network)
    note(text)
    return network, text


@few
@given(randoms)
def test_accepted_exactly_when_pytorch_runs_and_with_its_sizes(rng):
    network, text = drawn(rng, mistaken=0.03)
    nodes = meaning_of(network).nodes
    ran = Ran(network.types, [(node.layer, node.inputs) for node in nodes])
    report = check(text)
    if ran.refusal:
        assert not report.ok, ran.refusal
        return
    assert report.ok, found(report)
    assert [[dim.constant for dim in layer.output] for layer in report.layers] == ran.sizes
    assert report.totals.params.constant == ran.params
    assert report.totals.buffers.constant == ran.buffers
    expectation = f"expect params == {ran.params}, 2 * params < {2 * ran.params} + 1\n"
    assert check(text + expectation).ok
    assert not check(text + expectation.replace("==", "!=")).ok


@few
@given(randoms)
def test_the_graph_has_the_layers_that_the_text_means(rng):
    network, text = drawn(rng)
    nodes = meaning_of(network).nodes
    report = check(text)
    assert report.ok, found(report)
    paths = ["input", *(node.path for node in report.graph.nodes)]
    assert len(set(paths)) == len(paths)
    numbers = {path: number - 1 for number, path in enumerate(paths)}
    got = [(n.layer, tuple(numbers[i] for i in n.inputs)) for n in report.graph.nodes]
    assert got == [(node.layer, node.inputs) for node in nodes]
    for node, wanted in zip(report.graph.nodes, nodes, strict=True):
        assert wanted.path is None or node.path == wanted.path
        assert node.labelled == (wanted.path is not None)


@few
@given(randoms)
def test_free_sizes_give_what_numbers_give(rng):
    """`valid`, sizes and counts: found once for all sizes and put in, or found anew."""
    author = Author(rng, free=True)
    network = author.network()
    text = text_of(network)
    note(text)
    free = check(text)
    # A network of an author may well leave layers unread, or have a batchnorm on one pixel.
    allowed = ("E304", "E401", "E402", "W601", "W602", "W604", "W605")
    conditional = [d for d in free.diagnostics if d.code in allowed]
    assert [d.code for d in free.diagnostics if d not in conditional] == []
    assert len([d for d in conditional if d.code in ("E401", "E402")]) <= 1
    tried = network.types
    usual = {"H": tried.height.constant, "W": tried.width.constant}
    if "width0" in free.symbols:
        usual["width0"] = network.names["width0"]
    sizes = [usual] + [
        {name: rng.choice([1, 2, 3, 5, 6, 8, 12, 15, 16, 20, 33]) for name in usual}
        for _ in range(5)
    ]
    for values in sizes:
        known = check(text, **values)
        note(f"{values}: {found(known)}; valid: {free.valid}")
        if has_new_gate(free, known):
            continue
        assert eval(free.valid, dict(values)) == known.ok
        if not known.ok:
            continue
        assert [d.evaluate(values) for d in dims(free)] == [d.constant for d in dims(known)]
        assert counted(free, values) == counted(known, {})


def dims(report):
    return [dim for layer in report.layers for dim in layer.output]


def counted(report, values):
    """Parameters, arithmetic and bytes of each layer and of all."""
    each = [count for layer in report.layers for count in (layer.params, layer.macs, layer.bytes)]
    total = report.totals
    each += [total.params, total.buffers, total.macs, total.weight_bytes, total.training_bytes]
    return [count.evaluate(values) for count in each]


def has_new_gate(free, known) -> bool:
    """Whether an image that is multiplied happens to be 1 x 1: as a number it is a gate."""
    outputs = {layer.name: layer.output for layer in free.layers}
    small = {
        layer.name for layer in known.layers if [str(d) for d in layer.output[:2]] == ["1"] * 2
    }
    return any(
        layer.kind == "multiply"
        and any(i in small and [str(d) for d in outputs[i][:2]] != ["1"] * 2 for i in layer.inputs)
        for layer in known.layers
    )


@few
@given(randoms)
def test_receptive_fields_of_free_sizes(rng):
    """Where symbols leave one open, a number may settle it; else both are the same."""
    network = Author(rng, free=True).network()
    text = text_of(network)
    note(text)
    free = check(text)
    values = {name: rng.choice([8, 16, 32]) for name in free.symbols}
    known = check(text, **values)
    if not known.ok:
        return
    for a, b in zip(free.layers, known.layers, strict=True):
        if a.receptive_field is not None:
            assert [n.evaluate(values) for n in a.receptive_field.size] == [
                n.constant for n in b.receptive_field.size
            ]
            assert a.receptive_field.stride == b.receptive_field.stride
            assert a.receptive_field.offset == b.receptive_field.offset


@few
@given(randoms)
def test_the_formatter_keeps_the_meaning(rng):
    _, text = drawn(rng, mistaken=0.03)
    ugly = text.replace("{\n", "{  # why\n\n").replace(" = ", "=").replace("\n    ", "\n ")
    for source in (text, ugly):
        made = format_text(Source("drawn.cnn", source))
        assert meaning(made) == meaning(source)
        assert format_text(Source("drawn.cnn", made)) == made
        assert check(made).ok == check(text).ok
