"""Removes what nothing uses any more, once the switches of a kernel file are settled.

Functions and values that nothing reaches, lines behind a `return`, parameters of kernels that no
line reads, with the arguments given for them, local values that no line reads, and second names of
others. Other functions keep such parameters, marked by `_`: who calls them gives all. Knows Python
and which calls only compute; knows no layers.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise

from cnndsl.emit.lines import Edit, Lines, apply, tidy, walk, without

# Calls that only compute: a line of these whose value nothing reads is idle. All others stay.
_TRITON = frozenset(
    {"abs", "arange", "cdiv", "div_rn", "dot", "erf", "exp", "fdiv", "fma", "full", "load", "log"}
    | {"max", "maximum", "min", "minimum", "num_programs", "permute", "program_id", "reshape"}
    | {"sigmoid", "split", "sqrt", "sqrt_rn", "sum", "trans", "where", "zeros"}
)
# Context managers that let every exception of their body through.
_PASSING = ("torch.cuda.device_of(", "torch.enable_grad(", "torch.autocast(", "torch.no_grad(")
_METHODS = frozenset({"dim", "element_size", "index", "numel", "size", "stride", "to"})
_FUNCTIONS = frozenset(
    {"abs", "bool", "float", "int", "isinstance", "len", "list", "max", "min", "pow", "range"}
    | {"sum", "tuple", "zip"}
    # of shared.py, windows.py and the operators
    | {"block_size", "conv_precision", "conv_sizes", "count_blocks", "fc_precision", "full"}
    | {"full_dtype", "is_better", "measured_tile", "norm_sizes", "pixel_place", "power_of_two"}
    | {"split_count", "window_count", "window_holding", "window_pixels", "windows_of_pixel"}
)


def prune(text: str, roots: Iterable[str]) -> str:
    """The text without all that the definitions named in `roots` do not need."""
    return _pruned(text, tuple(roots))


@lru_cache(maxsize=256)
def _pruned(text: str, roots: tuple[str, ...]) -> str:
    while True:
        before = text
        text = _without_unreached(text, roots)
        text = _without_lines_behind(text)
        text = _without_idle_lines(text)
        text = _without_second_names(text)
        text = _without_idle_parameters(text)
        if text == before:
            return tidy(_marked(_returned_at_once(text)))


def _returned_at_once(text: str) -> str:
    """A value that is named and returned on the next line needs no name."""
    source = Lines(text)
    edits: list[Edit] = []
    for function in source.tree.body:
        match getattr(function, "body", ()):
            case [
                *_,
                ast.Assign(targets=[ast.Name(id=named)], value=value) as assigned,
                ast.Return(value=ast.Name(id=returned)) as last,
            ] if named == returned:
                edits.append((source.extent(assigned)[0], source.extent(value)[0], "return "))
                edits.append((source.starts[last.lineno - 1], source.starts[last.lineno], ""))
            case _:
                continue
    return apply(text, edits)


# ── definitions ──────────────────────────────────────────────────────────────────────────────────


def _without_unreached(text: str, roots: tuple[str, ...]) -> str:
    source = Lines(text)
    places = {_name(statement): statement for statement in source.tree.body}
    reached: set[str] = set()
    waiting = [name for name in roots if name in places]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [n for n in _names(places[name]) if n in places]
    edits: list[Edit] = []
    for name, statement in places.items():
        if name not in reached:
            first, last = _first_line(statement), statement.end_lineno or statement.lineno
            while first > 1 and source.lines[first - 2].startswith("#"):
                first -= 1
            edits.append((source.starts[first - 1], source.starts[last], ""))
    return tidy(apply(text, edits))


def _name(statement: ast.stmt) -> str:
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case _:
            return f"line {statement.lineno}"


def _first_line(statement: ast.stmt) -> int:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return min([statement.lineno, *(d.lineno for d in statement.decorator_list)])
    return statement.lineno


def _names(tree: ast.AST) -> Iterator[str]:
    return (n.id for n in walk(tree) if isinstance(n, ast.Name))


# ── lines behind a return ────────────────────────────────────────────────────────────────────────


def _without_lines_behind(text: str) -> str:
    source = Lines(text)
    edits: list[Edit] = []
    for function in source.tree.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        for body in _all_bodies(function):
            for statement, after in pairwise(body):
                if _leaves(statement):
                    last = body[-1].end_lineno or after.lineno
                    start = statement.end_lineno or statement.lineno
                    edits.append((source.starts[start], source.starts[last], ""))
                    break
    # What is gone with a longer piece is not taken out again.
    pieces = {(a, b) for a, b, _ in edits}
    inside = {
        (a, b) for a, b in pieces for c, d in pieces if (a, b) != (c, d) and c <= a and b <= d
    }
    return tidy(apply(text, [(a, b, "") for a, b in pieces - inside]))


def _leaves(statement: ast.stmt) -> bool:
    """Whether no line behind it is ever reached."""
    match statement:
        case ast.Return() | ast.Raise() | ast.Continue() | ast.Break():
            return True
        case ast.If(body=[*_, last], orelse=[*_, other]):
            return _leaves(last) and _leaves(other)
        case ast.With(items=items, body=[*_, last]):
            # Others, like contextlib.suppress, may go on behind their body.
            return all(ast.unparse(i.context_expr).startswith(_PASSING) for i in items) and (
                _leaves(last)
            )
        case _:
            return False


# ── local values ─────────────────────────────────────────────────────────────────────────────────


def _without_idle_lines(text: str) -> str:
    source = Lines(text)
    pure = _pure(source.tree)
    edits: list[Edit] = []
    for function in source.tree.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        read = {
            n.id for n in walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
        }
        for body in _all_bodies(function):
            idle = [s for s in body if _is_idle(s, read, pure)]
            idle += [s for s, after in pairwise(body) if s not in idle and _is_replaced(s, after)]
            if len(idle) == len(body):
                continue  # a body of nothing is no Python: leave it for people to see
            for statement in idle:
                start, end = statement.lineno, statement.end_lineno or statement.lineno
                while source.lines[start - 2].lstrip().startswith("#"):
                    start -= 1
                edits.append((source.starts[start - 1], source.starts[end], ""))
            edits += [edit for s in body if s not in idle for edit in _unnamed(source, s, read)]
    return tidy(apply(text, edits))


def _unnamed(source: Lines, statement: ast.stmt, read: set[str]) -> Iterator[Edit]:
    """Of several values that a line takes, those that nothing reads need no name."""
    match statement:
        case ast.Assign(targets=[ast.Tuple(elts=elements)]):
            for element in elements:
                if isinstance(element, ast.Name) and element.id not in {*read, "_"}:
                    yield (*source.extent(element), "_")
        case _:
            return


def _all_bodies(function: ast.FunctionDef) -> Iterator[list[ast.stmt]]:
    for node in walk(function):
        for name in ("body", "orelse"):
            body = getattr(node, name, None)
            if isinstance(body, list) and body:
                yield body


def _is_idle(statement: ast.stmt, read: set[str], pure: frozenset[str]) -> bool:
    """Whether a line only computes values that nothing reads."""
    match statement:
        case ast.Assign(targets=[target], value=value):
            names = set(_names(target)) if isinstance(target, ast.Name | ast.Tuple) else None
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            names = {name}
        case ast.AugAssign(target=ast.Name(id=name), value=value):
            names = {name}
        case _:
            return False
    if names is None or names & read:
        return False
    return _only_computes(value, pure)


def _is_replaced(statement: ast.stmt, after: ast.stmt) -> bool:
    """Whether a line gives a name a value that the next line replaces without a look."""
    match statement, after:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value),
            ast.Assign(targets=[ast.Name(id=again)], value=new),
        ):
            is_read = name in _names(new) or any(isinstance(n, ast.Call) for n in walk(value))
            return name == again and not is_read
        case _:
            return False


def _only_computes(tree: ast.AST, pure: frozenset[str]) -> bool:
    return all(_is_pure(n, pure) for n in walk(tree) if isinstance(n, ast.Call))


def _is_pure(call: ast.Call, pure: frozenset[str]) -> bool:
    match call.func:
        case ast.Attribute(value=ast.Name(id="tl"), attr=name):
            return name in _TRITON
        case ast.Attribute(value=ast.Name(id="math")):
            return True
        case ast.Attribute(attr=name):
            return name in _METHODS
        case ast.Name(id=name):
            return name in pure
        case _:
            return False


def _pure(tree: ast.Module) -> frozenset[str]:
    """The functions that are known only to compute, with those of this text that call no others."""
    own = {f.name: f for f in tree.body if isinstance(f, ast.FunctionDef)}
    pure = (_FUNCTIONS - own.keys()) | {n for n, f in own.items() if not _changes(f)}
    while True:
        kept = {n for n in pure if n not in own or _only_computes_in(own[n], frozenset(pure))}
        if kept == pure:
            return frozenset(pure)
        pure = kept


def _only_computes_in(function: ast.FunctionDef, pure: frozenset[str]) -> bool:
    return all(_only_computes(statement, pure) for statement in function.body)


def _changes(function: ast.FunctionDef) -> bool:
    """Whether it does more than to give its own names values: it raises, or writes elsewhere."""
    stays = (ast.Raise, ast.Global, ast.Nonlocal, ast.Delete, ast.With, ast.Assert)
    for node in walk(function):
        is_written = isinstance(node, ast.Attribute | ast.Subscript)
        if isinstance(node, stays) or (is_written and not isinstance(node.ctx, ast.Load)):
            return True
    return False


# ── second names ─────────────────────────────────────────────────────────────────────────────────


def _without_second_names(text: str) -> str:
    """A value that is only named again keeps its first name."""
    source = Lines(text)
    edits: list[Edit] = []
    for function in source.tree.body:
        if isinstance(function, ast.FunctionDef):
            stored = Counter(n.id for n in _local_names(function, ast.Store))
            for body in _all_bodies(function):
                for place, statement in enumerate(body):
                    edits += _by_first_name(source, function, body[:place], statement, stored)
    return tidy(apply(text, edits))


def _by_first_name(
    source: Lines,
    function: ast.FunctionDef,
    before: list[ast.stmt],
    statement: ast.stmt,
    stored: Counter[str],
) -> Iterator[Edit]:
    """The edits that leave `second = first` out, where `first` is given its value just `before`.

    Both are given one only once, so that they are equal wherever `second` is read.
    """
    match statement:
        case ast.Assign(targets=[ast.Name(id=second)], value=ast.Name(id=first)):
            pass
        case _:
            return
    firsts = [s for s in before if isinstance(s, ast.Assign) and first in map(_id, s.targets)]
    reads = [n for n in _local_names(function, ast.Load) if n.id == second]
    is_once = stored[second] == stored[first] == len(firsts) == 1
    if not is_once or any(n.lineno <= statement.lineno for n in reads):
        return
    yield source.starts[statement.lineno - 1], source.starts[statement.end_lineno or 0], ""
    for name in reads:
        yield (*source.extent(name), first)


def _local_names(function: ast.FunctionDef, context: type[ast.expr_context]) -> Iterator[ast.Name]:
    names = (n for n in walk(function) if isinstance(n, ast.Name))
    return (n for n in names if isinstance(n.ctx, context))


def _id(target: ast.expr) -> str:
    return target.id if isinstance(target, ast.Name) else ""


# ── parameters of kernels ────────────────────────────────────────────────────────────────────────


def _without_idle_parameters(text: str) -> str:
    source = Lines(text)
    calls: dict[str, list[ast.Call]] = {}
    mentions: Counter[str] = Counter()
    for node in walk(source.tree):
        if isinstance(node, ast.Name):
            mentions[node.id] += 1
        elif isinstance(node, ast.Call):
            calls.setdefault(_called(node), []).append(node)
    edits: list[Edit] = []
    for function in source.tree.body:
        if not isinstance(function, ast.FunctionDef) or not _is_kernel(function):
            continue
        own = calls.get(function.name, [])
        if mentions[function.name] != len(own) or function.args.defaults:
            continue  # passed around as a value: whoever calls it gives every parameter
        found = list(_without_parameters(source, function, own))
        # A call within the arguments of another waits for the next round.
        if not any(a < d and c < b for a, b, _ in found for c, d, _ in edits):
            edits += found
    return tidy(apply(text, edits))


def _without_parameters(
    source: Lines, function: ast.FunctionDef, calls: list[ast.Call]
) -> Iterator[Edit]:
    read = {n for statement in function.body for n in _names(statement)}
    parameters = function.args.args
    idle = {i for i, p in enumerate(parameters) if p.arg not in read}
    if idle:
        starts = [source.extent(p)[0] for p in parameters]
        yield from without(source, parameters, idle, starts)
        names = {parameters[i].arg for i in idle}
        for call in calls:
            yield from _without_arguments(source, call, idle, names)


def _is_kernel(function: ast.FunctionDef) -> bool:
    match function.decorator_list:
        case [ast.Attribute(value=ast.Name(id="triton"), attr="jit")]:
            return True
        case [ast.Call(func=ast.Attribute(value=ast.Name(id="triton"), attr="jit"))]:
            return True
        case _:
            return False


def _called(call: ast.Call) -> str:
    """The name of the function that is called, or of the kernel that is launched."""
    match call.func:
        case ast.Name(id="launch") if call.args and isinstance(call.args[0], ast.Name):
            return call.args[0].id
        case ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name)):
            return name
        case _:
            return ""


def _without_arguments(
    source: Lines, call: ast.Call, positions: set[int], names: set[str]
) -> list[Edit]:
    elements: list[ast.expr] = [*call.args, *(k.value for k in call.keywords)]
    starts = [source.extent(a)[0] for a in call.args]
    for keyword in call.keywords:
        value_start = source.extent(keyword.value)[0]
        starts.append(source.text.rfind(keyword.arg or "**", 0, value_start))
    is_launch = isinstance(call.func, ast.Name) and call.func.id == "launch"
    unwanted = {i for i in range(len(call.args)) if i in positions and not is_launch}
    unwanted |= {len(call.args) + i for i, k in enumerate(call.keywords) if k.arg in names}
    return without(source, elements, unwanted, starts) if unwanted else []


# ── parameters of other functions ────────────────────────────────────────────────────────────────


def _marked(text: str) -> str:
    """A `_` before parameters that a function is given in their order, and does not read."""
    source = Lines(text)
    given = {
        (_called(call), keyword.arg)
        for call in walk(source.tree)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
    }
    methods = {
        id(method)
        for owner in walk(source.tree)
        if isinstance(owner, ast.ClassDef)
        for method in owner.body
    }
    edits: list[Edit] = []
    for function in walk(source.tree):
        if not isinstance(function, ast.FunctionDef) or id(function) in methods:
            continue
        if _is_kernel(function):
            continue
        read = {n for statement in function.body for n in _names(statement)}
        own = [*function.args.args, *filter(None, [function.args.vararg])]
        for parameter in own:
            name = parameter.arg
            is_named = name.startswith("_") or (function.name, name) in given
            if name not in read and not is_named:
                start = source.extent(parameter)[0]
                edits.append((start, start, "_"))
    return apply(text, edits)
