import gc

import pytest

from cnndsl.source import Source
from cnndsl.syntax import tree
from cnndsl.syntax.build import number
from tests.syntax.networks import EVERYTHING, LENET, good, one, plain, read, records


def value(text):
    return one(f"let a = {text}").value


def meaning(text):
    return plain(value(text))


def test_lenet_reads_as_its_seventeen_statements():
    statements = good(LENET)
    words = [s.name.text if isinstance(s, tree.LayerCall) else type(s).__name__ for s in statements]
    layers = "conv relu pool conv relu pool flatten fc relu fc relu fc softmax"
    assert words == ["Model", "Input", *layers.split()]


def test_every_kind_of_statement_and_argument_is_read():
    found = {type(record) for record in records(good(EVERYTHING))}
    wanted = {
        kind
        for name, kind in vars(tree).items()
        if isinstance(kind, type) and kind.__module__ == tree.__name__ and kind is not tree.Broken
    }
    assert found == wanted - {tree.File}


def test_every_place_is_the_text_of_its_node():
    file, _ = read(EVERYTHING)
    for node in records(file.statements):
        text = node.span.text
        assert text == text.strip()
        match node:
            case tree.Name():
                assert text == node.text
            case tree.Reference() if not text.startswith("("):
                assert text == node.name
            case tree.Text():
                assert text == f'"{node.value}"'
            case tree.Integer() | tree.Real() if not text.startswith("("):
                assert number(text) == node.value
            case tree.Body() if not text.startswith("if"):
                assert text[0] + text[-1] == "{}"
            case tree.LayerCall() | tree.Merge():
                assert text.startswith(node.head.text)
            case _:
                pass


def test_children_lie_inside_their_parents_in_order():
    file, _ = read(EVERYTHING)

    def walk(node, start, end):
        for child in node if isinstance(node, tuple) else node.values():
            if isinstance(child, tuple):
                walk(child, start, end)
            elif hasattr(child, "span") and not isinstance(child, tree.File):
                assert start <= child.span.start <= child.span.end <= end
                walk(child, child.span.start, child.span.end)

    walk(file.statements, 0, len(EVERYTHING))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model LeNet", tree.Model),
        ("input 784", tree.Input),
        ('use "a/b.cnn"', tree.Use),
        ('labels "a" "b"', tree.Labels),
        ("require a, b", tree.Require),
        ("expect a", tree.Expect),
        ("param p", tree.Param),
        ("param p = 1", tree.Param),
        ("let p = no", tree.Let),
        ("default conv pad=1", tree.Default),
        ("block b { }", tree.Block),
        ("block b() { relu }", tree.Block),
        ("block b(p, q=-1) { relu; }", tree.Block),
        ("repeat 3 { relu }", tree.Repeat),
        ("if a { } else if b { } else { }", tree.If),
        ("from a.0.b", tree.From),
        ("output a", tree.Output),
        ("add { } { }", tree.Merge),
        ("concat a b.c as d -> 3 x 3 x C", tree.Merge),
        ("relu", tree.LayerCall),
        ("conv 6 5x5 pad=same to 3 like a.b as c -> 3", tree.LayerCall),
    ],
)
def test_each_statement_has_its_own_node(text, expected):
    statement = one(text)
    assert type(statement) is expected
    assert statement.span.text == text


def test_the_parts_of_a_layer():
    call = one("conv 6 5x5 pad=-1 to 2x3 like a.b as c.0 -> 28 x W x 6")
    assert plain(call.arguments) == (
        ("Positional", ("Integer", 6)),
        ("Positional", ("Size", 5, 5)),
        ("Keyword", ("Name", "pad"), ("Unary", "-", ("Integer", 1))),
        ("To", ("Size", 2, 3)),
        ("Like", ("Name", "a.b")),
    )
    assert call.label.text == "c.0"
    assert plain(call.expected) == (
        "Shape",
        (("Integer", 28), ("Reference", "W"), ("Integer", 6)),
    )
    assert call.head.text == "conv 6 5x5 pad=-1 to 2x3 like a.b"


def test_heads_end_before_the_label():
    assert one("repeat 2 + 1 as l { relu }").head.text == "repeat 2 + 1"
    assert one("add { relu } { skip } as l -> 3").head.text == "add { relu } { skip }"
    assert one("add a b as l").head.text == "add a b"


def test_else_if_stands_alone_in_otherwise():
    statement = one("if a { relu } else if b { skip }")
    (inner,) = statement.otherwise.statements
    assert isinstance(inner, tree.If)
    assert inner.otherwise is None
    assert inner.span.text == "if b { skip }"


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ("28 x 28 x 1", (28, 28, 1)),
        ("28x28x1", (28, 28, 1)),
        ("28×28×1", (28, 28, 1)),
        ("28x28 x 1", (28, 28, 1)),
        ("28 × 28x1", (28, 28, 1)),
        ("1_000x2", (1000, 2)),
        ("120", (120,)),
    ],
)
def test_a_shape_is_the_same_however_it_is_joined(shape, dims):
    found = one(f"input {shape}").shape
    assert tuple(d.value for d in found.dims) == dims
    assert [number(d.span.text) for d in found.dims] == list(dims)
    assert found.span.text == shape


def test_shapes_take_expressions_and_names():
    shape = one("relu -> H//2 x (W + 1)//2 x x").expected
    assert [d.span.text for d in shape.dims] == ["H//2", "(W + 1)//2", "x"]
    assert plain(one("input H×W×3").shape) == plain(one("input H x W x 3").shape)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", "(1+(2*3))"),
        ("1 - 2 - 3", "((1-2)-3)"),
        ("8 // 2 // 2 % 3", "(((8//2)//2)%3)"),
        ("-a * b", "((-a)*b)"),
        ("a - -b", "(a-(-b))"),
        ("(1 + 2) * 3", "((1+2)*3)"),
        ("not a == b and c or d", "(((not(a==b))and c)or d)"),
        ("a < b + 1 <= c", "(a<(b+1)<=c)"),
        ("not not a", "(not(not a))"),
    ],
)
def test_operators_bind_as_in_arithmetic(text, expected):
    def show(node):
        match node:
            case tree.Integer(value=v):
                return str(v)
            case tree.Reference(name=n):
                return n
            case tree.Unary(operator=o, operand=a):
                inner = show(a)
                return f"({o}{'' if o == '-' or inner[0] == '(' else ' '}{inner})"
            case tree.Binary(operator=o, left=a, right=b):
                return f"({show(a)}{o}{' ' if o.isalpha() else ''}{show(b)})"
            case tree.Comparison(operands=parts, operators=signs):
                texts = [show(p) for p in parts]
                pairs = zip(signs, texts[1:], strict=True)
                return f"({texts[0]}{''.join(s + t for s, t in pairs)})"

    assert show(value(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("61_706", 61706),
        ("5M", 5_000_000),
        ("1.5k", 1500),
        ("1.1M", 1_100_000),
        ("0.5KiB", 512),
        ("1e3k", 1_000_000),
        ("1.00001k", 1000.01),
        ("2GiB", 2 << 30),
        ("3MiB", 3 << 20),
        ("4KiB", 4096),
        ("7G", 7 * 10**9),
        ("9_223_372_036_854_775_807", 2**63 - 1),
        ("1e-3", 0.001),
        ("0.5", 0.5),
        ("2.5e+2", 250.0),
        ("1e3", 1000.0),
    ],
)
def test_numbers(text, expected):
    found = value(text)
    assert found.value == expected
    assert type(found.value) is type(expected)


def test_positional_arguments_stand_side_by_side():
    def texts(line):
        return [a.span.text for a in one(line).arguments]

    assert texts("take 0 channels//2") == ["0", "channels//2"]
    assert texts("take 0 -1") == ["0 -1"]
    assert texts("take 0 (-1)") == ["0", "(-1)"]
    assert texts("a b c d=e f") == ["b", "c", "d=e", "f"]
    assert texts("a yes no x") == ["yes", "no", "x"]


def test_keywords_are_names_where_there_is_no_room_for_a_keyword():
    assert one("relu as input").label.text == "input"
    assert one("let x = repeat").value.name == "repeat"
    assert one("model block").name.text == "block"
    assert one("conv model=3").arguments[0].name.text == "model"


def test_semicolons_blank_lines_and_comments_separate_statements():
    text = "relu;relu ; relu # one; two\n\n  # three\n\t\r\n;;relu"
    assert len(good(text)) == 4
    assert good("") == good("\n") == good("# only a comment") == good(" ;; ") == ()
    assert len(good("\n\n;relu;\n")) == 1


def test_lines_go_on_inside_parentheses_and_before_braces():
    assert one("let a = (1\n  + # one\n\n  2\n)").value.span.text.endswith(")")
    assert len(one("add { skip }\n\n# why\n  { relu }\n  { relu }").branches) == 3
    assert one("block b(p,\n  q)\n{\n  relu\n}").parameters[1].name.text == "q"
    assert one("if a {\n}\nelse {\n}").otherwise.statements == ()


def test_tabs_carriage_returns_and_the_multiplication_sign_are_fine():
    assert plain(good("\tconv\t6\t5×5\r\nrelu\r\n")) == plain(good("conv 6 5x5\nrelu\n"))


def test_the_collector_runs_again_afterwards():
    assert gc.isenabled()
    read("relu")
    assert gc.isenabled()
    gc.disable()
    try:
        read("relu (")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_file_keeps_its_source():
    file, _ = read("relu")
    assert isinstance(file.source, Source)
    assert file.source.name == "test.cnn"
