"""`fmt`: one layout, the same meaning, all comments."""

import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnndsl.check import check
from cnndsl.layers.arguments import Number
from cnndsl.layers.table import LAYERS
from cnndsl.source import Source
from cnndsl.syntax.format import WIDTH, format_text
from cnndsl.syntax.limits import tokens_of
from cnndsl.syntax.spacing import ONE_NUMBER
from tests.syntax.networks import EVERYTHING, LENET, meaning, read
from tests.syntax.test_hostile import mutations


def formatted(text):
    """The layout of a text, held against all that must hold."""
    made = format_text(Source("test.cnn", text))
    assert meaning(made) == meaning(text)
    assert sorted(comments(made)) == sorted(comments(text))
    assert format_text(Source("test.cnn", made)) == made
    assert made == "" or made.endswith("\n")
    assert "\n\n\n" not in made
    assert not made.startswith("\n")
    assert all(line == line.rstrip() for line in made.split("\n"))
    assert not any("\t" in row.partition("#")[0] for row in "".join(gaps(made)).split("\n"))
    return made


def gaps(text):
    start = 0
    for token in tokens_of(text):
        if token.kind != "_NL":
            yield text[start : token.start]
            start = token.end
    yield text[start:]


def comments(text):
    return [
        row[row.index("#") :].strip() for gap in gaps(text) for row in gap.split("\n") if "#" in row
    ]


def test_the_first_example_of_the_language_is_laid_out_already():
    assert formatted(LENET) == LENET


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        ("\n\n # a \n\n\n\n#b\n", "# a\n\n#b\n"),
        ("conv  6\t5×5   pad = same", "conv 6 5x5 pad=same\n"),
        ("input 28x28x1", "input 28 x 28 x 1\n"),
        ("input 28x28x1   u8; fc u8-1", "input 28 x 28 x 1 u8; fc u8-1\n"),
        ("input 28x28 × C", "input 28 x 28 x C\n"),
        ("relu->H // 2 x(W+1)//2 x x", "relu    -> H//2 x (W + 1)//2 x x\n"),
        ("let a=(1+2)*-3", "let a = (1 + 2) * -3\n"),
        ("param a\nparam b=1", "param a\nparam b = 1\n"),
        ("take 0 channels // 2", "take 0 channels//2\n"),
        ("conv 2 * f pad=- 1", "conv 2*f pad=-1\n"),
        ("crop (\n -1 ) ( 2+3 )", "crop (-1) (2 + 3)\n"),
        ("require H>=32,H%32==0", "require H >= 32, H % 32 == 0\n"),
        ("block b( p,q = 1 ) {\nrelu\n}", "block b(p, q=1) {\n    relu\n}\n"),
        ("add{skip}{relu}as a", "add { skip } { relu } as a\n"),
        ("add { skip }\n{ relu\n}", "add { skip } {\n    relu\n}\n"),
        ("if a {\n}\nelse{relu}", "if a { } else { relu }\n"),
        ("if a {\nrelu\n}\nelse if b {\nrelu\n}", "if a {\n    relu\n} else if b {\n    relu\n}\n"),
        ("fc 1;relu ;;fc 2\nrelu;", "fc 1; relu; fc 2\nrelu\n"),
        ("repeat 2 {\n\nrelu\n\n\n\nfc 1\n\n}", "repeat 2 {\n    relu\n\n    fc 1\n}\n"),
        ("repeat 2 { # why\nrelu # r\n}# end", "repeat 2 {  # why\n    relu    # r\n}  # end\n"),
        ("repeat 2 { relu; fc x - 1 }", "repeat 2 { relu; fc x-1 }\n"),
        ("repeat 2 {\n# nothing\n}", "repeat 2 {\n    # nothing\n}\n"),
        ("let a = ( # one\n1 )", "# one\nlet a = (1)\n"),
        ("labels   'a'".replace("'", '"') + "  # b # c", 'labels "a"      # b # c\n'),
        ("relu as input", "relu as input\n"),
        ("dropout p=0.2 as a -> 3", "dropout 0.2 as a        -> 3\n"),
        ("add {skip} {scale init=1e-6}", "add { skip } { scale 1e-6 }\n"),
        ("droppath p = rate; relu", "droppath rate; relu\n"),
        ("leaky_relu slope=2*(a+1)", "leaky_relu 2*(a + 1)\n"),
        ("dropout 0.2", "dropout 0.2\n"),
        ("scale init=-1", "scale init=-1\n"),
        ("default dropout p=0.2", "default dropout p=0.2\n"),
        ("dropout q=0.2; relu p=3", "dropout q=0.2; relu p=3\n"),
        ("conv x - 1 x", "conv x-1 x\n"),
        ("relu\r\nrelu # a\r\n", "relu\nrelu    # a\n"),
    ],
)
def test_layouts(text, wanted):
    assert formatted(text) == wanted


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_the_one_number_of_a_layer_is_written_by_its_place(layer):
    numbers = [n for n, s in layer.slots.items() if isinstance(s.kind, Number)]
    if len(layer.slots) == 1 and numbers:
        assert ONE_NUMBER[layer.kind] == numbers[0]
        # The spelling of both forms, and that they are the same layer.
        texts = [f"{layer.kind} 0.25", f"{layer.kind} {numbers[0]}=0.25"]
        made = [check(source=f"input 4 x 4 x 2\n{text}\n").graph.nodes[0].layer for text in texts]
        assert made[0] == made[1] == layer(0.25)
        assert made[0].write() == texts[0]
        assert formatted(texts[1]) == f"{texts[0]}\n"
    else:
        assert layer.kind not in ONE_NUMBER


@pytest.mark.parametrize("text", ["dropout 1.5", "layernorm 64", "leaky_relu x", "dropout 1 1"])
def test_a_wrong_number_by_its_place_is_refused(text):
    assert not check(source=f"input 4 x 4 x 64\n{text}\n").ok


def test_shapes_and_comments_stand_below_each_other_in_a_body():
    text = "conv 6 5x5 -> 3 # a\n\nrelu -> 4\nfc 1 # b\nrepeat 2 {\nrelu -> 5 # c\n}"
    assert formatted(text).splitlines() == [
        "conv 6 5x5      -> 3    # a",
        "",
        "relu            -> 4",
        "fc 1                    # b",
        "repeat 2 {",
        "    relu    -> 5    # c",
        "}",
    ]


def test_a_very_long_line_does_not_push_the_others():
    long = "labels" + ' "class"' * 12
    lines = formatted(f"relu # a\n{long} # b").splitlines()
    assert lines == ["relu    # a", f"{long}  # b"]


def test_a_body_that_is_too_long_for_its_line_gets_several():
    inside = "; ".join(["conv 64 3x3 pad=same"] * 5)
    text = formatted(f"repeat 2 {{ {inside} }}")
    assert text.splitlines()[0] == "repeat 2 {"
    assert all(len(line) <= WIDTH for line in text.splitlines())


# ── drawn files ──────────────────────────────────────────────────────────────────────────────────

names = st.sampled_from(["a", "H", "x", "width", "stride"])
atoms = st.one_of(names, st.integers(0, 999).map(str))
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(
            "{0[0]} {0[1]} {0[2]}".format
        ),
        inner.map("({})".format),
        inner.map("( - {})".format),
    ),
    max_leaves=4,
)
sizes = st.sampled_from(["3x3", "1×7", "5"])
arguments = st.one_of(
    expressions,
    sizes,
    st.tuples(names, st.one_of(expressions, sizes, st.just("?"))).map("{0[0]} ={0[1]}".format),
    st.sampled_from(['"a # b"', "to 3x3", "like a.0.b", "1e-3", "2_000", "yes"]),
)
shapes = st.lists(st.one_of(expressions, sizes), min_size=1, max_size=3).map(" x ".join)
tails = st.tuples(
    st.sampled_from(["", " as a", " as a.0.b"]),
    st.one_of(st.just(""), shapes.map("->{}".format)),
).map(" ".join)
conditions = st.lists(
    st.tuples(expressions, st.sampled_from(["==", "!=", "<", "<=", ">"]), expressions).map("".join),
    min_size=1,
    max_size=3,
).map(" , ".join)
simple = st.one_of(
    st.tuples(
        st.sampled_from(["conv", "relu", "fc", "dropout p=0.5", "scale init = a"]),
        st.lists(arguments, max_size=4).map("  ".join),
        tails,
    ).map(" ".join),
    conditions.map("require {}".format),
    expressions.map("let  a={}".format),
    shapes.map("input {}".format),
    st.sampled_from(
        ["model M", "from a.b", "output a", "param p", 'labels "a"  "b"', "add a  b as c"]
    ),
)
separators = st.sampled_from(
    ["\n", "\n\n\n", " ; ", "\n# own\n", " # behind\n", "\r\n\t", ";\n", "\n\n # c\n\n"]
)
inner_ends = st.sampled_from([" ", "\n", " # in\n", "\n\n"])
links = st.sampled_from([" ", "\n", "\n# between\n"])


def joined(statements):
    return st.tuples(
        st.lists(st.tuples(statements, separators).map("".join), max_size=3), statements
    ).map(lambda drawn: "".join(drawn[0]) + drawn[1])


def bodies(statements):
    filled = st.tuples(inner_ends, joined(statements), inner_ends).map("".join)
    return st.one_of(filled, inner_ends).map("{{{}}}".format)


def compound(statements):
    body = bodies(statements)
    return st.one_of(
        st.tuples(expressions, body).map("repeat {0[0]} as r {0[1]}".format),
        st.tuples(links, body).map("block b(p,q = 1){0[0]}{0[1]}".format),
        st.tuples(body, links, body, tails).map("add {0[0]}{0[1]}{0[2]} {0[3]}".format),
        st.tuples(expressions, body, links, body).map("if {0[0]} {0[1]}{0[2]}else {0[3]}".format),
    )


files = joined(st.recursive(simple, compound, max_leaves=6))


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(files)
def test_every_drawn_file_keeps_its_meaning_and_comments(text):
    formatted(text)


def test_the_whole_language_and_its_mutations():
    formatted(EVERYTHING)
    tried = sum(1 for t in mutations(3_000, seed=3) if not read(t)[1] and formatted(t) is not None)
    assert tried > 100


def test_a_shape_in_a_body_on_one_line_stays_with_its_statement():
    text = "add { skip } { relu -> 3 x 3 x 1; relu } -> 3 x 3 x 1\n"
    assert formatted(text) == text
    assert formatted("block b() { conv   ->a ; model M }") == "block b() { conv -> a; model M }\n"


def test_blanks_between_words_do_not_matter():
    generator = random.Random(4)
    text = EVERYTHING.replace('"a dog # not a comment"', '"dog"')
    wanted = formatted(text)
    for _ in range(20):
        drawn = "".join(" " * generator.randint(1, 4) if c == " " else c for c in text)
        assert (
            formatted(
                drawn.replace("#" + drawn.partition("#")[2].partition("\n")[0], "# the long way")
            )
            == wanted
        )


def test_the_largest_files_take_little_time():
    for text in (
        "relu; " * 19_000,
        "relu # c\n" * 19_000,
        "if a { relu }\n" * 6_000,
        "# c\n" * 200_000,
    ):
        start = time.process_time()
        format_text(Source("test.cnn", text))
        assert time.process_time() - start < 2


# ── the width ────────────────────────────────────────────────────────────────────────────────────


def branches(rng, depth=2):
    """A merge of a few branches on one line, perhaps with merges in them."""
    bodies = []
    for _ in range(rng.randint(2, 5)):
        lines = [
            branches(rng, depth - 1)
            if depth and rng.random() < 0.2
            else rng.choice(["skip", "relu", "conv 64 3x3 pad=same", "batchnorm eps=0.001"])
            for _ in range(rng.randint(1, 4))
        ]
        bodies.append(f"{{ {'; '.join(lines)} }}")
    end = rng.choice(["", " as merged", " -> 28 x 28 x 64"])
    return f"{rng.choice(['add', 'concat', 'repeat 3'])} {' '.join(bodies)}{end}"


def test_no_line_is_longer_than_the_width():
    for seed in range(60):
        rng = random.Random(seed)
        text = branches(rng).replace("repeat 3", "add")
        made = formatted(text)
        assert max(len(line) for line in made.split("\n")) <= WIDTH, made


def test_the_branches_of_a_long_merge_look_alike():
    branch = "{ conv 64 1x1; relu; conv 96 3x3 pad=same }"
    made = formatted(f"concat {' '.join([branch] * 4)}")
    assert made.count("{\n") == 4
    assert formatted(f"add {{ skip }} {{ {'; '.join(['conv 64 3x3 pad=same'] * 5)} }}").startswith(
        "add { skip } {\n"
    )
