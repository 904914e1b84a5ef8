"""Text to tree. Never raises, whatever the text: what cannot be read becomes a diagnostic.

Runs the grammar's tables over the tokens. Knows shifting, reducing and where to go on after a
mistake; what a mistake is called stands in `errors`, what a rule makes in `build`.

After a mistake the parser forgets the statement, puts an ERROR in its place, skips to the end of
the line or to a brace, and goes on there; blocks behind a broken head are read like others.
"""

import gc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnndsl.diagnostics.model import Diagnostic, Sink
from cnndsl.source import Source
from cnndsl.syntax import limits, slips, tree
from cnndsl.syntax.build import BUILDERS
from cnndsl.syntax.layout import settle
from cnndsl.syntax.lex import Token, lexicon

if TYPE_CHECKING:
    from cnndsl.syntax.foreign.find import Region
    from cnndsl.syntax.situation import Situation

_STOPS = ("_NL", "LBRACE", "RBRACE", "$END")
_FOREIGN = "FOREIGN"  # stands for all tokens of a line of another framework
_ROUNDS = 4  # of looking for such lines: what one hid comes up when it is known


def parse(source: Source, sink: Sink) -> tree.File:
    """The tree of a source; each mistake goes to `sink` and leaves a `Broken` in the tree."""
    collecting = gc.isenabled()
    gc.disable()  # the tree has no cycles, and the collector would walk it again and again
    try:
        tokens = _tokens(source, sink)
        if tokens is None:
            return tree.File(source, (tree.Broken(source.span(0, len(source.text))),))
        found = Sink(sink.limit)
        statements = _read(source, tokens, (), found)
        if found.failed:
            statements, found = _with_foreign(source, tokens, statements, found)
        for diagnostic in found.sorted():
            sink.add(diagnostic)
        sink.dropped += found.dropped
        return tree.File(source, statements)
    finally:
        if collecting:
            gc.enable()


def _with_foreign(
    source: Source, tokens: list[Token], statements: tuple[tree.Statement, ...], found: Sink
) -> tuple[tuple[tree.Statement, ...], Sink]:
    """What is read once the lines of other frameworks are known as such, each one mistake."""
    from cnndsl.syntax.foreign.find import regions  # noqa: PLC0415 (files without mistakes are many)

    spots: set[int] = set()
    known: list[Region] = []
    for _ in range(_ROUNDS):
        spots |= {diagnostic.span.start for diagnostic in found.sorted()}
        now = regions(source, sorted(spots))
        if len(now) == len(known):
            break
        known, found = now, Sink(found.limit)
        statements = _read(source, _replaced(tokens, known), known, found)
    return statements, found


def _read(
    source: Source, tokens: list[Token], foreign: "Sequence[Region]", sink: Sink
) -> tuple[tree.Statement, ...]:
    """The statements that some tokens make."""
    settled, lost = settle(source, tokens, sink)
    named = {region.start: region.diagnostic for region in foreign}
    return _Parser(source, settled, lost, sink, named).run()


def _replaced(tokens: list[Token], foreign: "Sequence[Region]") -> list[Token]:
    """The tokens with one for each foreign line, which is a statement of its own."""
    made: list[Token] = []
    ahead = iter(foreign)
    region = next(ahead, None)
    for token in tokens:
        while region is not None and token.start >= region.end:
            region = next(ahead, None)
        if region is None or token.end <= region.start:
            made.append(token)
        elif not made or made[-1].start != region.start:
            made.append(Token(_FOREIGN, region.start, region.end))
    return made


def _tokens(source: Source, sink: Sink) -> list[Token] | None:
    """The tokens of a text, or None where a limit is exceeded."""
    if unfit := limits.unfit_text(source):
        sink.add(unfit)
        return None
    tokens = limits.tokens_of(source.text)
    excess = limits.too_many_tokens(source, tokens) or limits.too_deep(source, tokens)
    if excess:
        sink.add(excess)
        return None
    return tokens


class _Parser:
    """The stacks of one run."""

    def __init__(
        self,
        source: Source,
        tokens: list[Token],
        lost: int,
        sink: Sink,
        foreign: Mapping[int, Diagnostic],
    ) -> None:
        self.source = source
        self.foreign = foreign  # what to say of such a line, by its start
        self.tokens = tokens
        self.sink = sink
        self.tables = lexicon().tables
        # Words that may be names too, though not those of layers: the others, such as `as`, would
        # hide that something is missing in front of them.
        self.words = lexicon().starters | {"X", "U8"}
        self.lost_braces = lost  # known mistakes with braces: each may leave another one over
        self.states = [self.tables.start]
        self.values: list[Any] = []
        self.starts: list[int] = []
        self.ends: list[int] = [0]

    def run(self) -> tuple[tree.Statement, ...]:
        """Read all tokens; the file's statements."""
        rows = self.tables.rows
        states = self.states
        position = 0
        while states[-1] != self.tables.end:
            token = self.tokens[position]
            row = rows[states[-1]]
            action = row.get(token.kind)
            if action is None and token.kind in self.words and "ERROR" not in row:
                action = row.get("NAME")
            if action is None:
                position = self._recover(position)
            elif action < 0:
                self._reduce(-action - 1)
            else:
                self._shift(action, token, token.start, token.end)
                position += 1
        return self.values[-1]

    def _shift(self, state: int, value: object, start: int, end: int) -> None:
        self.states.append(state)
        self.values.append(value)
        self.starts.append(start)
        self.ends.append(end)

    def _reduce(self, index: int) -> None:
        """Put one symbol in the place of a rule's right-hand side."""
        origin, length, action, kept, spread = self.tables.rules[index]
        states, values, starts, ends = self.states, self.values, self.starts, self.ends
        base = len(values) - length
        if action == "":
            if length > 1:
                values[base] = values[base + kept[0]]
                del values[base + 1 :], starts[base + 1 :]
                ends[base + 1 :] = ends[-1:]
                del states[base + 2 :]
            states[-1] = self.tables.rows[states[-2]][origin]
            return
        start, end = starts[base] if length else ends[-1], ends[-1]
        children: list[Any] = []
        for i, inside in zip(kept, spread, strict=True):
            value = values[base + i]
            if not inside:
                children.append(value)
            elif children:
                children += value
            else:
                children = value  # nobody else holds this list: it grows in place
        if action != "*":
            value = BUILDERS[action](children, self.source.span(start, end))
            if action == "layer" or action == "shape":
                value = self._without_slip(value)
        else:
            value = children
        del states[base + 1 :], values[base:], starts[base:], ends[base + 1 :]
        self._shift(self.tables.rows[states[-1]][origin], value, start, end)

    def _without_slip(self, node: tree.LayerCall | tree.Shape | tree.Broken) -> object:
        """The node, or `Broken` where the grammar could read what nobody means."""
        match node:
            case tree.LayerCall():
                slip = slips.in_layer(node)
            case tree.Shape():
                slip = slips.in_shape(node)
            case tree.Broken():
                return node
        if slip is None:
            return node
        self.sink.add(slip)
        return tree.Broken(node.span)

    def _recover(self, position: int) -> int:
        """Go on behind a token that fits nowhere; the position of the next to read."""
        self._close_body()
        if "JUNK" not in self.tables.rows[self.states[-1]]:
            # Not behind a broken head, whose mistake is known: a new one.
            if self._begins_statement(position):
                from cnndsl.syntax.errors import second_statement  # noqa: PLC0415 (most files have no mistakes)

                self.sink.add(second_statement(self._situation(position)))
                self._end_line(position)
                return position
            self._name(position)
            self._forget_statement(position)
        stop = position
        while self.tokens[stop].kind not in _STOPS:
            stop += 1
        if stop > position:
            junk = self.tables.rows[self.states[-1]]["JUNK"]
            self._shift(junk, None, self.tokens[position].start, self.tokens[stop - 1].end)
        return stop

    def _name(self, position: int) -> None:
        """Report what is wrong at a token; past what is shown, it is only counted."""
        if self.sink.is_full:
            self.sink.dropped += 1
            return
        from cnndsl.syntax.errors import mistake  # noqa: PLC0415 (most files have no mistakes)

        known = self.foreign.get(self.tokens[position].start)
        self._report(known or mistake(self._situation(position)), position)

    def _report(self, found: Diagnostic, position: int) -> None:
        """Report a mistake, unless it is a brace that an earlier one left over."""
        kind = self.tokens[position].kind
        if kind in ("LBRACE", "STRAY_BRACE") and self.lost_braces:
            self.lost_braces -= 1
            return
        after_body = position > 0 and self.tokens[position - 1].kind == "RBRACE"
        self.lost_braces += kind == "LBRACE" or after_body or found.code == "E111"
        self.sink.add(found)

    def _close_body(self) -> None:
        """Finish the block that a `}` closed, if that is what was read last."""
        while (action := self.tables.rows[self.states[-1]].get("JUNK", 0)) < 0:
            self._reduce(-action - 1)

    def _forget_statement(self, position: int) -> None:
        """Put ERROR in the place of all that was read of this statement."""
        start = self.tokens[position].start
        while "ERROR" not in self.tables.rows[self.states[-1]]:
            self.states.pop()
            self.values.pop()
            self.ends.pop()
            start = self.starts.pop()
        error = self.tables.rows[self.states[-1]]["ERROR"]
        self._shift(error, None, start, max(start, self.tokens[position - 1].end))

    def _begins_statement(self, position: int) -> bool:
        """Whether a statement is complete, and this is the next one without a line end."""
        kind = self.tokens[position].kind
        after_body = position > 0 and self.tokens[position - 1].kind == "RBRACE"
        starts = kind in lexicon().starters or (kind == "NAME" and after_body)
        return starts and position > 0 and self._accepts("_NL")

    def _end_line(self, position: int) -> None:
        """Read on as if there were a line end before this token."""
        while (action := self.tables.rows[self.states[-1]]["_NL"]) < 0:
            self._reduce(-action - 1)
        place = self.tokens[position].start
        self._shift(action, None, place, place)

    def _accepts(self, kind: str) -> bool:
        """Whether a token of this kind could be read now; changes nothing."""
        states = self.states.copy()
        while (action := self.tables.rows[states[-1]].get(kind)) is not None and action < 0:
            origin, length, *_ = self.tables.rules[-action - 1]
            del states[len(states) - length :]
            states.append(self.tables.rows[states[-1]][origin])
        return action is not None

    def _situation(self, position: int) -> "Situation":
        from cnndsl.syntax.situation import Situation  # noqa: PLC0415 (most files have no mistakes)

        first = position
        while first > 0 and self.tokens[first - 1].kind not in _STOPS:
            first -= 1
        stop = position
        while self.tokens[stop].kind not in _STOPS:
            stop += 1
        return Situation(
            source=self.source,
            token=self.tokens[position],
            before=tuple(self.tokens[first:position]),
            after=tuple(self.tokens[position + 1 : stop]),
            accepts=self._accepts,
            head=self._head(position),
        )

    def _head(self, position: int) -> tuple[Token, ...]:
        """The tokens in front of the `{` whose `}` stands in front of a token, and the `{`."""
        if position == 0 or self.tokens[position - 1].kind != "RBRACE":
            return ()
        depth, opener = 0, position
        while opener > 0 and (depth > 0 or opener == position):
            opener -= 1
            depth += (self.tokens[opener].kind == "RBRACE") - (self.tokens[opener].kind == "LBRACE")
        first = opener
        while first > 0 and self.tokens[first - 1].kind not in _STOPS:
            first -= 1
        return tuple(self.tokens[first : opener + 1])
