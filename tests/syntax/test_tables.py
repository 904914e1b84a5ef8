"""The kept tables are those of the grammar, and do what lark does with it."""

import json
import logging

import lark
import pytest

from cnndsl import assets
from cnndsl.syntax import tables
from cnndsl.syntax.build import BUILDERS
from cnndsl.syntax.generate import encode, generate
from tests.syntax.networks import EVERYTHING, LENET


def test_the_kept_tables_are_fresh():
    grammar = assets.read("grammars", tables.GRAMMAR)
    kept = assets.read("grammars", tables.TABLES)
    assert encode(generate(grammar)) == kept, "run `python -m cnndsl.syntax.generate`"


def test_encoding_loses_nothing():
    made = generate(assets.read("grammars", tables.GRAMMAR))
    assert tables.decode(json.loads(encode(made))) == made


def test_an_edited_grammar_is_read_anew(monkeypatch):
    grammar = assets.read("grammars", tables.GRAMMAR).replace('"repeat"', '"again"')
    kept = assets.read("grammars", tables.TABLES)
    files = {tables.GRAMMAR: grammar, tables.TABLES: kept}
    monkeypatch.setattr(assets, "read", lambda _folder, name: files[name])
    assert "again" in tables.load().words


def test_the_grammar_has_no_conflicts(caplog):
    grammar = assets.read("grammars", tables.GRAMMAR)
    with caplog.at_level(logging.DEBUG, logger=lark.logger.name):
        lark.Lark(grammar, parser="lalr", maybe_placeholders=False, debug=True)
    assert [r.message for r in caplog.records if "conflict" in r.message.lower()] == []


def test_every_rule_has_a_builder():
    actions = {rule.action for rule in tables.load().rules} - {"", "*"}
    assert actions == set(BUILDERS)


@pytest.mark.parametrize("text", [LENET, EVERYTHING])
def test_lark_itself_reads_the_same_statements(text):
    """Our run over the tables against lark's, on texts that need no line to be joined."""
    lines = [line for line in text.splitlines() if "{" not in line and "}" not in line]
    grammar = assets.read("grammars", tables.GRAMMAR)
    parser = lark.Lark(grammar, parser="lalr", maybe_placeholders=False)
    from tests.syntax.networks import read

    compared = 0
    for line in lines:
        ours, found = read(line)
        if found:
            with pytest.raises(lark.exceptions.UnexpectedInput):
                parser.parse(line)
            continue
        theirs = parser.parse(line)
        assert len(theirs.children) == len(ours.statements)
        compared += len(ours.statements)
    assert compared >= 12
