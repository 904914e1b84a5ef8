"""From the tree to the graph: statements in order, blocks and repeats expanded.

A mistake makes the tensor after it unknown, and unknown causes no further messages, so that one
run reports every independent mistake. Everything is bounded: layers, steps, and how deep blocks go.
"""

import re
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from cnndsl import sizes
from cnndsl.check.bind import Failed, Unsolved, bind
from cnndsl.check.blocks import call_scope, define_block, set_defaults
from cnndsl.check.conditions import Judge, Verdict
from cnndsl.check.declare import Declarations
from cnndsl.check.evaluate import Evaluator, describe, size_problem
from cnndsl.check.include import Library, Location
from cnndsl.check.network import MAX_LAYERS, Network, TooManyLayers
from cnndsl.check.places import Place, Tensor
from cnndsl.check.recover import in_common
from cnndsl.check.scope import Definition, Scope
from cnndsl.check.suggest import nearest
from cnndsl.check.warnings import warn_of_losses
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Sink
from cnndsl.graph.facts import Tally
from cnndsl.graph.graph import INPUT, Call, Graph
from cnndsl.layers.arguments import Value
from cnndsl.layers.table import BY_KIND, MERGES
from cnndsl.layers.types import NO_INPUT, ImageType, TensorType, VectorType, is_known
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim
from cnndsl.source import Span
from cnndsl.syntax import tree

if TYPE_CHECKING:
    from collections.abc import Generator

    from cnndsl.check.holes import Solver
    from cnndsl.sizes.condition import Condition

MAX_STEPS = 200_000  # statements, after blocks and repeats are expanded
MAX_DEPTH = 80  # blocks, repeats, branches and conditions around a statement

# Words that the language or the file does not know: wrong wherever they stand.
_WORDS = ("E201", "E202", "E203", "E204", "E205", "E211")
_WORD = r"[A-Za-z_][A-Za-z0-9_.]*"


class Where(Record):
    """What a statement sees around it: names, its place in the network, its file."""

    scope: Scope
    place: Place
    file: Location


class Elaborator:
    """Walks one file."""

    def __init__(
        self, file: tree.File, settings: Mapping[str, Value], root: Path | None, sink: Sink
    ) -> None:
        """`settings` stand in for params and free sizes; `use` reads files below `root`."""
        self._file, self._sink = file, sink
        self._network = Network(sink)
        self._said = Declarations(settings, self._network, sink)
        self.library = Library(root, sink)
        self._holes: Solver | None = None
        self._current = Tensor(INPUT, NO_INPUT)
        self._outputs: list[tuple[str, str]] = []
        self._steps = self._depth = self._calls = 0
        self._complained_of_input = self._blocks_are_missing = self._supposes = False
        self._doubted: set[Span] = set()

    def graph(self) -> Graph:
        """The network; it is whole only if no error was reported."""
        source, said = self._file.source, self._said
        scope = Scope()
        where = Where(scope, Place(), self.library.main(source))
        try:
            self._statements(self._file.statements, where)
        except _Stop as stop:
            self._sink.add(stop.diagnostic)
        start = source.span(0, 0)
        if said.input is None and not self._complained_of_input:
            fix = Fix("start with what comes in, for example `input 28 x 28 x 1`")
            message = "the file describes no network: it has no `input`"
            self._report("E209", message, start, fixes=(fix,))
        said.finish(start, scope, self._current)
        verdict = self._judge(start)
        return Graph(
            said.model.name.text if said.model else _model_name(source.name),
            said.source,
            tuple(self._network.nodes),
            self._current.path,
            said.symbols,
            verdict.valid,
            verdict.constraints,
            verdict.example,
            tuple(text.value for text in said.classes.names) if said.classes else (),
            said.input.span if said.input else None,
            tuple(self._outputs),
            said.takes_bytes,
            verdict.promised,
        )

    @property
    def is_doubtful(self) -> bool:
        """Whether a mistake leaves open what the network is."""
        return self._network.is_doubtful

    @property
    def input(self) -> tree.Input | None:
        """The statement that says what comes in."""
        return self._said.input

    @property
    def tally(self) -> Tally:
        """What was counted on the way, to be counted on from there."""
        return self._network.tally

    def _judge(self, start: Span) -> Verdict:
        said = self._said
        after_input = said.input.span.after() if said.input else start
        judge = Judge(said.symbols, tuple(said.promises), after_input, self._sink)
        try:
            verdict = judge.verdict(tuple(self._network.needs))
            if self._network.losses and not self._sink.failed:
                self._warn(verdict, after_input)
            return Verdict("False", ()) if self._network.is_for_no_size else verdict
        except sizes.SizeError as error:
            needs = self._network.needs
            span = needs[0][0].span if needs else said.promises[0].span
            self._sink.add(size_problem(error, span))
            return Verdict("False", ())

    def _warn(self, verdict: Verdict, after_input: Span) -> None:
        """Warn of pixels that are lost for some of the sizes; where that is too hard, of none."""
        valid = verdict.condition or sizes.Condition.always(self._said.symbols)
        try:
            # Without any promise, lower bounds are inferred; with one, they are promised, too.
            promised = valid if self._said.promises else sizes.Condition.always(valid.symbols)
            warn_of_losses(self._network.losses, valid, promised, after_input, self._sink)
        except sizes.SizeError:
            return

    # ── statements ───────────────────────────────────────────────────────────────────────────────

    def _statements(self, statements: tuple[tree.Statement, ...], where: Where) -> None:
        for statement in statements:
            self._step(statement)
            where.scope.see(self._current.type)
            try:
                self._statement(statement, where)
            except sizes.SizeError as error:
                self._sink.add(size_problem(error, _head(statement)))
                self._lose()
            except TooManyLayers:
                raise _Stop(_too_many(statement.span)) from None

    def _step(self, statement: tree.Statement) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _Stop(_too_many(statement.span))

    def _statement(self, statement: tree.Statement, where: Where) -> None:  # noqa: C901 (one line a statement)
        match statement:
            case tree.LayerCall():
                self._call(statement, where)
            case tree.Merge():
                self._merge(statement, where)
            case tree.Repeat():
                self._repeat(statement, where)
            case tree.If():
                self._if(statement, where)
            case tree.From():
                self._current = self._find(statement.label, where) or self._lost()
            case tree.Output():
                self._output(statement, where)
            case tree.Block():
                define_block(statement, where.scope, self._sink)
            case tree.Default():
                set_defaults(statement, where.scope, self._sink)
            case tree.Use():
                self._use(statement, where)
            case tree.Param() | tree.Let():
                self._said.define(statement, where.scope)
            case tree.Input():
                self._current = self._said.take_input(statement, where.scope) or self._current
            case tree.Model():
                self._said.take_model(statement)
            case tree.Labels():
                self._said.take_labels(statement)
            case tree.Require():
                for condition in statement.conditions:
                    self._said.require(condition, where.scope)
            case tree.Expect():
                for condition in statement.conditions:
                    self._said.expect(condition, where.scope, self._current)
            case tree.Broken():
                self._lose()
                self._doubt(statement.span, where.scope)
                self._complained_of_input = True  # the statement may have been the input
            case _:
                assert_never(statement)

    def _doubt(self, span: Span, scope: Scope) -> None:
        """What a text that is not walked would have defined is unknown, not missing."""
        if span not in self._doubted:
            self._doubted.add(span)
            scope.put_in_doubt(re.findall(_WORD, span.text))

    def _lose(self) -> None:
        """After a mistake the current tensor is unknown."""
        self._current = self._lost()

    def _lost(self) -> Tensor:
        return Tensor(self._current.path, self._network.lost())

    # ── layers and blocks ────────────────────────────────────────────────────────────────────────

    def _call(self, call: tree.LayerCall, where: Where) -> None:
        """A layer, or a block."""
        definition = where.scope.block(call.name.text)
        if definition is not None:
            self._use_block(call, definition, where)
        else:
            self._need_input(call.head, call.span)
            wanted = self._wanted(call.expected, where.scope)
            if self._is_layer(call, where.scope):
                self._layer(call, wanted, where)
            else:
                self._lose()
            self._assert(call.expected, wanted)
        if call.label is not None:
            self._network.label(call.label, self._current, where.place)

    def _layer(self, call: tree.LayerCall, wanted: TensorType | None, where: Where) -> None:
        x = self._current
        bound = bind(call, where.scope, lambda name: self._find(name, where), self._sink)
        if isinstance(bound, Unsolved):
            is_asked = wanted is None or (is_known(wanted) and is_known(x.type))
            solved = self._solver().solve(bound, x.type, wanted) if is_asked else None
            if solved is None and wanted is not None:
                self._lose()  # the assertion says what is wanted
                return
            bound = solved or Failed(bound.form, bound.known, bound.places, bound.holes)
        if isinstance(bound, Failed):
            self._current = self._network.after(call, bound, x, where.place)
        else:
            self._current = self._network.apply(call, bound, x, where.place)

    def _solver(self) -> "Solver":
        """What solves the holes of this file."""
        if self._holes is None:
            from cnndsl.check.holes import Solver  # noqa: PLC0415 (most files have none)

            self._holes = Solver(self._sink)
        return self._holes

    def _is_layer(self, call: tree.LayerCall, scope: Scope) -> bool:
        word = call.name.text
        if word in BY_KIND:
            return True
        if scope.is_mistaken(word) or self._blocks_are_missing:
            return False
        blocks = scope.block_names()
        if self._sink.is_full:  # a thousand words of no language: what they mean is not told
            self._report("E201", f"there is no layer called `{word}`", call.name.span)
            return False
        from cnndsl.check.unknown import unknown_layer  # noqa: PLC0415 (most files have none)

        self._sink.add(unknown_layer(call, tuple(blocks)))
        return False

    def _need_input(self, head: Span, span: Span) -> None:
        if self._said.input is None and not self._complained_of_input:
            self._complained_of_input = True
            example = "input 28 x 28 x 1"
            self._network.is_doubtful = True
            edit = Edit(span.before(), f"{example}\n")
            fix = Fix(f"say what comes in, for example `{example}`", (edit,))
            self._report("E209", "there is no `input` above the first layer", head, fixes=(fix,))

    def _use_block(self, call: tree.LayerCall, definition: Definition, where: Where) -> None:
        scope = call_scope(call, definition, where.scope, self._sink)
        wanted = self._wanted(call.expected, where.scope)
        prefix = where.place.prefix + (f"{call.label.text}." if call.label else "")
        self._calls += 1
        place = Place(prefix, (*where.place.calls, Call(call.name.text, call.head, self._calls)))
        with self._sink.called(place.labels()):
            self._body(definition.block.body, Where(scope, place, where.file))
        self._assert(call.expected, wanted)

    # ── control ──────────────────────────────────────────────────────────────────────────────────

    def _body(self, body: tree.Body, where: Where) -> None:
        with self._deeper(body.span):
            self._statements(body.statements, where)

    @contextmanager
    def _deeper(self, span: Span) -> "Generator[None]":
        self._depth += 1
        if self._depth > MAX_DEPTH:
            message = f"blocks, repeats and branches are more than {MAX_DEPTH} deep"
            fix = Fix("does a block use itself, with nothing that ends it?")
            raise _Stop(Diagnostic("E506", message, span, fixes=(fix,)))
        try:
            yield
        finally:
            self._depth -= 1

    def _repeat(self, statement: tree.Repeat, where: Where) -> None:
        count = Evaluator(where.scope, self._sink).value(statement.count)
        known = count.constant if isinstance(count, Dim) else None
        if known is None or known < 0:
            if count is not None:
                what = "a whole number, 0 or more, that is known while checking"
                message = f"`repeat` takes {what}, not {describe(count)}"
                self._report("E206", message, statement.count.span)
            self._once(statement, where)
            self._doubt(statement.span, where.scope)
            return
        for index in range(known):
            self._step(statement)
            self._body(statement.body, self._turn(statement, index, where))
        if statement.label is not None:
            self._network.label(statement.label, self._current, where.place)

    @staticmethod
    def _turn(statement: tree.Repeat, index: int, where: Where) -> Where:
        """What one turn of a `repeat` sees around it."""
        place = where.place
        if statement.label is not None:
            prefix = f"{place.prefix}{statement.label.text}.{index}."
            place = Place(prefix, place.calls)
        return Where(Scope(where.scope), place, where.file)

    def _once(self, statement: tree.Repeat, where: Where) -> None:
        """The first turn of a `repeat` with an unknown count, for the mistakes in it.

        What it does not change is known behind it as well.
        """
        before = self._current
        self._body(statement.body, self._turn(statement, 0, where))
        self._join([before, self._current])
        if statement.label is not None:
            self._network.label(statement.label, self._current, where.place)

    def _if(self, statement: tree.If, where: Where) -> None:
        condition = Evaluator(where.scope, self._sink).condition(statement.condition)
        chosen = self._decided(condition, statement) if condition is not None else None
        if chosen is None:
            self._either(statement, where)
            self._doubt(statement.span, where.scope)
            return
        body = statement.then if chosen else statement.otherwise
        if body is not None:
            self._body(body, Where(Scope(where.scope), where.place, where.file))

    def _either(self, statement: tree.If, where: Where) -> None:
        """Both ways of an `if` that a mistake leaves undecided, for misspelt words in them.

        Nothing else is reported: the condition may be there to keep it away.
        """
        if self._supposes:  # an `if` in it, perhaps of a block that uses itself
            self._lose()
            return
        before = self._current
        ends: list[Tensor] = []
        for body in (statement.then, statement.otherwise):
            self._current = before
            if body is not None:
                with self._supposing():
                    self._body(body, Where(Scope(where.scope), where.place, where.file))
            ends.append(self._current)
        self._join(ends)

    @contextmanager
    def _supposing(self) -> "Generator[None]":
        """Report misspelt words only, and ask nothing of the free sizes."""
        self._supposes = True
        network = self._network
        needs, losses, promises = len(network.needs), len(network.losses), len(self._said.promises)
        try:
            with self._sink.only(_WORDS):
                yield
        except _Stop:
            self._lose()
        finally:
            self._supposes = False
            del network.needs[needs:], network.losses[losses:], self._said.promises[promises:]

    def _join(self, ends: list[Tensor]) -> None:
        """The tensor that is one of these: known is what all have in common."""
        self._network.is_doubtful = True
        joined = in_common([end.type for end in ends], self._network.unknowns)
        self._current = Tensor(ends[0].path, joined)

    def _decided(self, condition: "bool | Condition", statement: tree.If) -> bool | None:
        """Which way an `if` goes for every size; reports one that goes both ways."""
        if isinstance(condition, bool):
            return condition
        known = sizes.Condition.always(self._said.symbols)
        for promise in self._said.promises:
            known = known & promise.condition
        if known.implies(condition):
            return True
        if (known & condition).never:
            return False
        promise = Fix(f"promise it: `require {', '.join(condition.requirements())}`")
        message = f"this holds for some sizes only: for {condition.given(known)}"
        self._report("E405", message, statement.condition.span, fixes=(promise,))
        return None

    def _merge(self, statement: tree.Merge, where: Where) -> None:
        self._need_input(statement.head, statement.span)
        wanted = self._wanted(statement.expected, where.scope)
        before = self._current
        branches: list[Tensor] = []
        for body in statement.branches:
            self._current = before
            self._body(body, Where(Scope(where.scope), where.place, where.file))
            branches.append(self._current)
        if statement.others:
            found = (self._find(name, where) for name in statement.others)
            branches = [before, *(tensor or self._lost() for tensor in found)]
        if len(branches) < 2:
            what = statement.kind.text
            fix = Fix(f"for a residual: `{what} {{ skip }} {{ … }}`")
            message = f"`{what}` merges at least two branches"
            self._report("E217", message, statement.head, fixes=(fix,))
            if what == "add":  # the other branches have the same shape
                self._network.is_doubtful = True
                self._current = branches[0]
            else:
                self._lose()
        else:
            layer = MERGES[statement.kind.text]()
            self._current = self._network.merge(statement, layer, tuple(branches), where.place)
        self._assert(statement.expected, wanted)
        if statement.label is not None:
            self._network.label(statement.label, self._current, where.place)

    def _output(self, statement: tree.Output, where: Where) -> None:
        tensor = self._find(statement.label, where)
        if tensor is None:
            return
        if tensor.path != INPUT:
            self._outputs.append((statement.label.text, tensor.path))
        # A layer with a mistake has the path of what it reads.
        elif statement.label.text == INPUT or not self._network.is_doubtful:
            message = "the input is no output of the network"
            fix = Fix("label a layer by `as NAME`, and write `output NAME`")
            self._report("E218", message, statement.label.span, fixes=(fix,))

    def _find(self, name: tree.Name, where: Where) -> Tensor | None:
        """The tensor with a label, or None after reporting that there is none."""
        tensor = self._network.find(name.text, where.place)
        if tensor is None and name.text == INPUT and self._said.input is not None:
            return Tensor(INPUT, self._said.source)
        if tensor is None and not self._is_in_doubt(name.text, where.scope):
            near = None
            if not self._sink.is_full:
                near = nearest(name.text, self._network.label_names())
            fixes = (Fix(f"did you mean `{near}`?", (Edit(name.span, near),)),) if near else ()
            if name.text in BY_KIND:
                fixes += (Fix(f"a layer stands in a branch: `{{ {name.text} }}`"),)
            else:
                fixes += (Fix(f"label the layer that makes it: `… as {name.text}`"),)
            message = f"no tensor above has the label `{name.text}`"
            self._report("E218", message, name.span, fixes=fixes)
        return tensor

    def _is_in_doubt(self, label: str, scope: Scope) -> bool:
        """Whether a label, or its end behind that of a block's call, may have been defined."""
        parts = label.split(".")
        return any(scope.is_mistaken(".".join(parts[i:])) for i in range(len(parts)))

    def _use(self, statement: tree.Use, where: Where) -> None:
        """Take the blocks of another file, and what they need of its values."""
        opened = self.library.open(statement, where.file)
        if opened is None:
            self._blocks_are_missing = True
            return
        file, location = opened
        scope = where.scope.apart()
        inside = Where(scope, where.place, location)
        with self._deeper(statement.span):
            for inner in file.statements:
                self._step(inner)
                if isinstance(inner, (tree.Block, tree.Let, tree.Param, tree.Default, tree.Use)):
                    self._statement(inner, inside)
                elif isinstance(inner, tree.Broken):
                    self._doubt(inner.span, scope)
        for definition in scope.own_blocks():
            where.scope.adopt(definition)

    # ── assertions ───────────────────────────────────────────────────────────────────────────────

    def _wanted(self, expected: tree.Shape | None, scope: Scope) -> TensorType | None:
        """The type that an assertion asks for, open where there is a mistake in it.

        `height` in it is that before the line.
        """
        if expected is None:
            return None
        if len(expected.dims) == 1 and expected.span.text not in scope:
            from cnndsl.check.habits import layer_asserted  # noqa: PLC0415 (vectors are few)

            if layer := layer_asserted(expected):
                self._sink.add(layer)
                return None
        values = [Evaluator(scope, self._sink).value(dim) for dim in expected.dims]
        for dim, value in zip(expected.dims, values, strict=True):
            if value is not None and not isinstance(value, Dim):
                message = f"a size is a whole number, not {describe(value)}"
                self._report("E206", message, dim.span)
        unknowns = self._network.unknowns
        dims = [value if isinstance(value, Dim) else unknowns.dim() for value in values]
        if len(dims) == 1:
            return VectorType(dims[0])
        if len(dims) == 3:
            return ImageType(*dims)
        message = "a shape is height x width x channels, or one number of features"
        self._report("E305", message, expected.span)
        return None

    def _assert(self, expected: tree.Shape | None, wanted: TensorType | None) -> None:
        if expected is not None and wanted is not None:
            self._current = self._network.asserted(expected, wanted, self._current)

    def _report(
        self,
        code: str,
        message: str,
        span: Span,
        fixes: tuple[Fix, ...] = (),
    ) -> None:
        self._sink.add(Diagnostic(code, message, span, fixes=fixes))


class _Stop(Exception):
    """The file is larger than what is checked; nothing below it is looked at."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


def _too_many(span: Span) -> Diagnostic:
    return Diagnostic(
        "E505",
        f"the network has more than {MAX_LAYERS:,} layers, after its blocks are expanded",
        span,
        fixes=(Fix("lower the count of a `repeat`"),),
    )


def _head(statement: tree.Statement) -> Span:
    if isinstance(statement, (tree.LayerCall, tree.Merge, tree.Repeat)):
        return statement.head
    return statement.span


def _model_name(file_name: str) -> str:
    """The name of a model whose file gives none: the file's, as an identifier."""
    stem = file_name.replace("\\", "/").rsplit("/", 1)[-1].split(".", 1)[0]
    cleaned = "".join(c if c.isascii() and c.isalnum() else "_" for c in stem).strip("_")
    return cleaned if cleaned and not cleaned[0].isdigit() else f"Model{cleaned}"
