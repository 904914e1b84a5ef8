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
