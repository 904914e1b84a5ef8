"""Makes the parser's tables from the grammar, with lark. The only importer of lark.

`python -m cnndsl.syntax.generate` writes grammars/cnn.json anew. The states are numbered in the
order in which they are reached, so the same grammar gives the same bytes.
"""

from collections.abc import Iterator
from json import dumps
from pathlib import Path
from typing import Any, cast

from lark import Lark
from lark.common import ParserConf
from lark.grammar import Rule as LarkRule
from lark.lexer import PatternStr
from lark.parsers.lalr_analysis import IntParseTable, LALR_Analyzer, Shift

from cnndsl import assets
from cnndsl.syntax.tables import GRAMMAR, TABLES, Rule, Tables, checksum


def generate(grammar: str) -> Tables:
    """The tables of a grammar; lark's `GrammarError` where it is not LALR(1)."""
    lark = Lark(grammar, parser="lalr", maybe_placeholders=False)
    analysis = LALR_Analyzer(ParserConf(lark.rules, {}, ["start"]))
    analysis.compute_lalr()
    table = analysis.parse_table
    assert isinstance(table, IntParseTable)
    states = cast("dict[int, dict[str, tuple[Any, Any]]]", table.states)
    first = table.start_states["start"]
    order = list(_reached(states, first))
    number = {state: i for i, state in enumerate(order)}
    rules = sorted(lark.rules, key=lambda r: (r.origin.name, r.order))
    index = {rule: i for i, rule in enumerate(rules)}
    words, patterns = _terminals(lark)
    return Tables(
        grammar=checksum(grammar),
        patterns=patterns,
        words=words,
        rules=tuple(_rule(rule) for rule in rules),
        rows=tuple(
            {
                symbol: number[argument] if action is Shift else -index[argument] - 1
                for symbol, (action, argument) in sorted(states[state].items())
            }
            for state in order
        ),
        start=number[first],
        end=number[table.end_states["start"]],
    )


def _reached(states: dict[int, dict[str, tuple[Any, Any]]], first: int) -> Iterator[int]:
    """The states, breadth first from the start, symbols in the order of their names."""
    queue = [first]
    seen = {first}
    for state in queue:
        yield state
        for _, (action, argument) in sorted(states[state].items()):
            if action is Shift and argument not in seen:
                seen.add(argument)
                queue.append(argument)


def _terminals(lark: Lark) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """Fixed words and signs, and patterns in the order in which to try them."""
    words: dict[str, str] = {}
    patterns: list[tuple[int, str, str]] = []
    for terminal in lark.terminals:
        if isinstance(terminal.pattern, PatternStr):
            words[terminal.pattern.value] = terminal.name
        else:
            name = "" if terminal.name in lark.ignore_tokens else terminal.name
            patterns.append((-terminal.priority, name, terminal.pattern.value))
    return dict(sorted(words.items())), tuple((name, text) for _, name, text in sorted(patterns))


def _rule(rule: LarkRule) -> Rule:
    """One alternative, with what lark would do to make a node of it."""
    kept = [
        i
        for i, symbol in enumerate(rule.expansion)
        if not (symbol.is_term and getattr(symbol, "filter_out", False))
    ]
    spread = [
        not rule.expansion[i].is_term and rule.expansion[i].name.startswith("_") for i in kept
    ]
    if rule.origin.name.startswith("_"):
        action = "*"
    elif rule.alias:
        action = rule.alias
    elif rule.options.expand1 and len(kept) == 1 and not spread[0]:
        action = ""
    else:
        action = rule.origin.name
    return Rule(rule.origin.name, len(rule.expansion), action, tuple(kept), tuple(spread))


def write() -> None:
    """Write the tables beside the grammar."""
    tables = generate(assets.read("grammars", GRAMMAR))
    target = Path(__file__).parents[2] / "grammars" / TABLES
    target.write_text(encode(tables), encoding="utf-8")


def encode(tables: Tables) -> str:
    """As JSON, a state or a rule a line, so that a change of the grammar shows as such."""
    parts: list[str] = []
    for field, value in tables._asdict().items():
        if isinstance(value, tuple):
            items = cast("tuple[object, ...]", value)
            lines = ",\n  ".join(dumps(item, ensure_ascii=False) for item in items)
            parts.append(f'"{field}": [\n  {lines}\n ]')
        else:
            parts.append(f'"{field}": {dumps(value, ensure_ascii=False)}')
    return "{" + ",\n ".join(parts) + "}\n"


if __name__ == "__main__":
    write()
