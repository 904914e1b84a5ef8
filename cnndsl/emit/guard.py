"""The last look at an emitted file: it holds nothing but what the emitter meant to write.

A `.cnn` file is hostile input. Should a text from one ever get past the emitter as code, the file
is not written. Knows which Python the emitter uses; knows nothing of networks.
"""

import ast
from collections.abc import Iterator
from typing import TypeGuard

from cnndsl.emit import splice
from cnndsl.emit.lines import walk

IMPORTS = frozenset(
    {
        "__future__",
        "cnndsl.rt",
        "collections.abc",
        "functools",
        "math",
        "torch",
        "torch.autograd.function",
    }
    | {"torch.autograd.graph", "torch.nn.functional", "torch.utils._python_dispatch"}
    | {"torch.utils.flop_counter"}
    | {"threading", "triton", "triton.compiler", "triton.language", "typing"}
)
# Every other name must be defined in the file itself.
BUILTINS = frozenset(
    {"RuntimeError", "TypeError", "ValueError", "any", "bool", "dict", "enumerate", "float", "id"}
    | {"int", "isinstance", "len", "list", "max", "min", "object", "pow", "property", "range"}
    | {"set", "staticmethod", "str", "sum", "super", "tuple", "type", "vars", "zip"}
)
# Parts of torch and triton that read files, load code or leave Python.
FORBIDDEN = frozenset({"cpp_extension", "hub", "load", "ops", "save", "serialization", "utils"})
# But for the one that has no other name.
GRADIENTS = "torch.ops.aten.convolution_backward"
LIBRARIES = frozenset({"F", "nn", "torch", "triton"})
_STATEMENTS = (
    ast.AnnAssign,
    ast.Assign,
    ast.Assert,
    ast.AugAssign,
    ast.ClassDef,
    ast.Expr,
    ast.For,
    ast.FunctionDef,
    ast.If,
    ast.Import,
    ast.ImportFrom,
    ast.Pass,
    ast.Raise,
    ast.Return,
    ast.While,
    ast.With,
)


class Unsafe(Exception):
    """The emitted text holds something that the emitter never writes: a bug in cnndsl."""


def inspect(text: str) -> None:
    """Raise `Unsafe` unless the text holds only what an emitted file may hold."""
    tree = ast.parse(text.replace(GRADIENTS, "torch.conv2d"))
    known = BUILTINS | set(_defined(tree))
    for node in walk(tree):
        match node:
            case ast.Import(names=names):
                _demand(all(n.name in IMPORTS for n in names), node, "an import")
            case ast.ImportFrom(module=module, level=level):
                _demand(module in IMPORTS and not level, node, "an import")
            case ast.Try(handlers=handlers):
                _demand(not handlers, node, "a Try")  # to put something back, not to hide an error
            case ast.stmt():
                _demand(isinstance(node, _STATEMENTS), node, f"a {type(node).__name__}")
            case ast.Name(id=name):
                _demand(name in known, node, f"the name {name!r}")
            case ast.Attribute(attr=name):
                _attribute(node)
            case ast.Lambda() | ast.Await() | ast.Yield() | ast.YieldFrom() | ast.NamedExpr():
                raise Unsafe(f"line {node.lineno}: a {type(node).__name__}")
            case _:
                continue
    unknown = splice.read_names(text) - BUILTINS - set(_of_the_module(tree))
    if unknown:
        raise Unsafe(f"names that nothing defines: {', '.join(sorted(unknown))}")


def _defined(tree: ast.AST) -> Iterator[str]:
    """The names that a file defines, each of which must be plain ASCII and not Python's own."""
    for node in walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                pass
            case ast.Name(id=name, ctx=ast.Store()):
                pass
            case ast.alias(name=name, asname=other):
                name = other or name.split(".")[0]
            case _:
                continue
        _demand(name.isascii() and not _is_hidden(name), node, f"the name {name!r}")
        yield name


def _of_the_module(tree: ast.Module) -> Iterator[str]:
    """The names that a file defines or imports at its top."""
    for statement in tree.body:
        match statement:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name.split(".")[0] for alias in names)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case _:
                yield from (n.id for n in walk(statement) if _is_stored(n))


def _is_stored(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _attribute(node: ast.Attribute) -> None:
    root = node.value
    while isinstance(root, ast.Attribute):
        root = root.value
    outside = isinstance(root, ast.Name) and root.id in LIBRARIES and node.attr in FORBIDDEN
    fine = node.attr.isascii() and not _is_hidden(node.attr) and not outside
    _demand(fine, node, f"`.{node.attr}`")


def _is_hidden(name: str) -> bool:
    return name.startswith("__") and name not in ("__init__", "__prepare_scriptable__")


def _demand(holds: bool, node: ast.AST, what: str) -> None:
    if not holds:
        raise Unsafe(f"line {getattr(node, 'lineno', 0)}: {what}")
