"""Prints a size, as the language's own expression and as a formula for messages.

Knows how people write sizes; changes no value. `plain` is what Python and the language evaluate to
the size, `pretty` is for the eye only.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cnndsl.sizes.atoms import UNKNOWN, Atom, Floor, Monomial, Terms
from cnndsl.sizes.factors import factor

if TYPE_CHECKING:
    from cnndsl.sizes.dim import Dim

# How strongly a text holds together: what stands inside needs parentheses where it holds less.
_SUM, _DIVISION, _PRODUCT, _ATOM = range(4)


class _Text(NamedTuple):
    text: str
    holds: int

    def inside(self, least: int) -> str:
        return self.text if self.holds >= least else f"({self.text})"


class _Style(NamedTuple):
    times: str
    minus: str
    floor: Callable[[_Text, int], _Text]
    remainder: Callable[[_Text, int], _Text]
    powers: bool


def plain(dim: "Dim") -> str:
    """The language's expression."""
    return _written(dim.terms, _PLAIN)


def pretty(dim: "Dim") -> str:
    """The formula for messages."""
    return _written(dim.terms, _PRETTY)


@lru_cache(maxsize=1024)
def _written(terms: Terms, style: "_Style") -> str:
    """A network has few different sizes, and shows each of them many times."""
    return _write(terms, style).text


def _plain_floor(top: _Text, divisor: int) -> _Text:
    return _Text(f"{top.inside(_PRODUCT)} // {divisor}", _DIVISION)


def _plain_remainder(top: _Text, divisor: int) -> _Text:
    return _Text(f"{top.inside(_PRODUCT)} % {divisor}", _DIVISION)


def _pretty_floor(top: _Text, divisor: int) -> _Text:
    return _Text(f"⌊{top.inside(_DIVISION)}/{divisor}⌋", _ATOM)


def _pretty_remainder(top: _Text, divisor: int) -> _Text:
    return _Text(f"{top.inside(_PRODUCT)} mod {divisor}", _DIVISION)


_PLAIN = _Style("*", "-", _plain_floor, _plain_remainder, powers=False)
_PRETTY = _Style("·", "−", _pretty_floor, _pretty_remainder, powers=True)


def _write(terms: Terms, style: _Style) -> _Text:
    if len(terms) == 1:
        monomial, coefficient = terms[0]
        return _term(coefficient, monomial, style)
    content, parts = factor(terms)
    if len(parts) == 1 and not (content != 1 and _shifted(parts[0])):
        return _sum(terms, style)
    return _product(content, [_write(part, style) for part in parts], style)


def _term(coefficient: int, monomial: Monomial, style: _Style) -> _Text:
    if not monomial:
        return _Text(_number(coefficient, style), _ATOM if coefficient >= 0 else _SUM)
    return _product(coefficient, [_atom(atom, style) for atom in monomial], style)


def _number(value: int, style: _Style) -> str:
    return str(value) if value >= 0 else f"{style.minus}{-value}"


def _atom(atom: Atom, style: _Style) -> _Text:
    if isinstance(atom, Floor):
        return style.floor(_write(atom.numerator.terms, style), atom.divisor)
    return _Text(UNKNOWN if atom.name.startswith(UNKNOWN) else atom.name, _ATOM)


def _product(content: int, parts: list[_Text], style: _Style) -> _Text:
    if content == 1 and len(parts) == 1:
        return parts[0]
    if style.powers:
        parts = _with_powers(parts)
    texts = [part.inside(_ATOM) for part in parts]
    sign = style.minus if content < 0 else ""
    if abs(content) != 1:
        texts.insert(0, str(abs(content)))
    text = sign + style.times.join(texts)
    return _Text(text, _SUM if sign else _ATOM if len(texts) == 1 else _PRODUCT)


def _with_powers(parts: list[_Text]) -> list[_Text]:
    counted: dict[_Text, int] = {}
    for part in parts:
        counted[part] = counted.get(part, 0) + 1
    return [
        part if n == 1 else _Text(part.inside(_ATOM) + str(n).translate(_RAISED), _ATOM)
        for part, n in counted.items()
    ]


_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def _sum(terms: Terms, style: _Style) -> _Text:
    shifted = _shifted(terms)
    if shifted is not None:
        numerator, divisor = shifted
        return style.floor(_sum(numerator, style), divisor)
    left = dict(terms)
    pieces = _remainders(left, style)
    pieces += [(n > 0, _term(abs(n), monomial, style)) for monomial, n in left.items() if n]
    # A sum starts with something positive where there is one: `5 - H`.
    start = next((n for n, (positive, _) in enumerate(pieces) if positive), 0)
    pieces.insert(0, pieces.pop(start))
    positive, first = pieces[0]
    if len(pieces) == 1 and positive:
        return first
    text = first.text if positive else style.minus + first.inside(_PRODUCT)
    for positive, piece in pieces[1:]:
        text += f" {'+' if positive else style.minus} {piece.inside(_DIVISION)}"
    return _Text(text, _SUM)


def _shifted(terms: Terms) -> tuple[Terms, int] | None:
    """`(H + 3) // 4 - 1` as `(H - 1) // 4`: numerator and divisor, where that is shorter."""
    match terms:
        case (((Floor() as atom,), 1), ((), -1)):
            monomial, offset = atom.numerator.terms[-1]
            if not monomial:
                lowered = (*atom.numerator.terms[:-1], ((), offset - atom.divisor))
                return lowered, atom.divisor
        case _:
            pass
    return None


def _remainders(left: dict[Monomial, int], style: _Style) -> list[tuple[bool, _Text]]:
    """Take each `x - k*(x // k)` out of the terms and write it as `x % k`."""
    found: list[tuple[bool, _Text]] = []
    for monomial, coefficient in list(left.items()):
        match monomial:
            case (Floor(numerator=top, divisor=k),) if coefficient % k == 0:
                times = -coefficient // k
            case _:
                continue
        moved = [(m, n * times) for m, n in top.terms]
        if times == 0 or any(left.get(m) != n for m, n in moved if m):
            continue
        for m, n in moved:
            left[m] = left.get(m, 0) - n
        left[monomial] = 0
        remainder = style.remainder(_write(top.terms, style), k)
        found.append((times > 0, _product(abs(times), [remainder], style)))
    return found
