"""How the words of one statement are written, and the blanks between them. Knows no line ends."""

from typing import NamedTuple

from cnndsl.syntax.lex import Token, lexicon

_ENDERS = frozenset({"NAME", "PATH", "INTEGER", "REAL", "SIZE", "SHAPE", "STRING", "QMARK", "RPAR"})
_OPERATORS = frozenset({"PLUS", "MINUS", "TIMES", "OVER", "MODULO", "COMPARE"})
# Statements in which operators have blanks around them; elsewhere blanks separate arguments.
_LOOSE = frozenset({"LET", "PARAM", "REQUIRE", "EXPECT", "IF", "REPEAT"})


# The one number of a layer, which it takes by its place: `dropout 0.2`, not `dropout p=0.2`.
ONE_NUMBER = {
    "dropout": "p",
    "dropout2d": "p",
    "droppath": "p",
    "layernorm": "eps",
    "leaky_relu": "slope",
    "scale": "init",
}


class Written(NamedTuple):
    """A token as it is printed, with the blank behind it."""

    token: Token
    text: str
    is_shape: bool  # whether it belongs to `-> SHAPE`


def written(text: str, tokens: list[Token]) -> list[Written]:
    """The tokens of one statement, those of the bodies in it too."""
    pieces: list[Written] = []
    context = _Context()
    needless = 0  # so many tokens from here on are not printed
    for i, token in enumerate(tokens):
        kind = context.enter(token)
        word = text[token.start : token.end]
        if needless:
            needless -= 1
            pieces.append(Written(token, "", context.after_arrow))
            continue
        if context.is_start and kind == "NAME" and _is_named(text, word, tokens[i + 1 : i + 4]):
            needless = 2
        if kind in ("SIZE", "SHAPE"):
            word = word.replace("×", "x")
            if context.in_shape:
                word = word.replace("x", " x ")
        elif kind == "CROSS":
            word = "x"
        following = tokens[i + 1] if i + 1 < len(tokens) else None
        gap = context.blank(kind, following, text[token.end : following.start] if following else "")
        pieces.append(Written(token, word + gap, context.after_arrow))
    return pieces


def _is_named(text: str, layer: str, rest: list[Token]) -> bool:
    """Whether the one number of a layer follows behind its name, which it can do without."""
    if layer not in ONE_NUMBER or [t.kind for t in rest[:2]] != ["NAME", "EQUAL"]:
        return False
    name = text[rest[0].start : rest[0].end]
    # A number with a minus would need parentheses.
    return name == ONE_NUMBER[layer] and [t.kind for t in rest[2:]] not in ([], ["MINUS"])


class _Context:
    """Where in a statement we are."""

    def __init__(self) -> None:
        self.statement = ""  # the terminal with which it began
        self.in_shape = False
        self.after_arrow = False
        self.depth = 0  # of parentheses
        self.last = ""  # the token before, as it was understood
        self.is_unary = False
        self.is_start = False  # whether the last token began a statement

    def enter(self, token: Token) -> str:
        """Take one token in; the terminal that it stands for."""
        kind = token.kind
        self.is_start = False
        if self.last in ("", "LBRACE", "RBRACE") and kind not in ("LBRACE", "RBRACE"):
            self._begin(kind)
        elif kind == "X":
            is_joint = self.in_shape and self.depth == 0 and self.last in _ENDERS
            kind = "X" if is_joint else "NAME"
        elif kind == "U8" or (kind in lexicon().starters and self.last != "ELSE"):
            kind = "NAME"
        if kind == "ARROW":
            self.in_shape = self.after_arrow = True
        elif kind == "LBRACE":
            self.in_shape = self.after_arrow = False
        elif kind == "ELSE" or (kind == "IF" and self.last == "ELSE"):
            self.statement = "IF"
        self.is_unary = kind == "MINUS" and self.last not in _ENDERS
        self.depth += (kind == "LPAR") - (kind == "RPAR")
        self.last = kind
        return kind

    def _begin(self, kind: str) -> None:
        self.statement = kind
        self.is_start = True
        self.in_shape = kind in ("INPUT", "ARROW")
        self.after_arrow = False

    def blank(self, kind: str, following: Token | None, gap: str) -> str:
        """What stands between this token and the next."""
        if following is None:
            return ""
        after = following.kind
        if self._ends_here(gap, after):
            self.last = ""
            return "; "
        if kind == "LPAR" or after in ("RPAR", "COMMA") or self.is_unary:
            return ""
        if after == "LPAR" and self.statement == "BLOCK" and self.depth == 0:
            return ""
        if "EQUAL" in (kind, after):
            return " " if self.statement in ("LET", "PARAM") else ""
        if (kind in _OPERATORS or after in _OPERATORS) and not self._is_loose():
            return ""
        return " "

    def _ends_here(self, gap: str, after: str) -> bool:
        """Whether a `;` between statements of a body on one line follows."""
        return ";" in gap.partition("#")[0] and after != "RBRACE" and self.last != "LBRACE"

    def _is_loose(self) -> bool:
        return self.statement in _LOOSE or self.depth > (self.statement == "BLOCK")
