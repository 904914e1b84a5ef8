"""Which layers share a kernel: as many as it can take in, and no more."""

from pathlib import Path

import pytest

from cnndsl.check import check_source
from cnndsl.fuse.plan import Step, plan, step
from cnndsl.fuse.regions import Region, parts
from cnndsl.fuse.text import dump
from cnndsl.graph.graph import INPUT, Graph
from cnndsl.layers.activations import Gelu, Relu, Relu6, Silu, Softmax
from cnndsl.layers.norms import BatchNorm
from cnndsl.layers.pool import GlobalPool
from cnndsl.layers.regularise import Dropout
from cnndsl.layers.reshape import Flatten
from cnndsl.layers.types import show
from cnndsl.source import Source
from tests.emit.networks import conv, fc, lenet, network, pool

ZOO = Path(__file__).parent.parent.parent / "examples" / "zoo"
LEFT = {"vgg16_bn": ("pool", "fc", "relu")}  # the average to 7x7, and the large weights behind it


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
        # batchnorm scales the sum itself, or the largest of sums
        ((conv(2, 3), Relu(), BatchNorm()), "[conv1 relu1] batchnorm1"),
        ((conv(2, 3), pool("max", 2), BatchNorm(), Gelu()), "[conv1 pool1 batchnorm1 gelu1]"),
        ((conv(2, 3), pool("avg", 2), BatchNorm()), "[conv1 pool1] batchnorm1"),
        ((conv(2, 3), Relu(), pool("max", 2), BatchNorm()), "[conv1 relu1 pool1] batchnorm1"),
        ((conv(2, 3), BatchNorm(), Silu()), "[conv1 batchnorm1 silu1]"),
        ((conv(3, 3, groups=3), BatchNorm(), Relu6()), "[conv1 batchnorm1 relu61]"),
        # what does not rise cannot change places with a maximum, but may stand behind it
        ((conv(2, 3), Gelu(), pool("max", 2)), "[conv1 gelu1] pool1"),
        ((conv(2, 3), pool("max", 2), Gelu()), "[conv1 pool1 gelu1]"),
        # nothing starts without an anchor, and what is neither ends a region
        ((Relu(), pool("max", 2), conv(2, 3)), "relu1 pool1 [conv1]"),
        ((conv(2, 3), Dropout(), Relu()), "[conv1] dropout1 relu1"),
        ((conv(2, 3), GlobalPool("avg"), Flatten(), fc(3)), "[conv1] globalpool1 flatten1 [fc1]"),
        # fully connected layers take in an activation only
        ((Flatten(), fc(3), BatchNorm(), Relu()), "[flatten1 fc1] batchnorm1 relu1"),
        ((Flatten(), fc(3), Relu(), fc(2), Softmax()), "[flatten1 fc1 relu1] [fc2] softmax1"),
        # what is flattened on the way is read by nobody else
        ((conv(2, 3), Flatten(), Dropout(), fc(3)), "[conv1] flatten1 dropout1 [fc1]"),
        # the library's layer gets a vector: here with weights for 18·18·9 features
        ((conv(9, 3), Flatten(), fc(720)), "[conv1] flatten1 fc1"),
        ((conv(9, 3), Flatten(), fc(719)), "[conv1] [flatten1 fc1]"),
        # one channel, or one pixel: both orders are the same
        ((conv(1, 3), Flatten(), fc(3)), "[conv1] flatten1 [fc1]"),
        ((conv(7, 20), Flatten(), fc(3)), "[conv1] flatten1 [fc1]"),
        ((conv(7, (1, 20)), Flatten(), fc(3)), "[conv1] [flatten1 fc1]"),
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


def test_a_tensor_with_two_readers_ends_a_region():
    chain = network((8, 8, 1), conv(2, 3), Relu(), pool("max", 2))
    first, second, third = chain.nodes
    also = third.replace(path="pool2", inputs=(first.path,))
    assert grouped(chain.replace(nodes=(first, second, third, also))) == "[conv1] relu1 pool1 pool2"


def test_a_vector_that_something_else_reads_is_made():
    chain = network((8, 8, 2), Flatten(), fc(3))
    flatten, first = chain.nodes
    also = first.replace(path="fc2")
    assert grouped(chain.replace(nodes=(flatten, first, also))) == "flatten1 [fc1] [fc2]"
    assert grouped(chain.replace(outputs=(("vector", "flatten1"),))) == "flatten1 [fc1]"
    assert grouped(chain.replace(result="flatten1")) == "flatten1 [fc1]"


def test_a_region_that_flattens_reads_an_image():
    _, region = parts(network((8, 6, 2), conv(5, 3), Flatten(), fc(3), Relu()))
    assert isinstance(region, Region)
    assert region.inputs == ("conv1",)
    assert show(region.arrives) == "6 x 4 x 5"
    assert isinstance(region.nodes[0].layer, Flatten)
    assert [k.bytes.constant for k in plan(region).kept] == [6 * 4 * 5 * 4, 3 * 4]


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
    assert normed.gradients == ("batchnorm", "sums", "input", "weight")
    assert normed.forward == ("the sums", "their statistics", "what follows")


# ── residuals ────────────────────────────────────────────────────────────────────────────────────


def checked(lines: str) -> Graph:
    graph = check_source(Source("x.cnn", f"input 8 x 8 x 4\n{lines}\n")).graph
    assert graph is not None
    return graph


@pytest.mark.parametrize(
    ("lines", "wanted", "residuals"),
    [
        ("add { conv 4 1x1 } { skip }; relu", "[conv1 add1 relu1]", ["input"]),
        ("add { skip } { conv 4 1x1; batchnorm }", "[conv1 batchnorm1 add1]", ["input"]),
        # the branch that is computed last takes the merge in
        (
            "add { conv 4 1x1; relu; conv 4 1x1 } { conv 4 1x1; batchnorm }; relu",
            "[conv1 relu1] [conv2] [conv3 batchnorm1 add1 relu2]",
            ["conv2"],
        ),
        ("relu as a; conv 4 1x1; add a; silu", "a [conv1 add1 silu1]", ["a"]),
        # what is added must be there before: here it is computed later
        ("add { conv 4 1x1 } { relu }", "[conv1] relu1 add1", []),
        # of three branches, behind an activation or a pool, or twice the same: as operators
        ("add { conv 4 1x1 } { skip } { skip }", "[conv1] add1", []),
        ("add { conv 4 1x1; relu } { skip }", "[conv1 relu1] add1", []),
        ("add { conv 4 1x1; pool max 3 stride=1 pad=1 } { skip }", "[conv1 pool1] add1", []),
        ("conv 4 1x1 as a; add a", "[a] add1", []),
        # and no pool behind it
        ("add { conv 4 1x1 } { skip }; pool max 2", "[conv1 add1] pool1", ["input"]),
        ("multiply { conv 4 1x1 } { skip }", "[conv1] multiply1", []),
    ],
)
def test_what_is_added_to(lines, wanted, residuals):
    graph = checked(lines)
    assert grouped(graph) == wanted
    regions = [part for part in parts(graph) if isinstance(part, Region)]
    assert [part.residual for part in regions if part.merge] == residuals


def test_a_skip_that_is_asked_for_stays():
    assert grouped(checked("add { conv 4 1x1 } { skip as kept }\noutput kept")) == (
        "[conv1] kept add1"
    )


def test_a_residual_with_an_activation_is_kept_and_has_a_gradient():
    (plain,) = parts(checked("add { conv 4 1x1 bias=no } { skip }"))
    (relu,) = parts(checked("add { conv 4 1x1 bias=no } { skip }; relu"))
    assert plan(plain).gradients == ("input", "weight")
    assert plan(relu).gradients == ("input", "weight", "residual")
    (normed,) = parts(checked("add { conv 4 1x1 bias=no; batchnorm } { skip }; relu"))
    assert [k.what for k in plan(normed).kept] == ["the input", "the sums", "the residual"]


def test_the_dump_counts_the_launches_of_a_step():
    graph = checked("conv 4 1x1 bias=no; batchnorm; relu; conv 4 1x1; flatten; fc 3")
    # the gradient of the network's input is not asked for
    assert step(parts(graph)) == Step(3 + 1 + 1, 3 + 3 + 3, 0)
    assert "a step of training: 5 launches forward, 9 backward" in dump(parts(graph))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "vgg16_bn", "darknet19"])
def test_of_published_networks_nothing_is_left_but_their_heads(name):
    path = ZOO / f"{name}.cnn"
    graph = check_source(Source(path.name, path.read_text("utf-8"))).graph
    assert graph is not None
    left = {part.layer.kind for part in parts(graph) if not isinstance(part, Region)}
    assert left <= {"globalpool", "flatten", "dropout", "softmax", *LEFT.get(name, ())}


def test_a_library_reads_large_weights():
    small = parts(network((2048,), fc(1000)))
    large = parts(network((4096,), fc(4096)))
    assert [isinstance(part, Region) for part in (*small, *large)] == [True, False]


def test_the_dump_names_each_layer_once():
    text = dump(parts(lenet()))
    assert [text.count(f" {node.path} ") for node in lenet().nodes] == [1] * 13
    assert text.count("region ") == 5
