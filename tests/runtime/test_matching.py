"""Which tensor of a file belongs to which of a model: by name, then by order and shape."""

import pytest

from cnndsl.runtime.matching import Form, Pair, match, natural


def forms(**shapes):
    """`conv_weight=(2, 1)` is the tensor `conv.weight`."""
    return {name.replace("_", "."): Form(shape) for name, shape in shapes.items()}


def test_what_has_the_same_name_and_shape_belongs_together():
    wanted = forms(a_weight=(2, 3), b_weight=(2, 3))
    found = match(wanted, forms(b_weight=(2, 3), a_weight=(2, 3)))
    assert found.sources == {"a.weight": "a.weight", "b.weight": "b.weight"}
    assert found.prefix == ""
    assert (found.ordered, found.missing, found.unused, found.misfits) == ((), (), (), ())


@pytest.mark.parametrize("prefix", ["module.", "module._orig_mod."])
def test_what_stands_before_all_names_is_left_out(prefix):
    wanted = forms(a_weight=(2,), b_weight=(3,))
    found = match(wanted, {prefix + name: form for name, form in wanted.items()})
    assert found.prefix == prefix
    assert found.sources == {name: prefix + name for name in wanted}


def test_a_prefix_that_the_model_has_too_stays():
    wanted = forms(features_0=(2,), features_1=(3,))
    assert match(wanted, wanted).prefix == ""


def test_layers_of_the_same_shapes_are_taken_in_order():
    wanted = forms(
        first_weight=(4, 3), first_bias=(4,), mid_weight=(4, 4), last_weight=(4, 3), last_bias=(4,)
    )
    given = forms(
        x_weight=(4, 3), x_bias=(4,), z_weight=(4, 3), z_bias=(4,), y_weight=(4, 4), other=(9,)
    )
    found = match(wanted, given)
    assert found.ordered == (Pair("first.", "x."), Pair("mid.", "y."), Pair("last.", "z."))
    assert found.sources["last.bias"] == "z.bias"
    assert found.unused == ("other",)


def test_nothing_is_guessed_where_the_numbers_of_layers_differ():
    found = match(forms(a_weight=(2,), b_weight=(2,)), forms(x_weight=(2,)))
    assert found.sources == {}
    assert found.missing == ("a.weight", "b.weight")
    assert [(u.ours, u.theirs) for u in found.uneven] == [(("a.", "b."), ("x.",))]


def test_a_name_says_more_than_a_shape():
    """`fc` fits in name only, so it goes nowhere, though another layer has its shape."""
    found = match(forms(fc_weight=(2, 3)), forms(fc_weight=(9, 3), head_weight=(2, 3)))
    assert [(m.pair.ours, str(m.wanted), str(m.found)) for m in found.misfits] == [
        ("fc.weight", "2 x 3", "9 x 3")
    ]
    assert found.missing == ("fc.weight",)
    assert found.unused == ("head.weight",)


def test_a_batchnorms_counter_may_be_lacking():
    counter = {"bn.num_batches_tracked": Form((), is_float=False)}
    wanted = forms(bn_weight=(2,)) | counter
    for given in (forms(bn_weight=(2,)), forms(norm_weight=(2,))):
        found = match(wanted, given)
        assert found.counters == ("bn.num_batches_tracked",)
        assert found.missing == ()
    nothing = match(wanted, {})
    assert nothing.counters == ()
    assert nothing.missing == tuple(wanted)


def test_whole_numbers_are_no_weights():
    found = match(forms(a_weight=(2,)), {"a.weight": Form((2,), is_float=False)})
    assert [str(m.found) for m in found.misfits] == ["2 (integers)"]


def test_numbers_in_names_sort_as_numbers():
    names = ["f.10.w", "f.2.w", "f.1", "e"]
    assert sorted(names, key=natural) == ["e", "f.1", "f.2.w", "f.10.w"]


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"),
    [
        ((8, 4, 1, 1), (8, 4), True),  # a fully connected layer at each pixel
        ((8, 4), (8, 4, 1, 1), True),
        ((8, 4, 7, 1), (8, 4, 7), True),  # a convolution in one dimension
        ((8, 4, 1, 7), (8, 4, 7), True),
        ((8,), (8, 1, 1), True),  # a factor a channel
        ((8,), (1, 8, 1, 1), True),
        ((1,), (), True),
        ((4, 8), (8, 4), False),  # Keras's, or JAX's
        ((8, 1), (1, 8), False),
        ((8, 4, 1, 1), (1, 1, 4, 8), False),
        ((8, 4, 1, 1), (4, 8), False),
        ((8, 4, 7, 1), (8, 4, 1, 7), False),
        ((8, 4, 3, 3), (8, 4, 9), False),
        ((8, 36), (8, 4, 3, 3), False),
        ((8,), (2, 4), False),
        ((8, 1, 3, 3), (8, 3, 3), False),
    ],
)
@pytest.mark.parametrize("name", ["a_weight", "b_weight"])
def test_another_shape_fits_where_the_numbers_lie_alike(ours, theirs, fits, name):
    found = match(forms(a_weight=ours), forms(**{name: theirs}))
    assert found.sources == ({"a.weight": name.replace("_", ".")} if fits else {})
    assert found.missing == (() if fits else ("a.weight",))


def test_layers_of_one_name_take_no_tensor_from_others():
    """A bias that the file lacks is lacking, whatever other layer has one of its shape."""
    found = match(forms(a_weight=(4, 3), a_bias=(4,)), forms(a_weight=(4, 3), z_bias=(4,)))
    assert found.missing == ("a.bias",)
    assert found.unused == ("z.bias",)


def test_the_prefix_is_that_of_most_names():
    wanted = forms(a_weight=(2,), b_weight=(3,), c_weight=(4,))
    given = forms(module_a_weight=(2,), module_b_weight=(3,), c_weight=(4,), x_y_a_weight=(2,))
    found = match(wanted, given)
    assert found.prefix == "module."
    assert found.sources["a.weight"] == "module.a.weight"
    assert found.sources["c.weight"] == "c.weight"
    assert found.unused == ("x.y.a.weight",)


def test_a_blocks_names_are_no_prefix_of_a_network():
    """`layer1.0.` stands before two names of the stem, and is no more than a block."""
    wanted = forms(conv1_weight=(2,), **{f"l{n}_weight": (n,) for n in range(3, 9)})
    given = forms(layer1_conv1_weight=(2,), **{f"other{n}_weight": (n,) for n in range(13, 19)})
    assert match(wanted, given).prefix == ""
