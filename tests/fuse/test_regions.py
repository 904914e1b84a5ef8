"""Which layers share a kernel: as many as it can take in, and no more."""

import pytest

from cnndsl.fuse.plan import plan
from cnndsl.fuse.regions import MOST_REPEATED_TERMS, Region, parts, repeated_terms
from cnndsl.fuse.text import dump
from cnndsl.graph.graph import INPUT, Graph
from cnndsl.layers.activations import Relu, Softmax
from cnndsl.layers.norms import BatchNorm
from cnndsl.layers.pool import GlobalPool
from cnndsl.layers.regularise import Dropout
from cnndsl.layers.reshape import Flatten
from tests.emit.networks import conv, fc, lenet, network, pool


def grouped(graph: Graph) -> str:
    """Regions in brackets, other layers bare: `[conv1 relu1] flatten1`."""
    return " ".join(
        f"[{' '.join(node.path for node in part.nodes)}]" if isinstance(part, Region) else part.path
        for part in parts(graph)
    )


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ((conv(2, 3), Relu(), pool("max", 2)), "[conv1 relu1 pool1]"),
        ((conv(2, 3), pool("max", 2), Relu()), "[conv1 pool1 relu1]"),
        ((conv(2, 3), BatchNorm(), Relu(), pool("max", 2)), "[conv1 batchnorm1 relu1 pool1]"),
        ((conv(2, 3), BatchNorm(), pool("max", 2), Relu()), "[conv1 batchnorm1 pool1 relu1]"),
        ((conv(2, 3), Relu(), pool("avg", 2)), "[conv1 relu1 pool1]"),
        # an average and a ReLU cannot change places
        ((conv(2, 3), pool("avg", 2), Relu()), "[conv1 pool1] relu1"),
        # one of each kind only
        ((conv(2, 3), Relu(), Relu()), "[conv1 relu1] relu2"),
        ((conv(2, 3), pool("max", 2), pool("max", 2)), "[conv1 pool1] pool2"),
        ((conv(2, 3), BatchNorm(), BatchNorm()), "[conv1 batchnorm1] batchnorm2"),
        # batchnorm scales the sum itself, so it stands right behind it
        ((conv(2, 3), Relu(), BatchNorm()), "[conv1 relu1] batchnorm1"),
        ((conv(2, 3), pool("max", 2), BatchNorm()), "[conv1 pool1] batchnorm1"),
        # nothing starts without an anchor, and what is neither ends a region
        ((Relu(), pool("max", 2), conv(2, 3)), "relu1 pool1 [conv1]"),
        ((conv(2, 3), Dropout(), Relu()), "[conv1] dropout1 relu1"),
        ((conv(2, 3), GlobalPool("avg"), Flatten(), fc(3)), "[conv1] globalpool1 flatten1 [fc1]"),
        # fully connected layers take in an activation only
        ((Flatten(), fc(3), BatchNorm(), Relu()), "flatten1 [fc1] batchnorm1 relu1"),
        ((Flatten(), fc(3), Relu(), fc(2), Softmax()), "flatten1 [fc1 relu1] [fc2] softmax1"),
    ],
)
def test_what_shares_a_kernel(layers, wanted):
    assert grouped(network((20, 20, 3), *layers)) == wanted


@pytest.mark.parametrize(
    ("window", "fits"),
    [
        (pool("max", (15, 17)), True),  # 255 positions
        (pool("max", 16), False),
        (pool("avg", (31, 1)), True),
        (pool("avg", (16, 2)), False),
    ],
)
def test_windows_as_large_as_a_kernel_keeps_track_of(window, fits):
    graph = network((40, 40, 1), conv(2, 1), Relu(), window)
    assert grouped(graph) == ("[conv1 relu1 pool1]" if fits else "[conv1 relu1] pool1")


def test_an_average_without_an_activation_may_be_of_any_size():
    assert grouped(network((40, 40, 1), conv(2, 1), pool("avg", 20))) == "[conv1 pool1]"


def test_overlapping_windows_are_fused_while_repeating_costs_less_than_it_saves():
    stem = network(
        (64, 64, 3), conv(8, 7, stride=2, pad=3), Relu(), pool("max", 3, stride=2, pad=1)
    )
    deep = network((64, 64, 64), conv(8, 3), Relu(), pool("max", 3, stride=2))
    assert grouped(stem) == "[conv1 relu1 pool1]"
    assert grouped(deep) == "[conv1 relu1] pool1"
    terms = repeated_terms(deep.nodes[0], deep.nodes[2].layer)
    assert terms == 64 * 9 * (9 / 4 - 1) > MOST_REPEATED_TERMS


def test_a_tensor_with_two_readers_ends_a_region():
    chain = network((8, 8, 1), conv(2, 3), Relu(), pool("max", 2))
    first, second, third = chain.nodes
    also = third.replace(path="pool2", inputs=(first.path,))
    assert grouped(chain.replace(nodes=(first, second, third, also))) == "[conv1] relu1 pool1 pool2"


def test_the_result_of_a_network_ends_a_region():
    chain = network((8, 8, 1), conv(2, 3), Relu())
    assert grouped(chain.replace(result="conv1")) == "[conv1] relu1"


def test_a_region_stands_where_its_anchor_does():
    chain = network((8, 8, 1), conv(2, 3), ("other", conv(2, 3)), Relu())
    first, other, relu = chain.nodes
    graph = chain.replace(
        nodes=(first, other.replace(inputs=(INPUT,)), relu.replace(inputs=("conv1",)))
    )
    assert grouped(graph) == "[conv1 relu1] [other]"


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        ((conv(4, 3, pad=1), Relu(), pool("max", 2)), [8 * 8 * 2 * 4, 4 * 4 * 4]),
        ((conv(4, 3, pad=1), pool("max", 2)), [8 * 8 * 2 * 4, 4 * 4 * 4]),
        ((conv(4, 3, pad=1), Relu(), pool("avg", 2)), [8 * 8 * 2 * 4, 4 * 4 * 4]),
        ((conv(4, 3, pad=1), Relu(), pool("avg", 4)), [8 * 8 * 2 * 4, 2 * 2 * 4 * 4]),
        ((conv(4, 3, pad=1), pool("avg", 2)), [8 * 8 * 2 * 4]),
        ((conv(4, 3, pad=1), Relu()), [8 * 8 * 2 * 4, 8 * 8 * 4 * 4]),
        ((conv(4, 3, pad=1),), [8 * 8 * 2 * 4]),
    ],
)
def test_what_backward_keeps(layers, kept):
    (region,) = parts(network((8, 8, 2), *layers))
    assert [k.bytes.constant for k in plan(region).kept] == kept
    assert plan(region).bytes.constant == sum(kept)


def test_a_layer_without_bias_needs_no_gradient_of_it_but_one_with_batchnorm_does():
    assert plan(parts(network((8, 8, 2), conv(4, 3, bias=False)))[0]).gradients == (
        "input",
        "weight",
    )
    normed = plan(parts(network((8, 8, 2), conv(4, 3, bias=False), BatchNorm()))[0])
    assert normed.gradients == ("input", "weight", "bias")


def test_the_dump_names_each_layer_once():
    text = dump(parts(lenet()))
    assert [text.count(f" {node.path} ") for node in lenet().nodes] == [1] * 13
    assert text.count("region ") == 5
