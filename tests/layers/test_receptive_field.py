"""What the checker says an output pixel sees, against the pixels that have a gradient."""

import random

import pytest
import torch

from cnndsl.check import check_source
from cnndsl.layers.base import Layer, Merge
from cnndsl.layers.table import LAYERS
from cnndsl.layers.types import ImageType
from cnndsl.source import Source
from tests.layers.drawing import Case, Holder, check, draw_layer, image

# What a statistic of the whole image lets each pixel see is left out, as it is for batchnorm. A
# maximum, which has a gradient at one pixel only, stands in these tests as an average.
FORMS = [
    form
    for form in LAYERS
    if ImageType in form.accepts and not issubclass(form, Merge) and form.kind != "groupnorm"
]


def seen(function, x: torch.Tensor, axis: int) -> list[list[int]]:
    """For each row (axis 2) or column (axis 3) of the output, those of x that it depends on."""
    out = function(x)
    out = out * torch.rand_like(out)  # so that a softmax does not sum up to a constant
    found = []
    for i in range(out.shape[axis]):
        (gradient,) = torch.autograd.grad(
            out.select(axis, i).sum(), x, retain_graph=True, materialize_grads=True
        )
        rows = gradient.abs().sum([d for d in range(4) if d != axis])
        found.append(rows.nonzero().flatten().tolist())
    return found


def positive(module: torch.nn.Module) -> torch.nn.Module:
    """Weights that cannot cancel each other."""
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return module.eval().double()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_step_is_where_the_gradient_is(form: type[Layer]):
    """All that is seen lies in the window, and the window is no larger than it must be."""
    rng = random.Random(form.__name__)
    tight = compared = 0
    for _ in range(25):
        layer = draw_layer(form, rng)
        case = Case(layer, (image(16, 24, 12),))
        if getattr(layer, "function", "") == "max":
            layer = layer.replace(function="avg")
            case = Case(layer, case.types)
        if hasattr(layer, "like"):
            case = Case(layer.replace(like=layer.like.replace(type=image(8, 12, 1))), case.types)
            if form.kind == "upsample":
                bigger = layer.like.replace(type=image(32, 72, 1))
                case = Case(layer.replace(like=bigger), case.types)
            case = Case(case.layer, (*case.types, case.layer.like.type))
        report = check(case)
        step = case.layer.step(case.x) if report.ok else None
        if step is None or not isinstance(case.layer.output(case.x), ImageType):
            continue
        holder = positive(Holder(case))
        other = [torch.zeros(1, 1, *(d.constant for d in t.dims[:2])) for t in case.types[1:]]
        x = (torch.rand(1, 12, 16, 24, dtype=torch.float64) * 0.4 + 0.3).requires_grad_()
        for axis in (0, 1):
            extent, finer = step.extent[axis].constant, step.finer[axis]
            first, last = [], []
            for i, rows in enumerate(seen(lambda x, h=holder, o=other: h(x, *o), x, axis + 2)):
                start = i * step.stride[axis] - step.before[axis]
                first += [p * finer - start for p in rows]
                last += [start + extent - 1 - p * finer for p in rows]
            assert min(first) >= 0, case.layer.write()
            assert min(last) >= 0, case.layer.write()
            compared += 1
            tight += min(first) == 0 and min(last) == 0
    if form.__name__ in ("Flatten", "UpsampleTo", "AdaptivePool"):
        return  # no image, or mostly of no fixed stride
    assert compared
    # A border may hide an end of the window: of a crop, or where padding is all it reaches.
    assert tight >= compared * 0.6, (tight, compared)


NETWORKS = {
    "conv": "conv 2 3x3\nconv 2 3x3 stride=2\npool avg 2\nconv 2 5x3 dilation=2 pad=4x2",
    "deconv": "conv 2 4x4 stride=4\ndeconv 2 4x4 stride=2 pad=1\nconv 2 3x3 pad=same",
    "unet": (
        "conv 2 3x3 pad=same as enc\npool avg 2\nconv 2 3x3 pad=same\ndeconv 2 2x2 stride=2\n"
        "concat enc\nconv 2 3x3 pad=same"
    ),
    "bilinear": "pool avg 4\nconv 2 3x3 pad=same\nupsample 2 bilinear\nconv 2 3x3 pad=same",
    "nearest": "pool avg 2\nupsample 2 nearest\npool avg 3 stride=1 pad=1",
    "like": "conv 2 1x1 as top\npool avg 2\nconv 2 3x3 pad=same\nupsample like top\nadd top",
    "residual": "conv 2 3x3\nadd { skip } { conv 2 3x3 pad=same; conv 2 3x3 pad=same }\npool avg 2",
    "shifted": "concat { crop 3 0 0 3; pad 0 3 0 3 } { conv 2 3x3 pad=same }",
    "cropped": "conv 2 3x3 as a\nconv 2 5x5 as b\nfrom a\ncrop like b\nconcat b\nconv 1 1x1",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_see_what_the_gradient_reaches(name):
    """Of a whole network: every pixel inside what is said, and no smaller window would do."""
    rows, columns = 40, 44
    report = check_source(Source("net.cnn", f"input {rows} x {columns} x 2\n{NETWORKS[name]}\n"))
    assert report.ok, [d.message for d in report.diagnostics]
    field = report.layers[-1].receptive_field
    x = torch.rand(1, 2, rows, columns, dtype=torch.float64).requires_grad_()
    run = runner(report)
    for axis in (0, 1):
        size = field.size[axis].constant
        first, last = [], []
        for i, pixels in enumerate(seen(run, x, axis + 2)):
            start = i * field.stride[axis] + field.offset[axis]
            first += [p - start for p in pixels]
            last += [start + size - 1 - p for p in pixels]
        assert (min(first), min(last)) == (0, 0), name


def runner(report):
    """The graph's layers in PyTorch, with positive weights."""
    holders = {}
    for node in report.graph.nodes:
        types = tuple(
            report.graph.node(n).output if n != "input" else report.graph.source
            for n in node.inputs
        )
        holders[node.path] = positive(Holder(Case(node.layer, types)))

    def run(x):
        values = {"input": x}
        for node in report.graph.nodes:
            values[node.path] = holders[node.path](*(values[n] for n in node.inputs))
        return values[report.graph.result]

    return run


@pytest.mark.parametrize(
    "lines",
    [
        "upsample 2 nearest",  # half a pixel further
        "pool avg to 7x7",  # 33 is no multiple of 7
        "concat { conv 2 2x2 stride=2 } { crop 0 17 0 17 }",  # one goes twice as fast
    ],
)
def test_where_there_is_no_fixed_stride_nothing_is_said(lines):
    report = check_source(Source("net.cnn", f"input 33 x 33 x 2\n{lines}\n"))
    assert report.ok, [d.message for d in report.diagnostics]
    assert report.layers[-1].receptive_field is None
