"""Blocks of the file and defaults of layers: what their names and arguments mean."""

from cnndsl.check.evaluate import Evaluator, is_condition
from cnndsl.check.scope import Definition, Scope
from cnndsl.check.suggest import nearest
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Sink
from cnndsl.layers.arguments import Value
from cnndsl.layers.table import BY_KIND
from cnndsl.syntax import tree


def define_block(block: tree.Block, scope: Scope, sink: Sink) -> None:
    """`block NAME(…) { … }`: known from here on, unless the name is taken."""
    name, span = block.name.text, block.name.span
    fixes = (Fix("choose another name"),)
    if name in BY_KIND:
        sink.add(Diagnostic("E208", f"`{name}` is a layer", span, fixes=fixes))
    elif any(d.block.name.text == name for d in scope.own_blocks()):
        sink.add(Diagnostic("E208", f"there is a block `{name}` already", span, fixes=fixes))
    else:
        scope.define(block)


def set_defaults(statement: tree.Default, scope: Scope, sink: Sink) -> None:
    """`default LAYER ARG=…`: for the layers of that kind below it in this scope."""
    kind = statement.layer
    if kind.text not in BY_KIND:
        message = f"there is no layer called `{kind.text}`"
        sink.add(Diagnostic("E201", message, kind.span, fixes=_did_you_mean(kind, (*BY_KIND,))))
        for argument in statement.arguments:
            scope.doubt_default(name=argument.name.text)
        return
    slots = BY_KIND[kind.text].slots
    options = tuple(name for name, slot in slots.items() if slot.by_name and not slot.required)
    for argument in statement.arguments:
        if argument.name.text in options:
            scope.set_default(kind.text, argument)
            continue
        message = f"`{kind.text}` has no option `{argument.name.text}`"
        fixes = _did_you_mean(argument.name, options)
        sink.add(Diagnostic("E204", message, argument.name.span, fixes=fixes))
        scope.doubt_default(kind.text)


def call_scope(call: tree.LayerCall, definition: Definition, caller: Scope, sink: Sink) -> Scope:
    """The scope of a block's body: its parameters with the values of this call.

    A parameter to which a mistake, which is reported, leaves no value is mistaken there.
    """
    given, all_fit = _given(call, definition.block, sink)
    block = definition.block
    lacking = [p.name.text for p in block.parameters if p.default is None]
    lacking = [f"`{name}`" for name in lacking if name not in given]
    if lacking and all_fit:
        label = Label(block.name.span, "it is defined here")
        message = f"`{block.name.text}` needs {' and '.join(lacking)}"
        sink.add(Diagnostic("E202", message, call.head, labels=(label,)))
    scope = Scope(definition.scope)
    scope.see_with(caller)  # a default may be `channels`
    for parameter in block.parameters:
        name = parameter.name.text
        if name in given:
            value = _value(given[name], caller, sink)
        elif parameter.default is not None and all_fit:
            value = _value(parameter.default, scope, sink)
        else:
            value = None  # what does not fit may be meant for it
        scope.put(name, value)
    return scope


def _value(expression: tree.Expression, scope: Scope, sink: Sink) -> Value | None:
    value = Evaluator(scope, sink).value(expression)
    if is_condition(value):
        message = "a condition on free sizes cannot be an argument"
        sink.add(Diagnostic("E206", message, expression.span))
        return None
    return value


def _given(
    call: tree.LayerCall, block: tree.Block, sink: Sink
) -> tuple[dict[str, tree.Expression], bool]:
    """The expression for each parameter that the call gives, and whether all arguments fit.

    One that does not is reported.
    """
    names = [parameter.name.text for parameter in block.parameters]
    free = iter(names)
    given: dict[str, tree.Expression] = {}
    twice: set[str] = set()
    good = True
    for argument in call.arguments:
        match argument:
            case tree.Positional(expression):
                name = next(free, None)
            case tree.Keyword(tree.Name(name), expression):
                pass
            case _:
                name, expression = None, None
        if name in names and name not in given and expression is not None:
            given[name] = expression
            continue
        if good or not isinstance(argument, tree.Positional):  # one too many is said once
            sink.add(_unfit(argument, block, given))
        good = False
        twice.update({name} & given.keys() if name is not None else ())
    return {name: value for name, value in given.items() if name not in twice}, good


def _unfit(
    argument: tree.Argument, block: tree.Block, given: dict[str, tree.Expression]
) -> Diagnostic:
    """An argument that the block does not take."""
    name = block.name.text
    takes = ", ".join(f"`{p.name.text}`" for p in block.parameters)
    fix = Fix(f"it takes {takes}" if takes else "it takes nothing: remove this")
    match argument:
        case tree.Keyword(tree.Name(word)) if word in given:
            code, message = "E205", f"`{word}` is given twice"
        case tree.Keyword(tree.Name(word)):
            code, message = "E204", f"`{name}` has no parameter `{word}`"
        case _:
            code, message = "E203", f"`{name}` takes no further argument"
    label = Label(block.name.span, "it is defined here")
    return Diagnostic(code, message, argument.span, labels=(label,), fixes=(fix,))


def _did_you_mean(name: tree.Name, known: tuple[str, ...]) -> tuple[Fix, ...]:
    near = nearest(name.text, known)
    return (Fix(f"did you mean `{near}`?", (Edit(name.span, near),)),) if near else ()
