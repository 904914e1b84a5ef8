import pytest

from cnndsl.diagnostics import catalogue

PAGE = """\
# E304: branches differ

Why.

More of it.

## Wrong

```cnn --set width=8
relu
```

It says:

```text
error[E304]: m
```

## Right

```cnn
fc 3
```
"""


def test_a_page_is_read_in_parts():
    page = catalogue.parse("E304", PAGE)
    assert page.title == "branches differ"
    assert page.prose == "Why.\n\nMore of it."
    assert page.wrong == catalogue.Example("cnn --set width=8", "relu\n")
    assert page.output == "error[E304]: m\n"
    assert page.right == catalogue.Example("cnn", "fc 3\n")


@pytest.mark.parametrize(
    ("part", "instead", "message"),
    [
        ("# E304: ", "# E305: ", "must start with `# E304: title`"),
        ("## Right", "## Rigth", "needs `## Wrong`, then `## Right`"),
        ("```text", "```", "needs an example and its ```text"),
    ],
)
def test_a_page_that_lacks_a_part_says_which(part, instead, message):
    with pytest.raises(ValueError, match=message):
        catalogue.parse("E304", PAGE.replace(part, instead))


def test_codes_near_another(monkeypatch):
    monkeypatch.setattr(catalogue, "codes", lambda: ("E100", "E301", "E302", "E311", "W601"))
    assert catalogue.near("E30") == ("E301", "E302", "E311")
    assert catalogue.near("W301") == ("E301", "W601")
    assert catalogue.near("E601") == ("E301", "W601")
    assert catalogue.near("X9") == ()


def test_a_code_without_a_page():
    with pytest.raises(KeyError):
        catalogue.page("../../record")
