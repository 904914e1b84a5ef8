"""How far the mathematics of sizes may go, and what it raises where it stops.

Knows numbers and names of limits; knows neither sizes nor isl. The checker turns each of these
exceptions into a diagnostic (`E5xx` for a limit), so that no `.cnn` file can make it hang or fill
the memory.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_WEIGHT = 2_000
"""Symbols, terms and divisions in one size, all counted; a real network stays below 200."""

MAX_PRODUCT = 20_000
"""Pairs of terms that one multiplication may have to visit."""

MAX_NESTING = 40
"""Divisions inside divisions, where they could not be made one."""

MAX_BITS = 512
"""Bits of an integer in a size: sizes that people mean have less than 64."""

MAX_OPERATIONS = 350_000
"""Elementary operations of isl for one file: about a second; ResNet-152 takes a tenth of them."""

MAX_DIVISIONS = 12
"""Divisions in one case of a condition. Some of isl's steps on 20 take minutes and cannot be
interrupted, whatever the budget; a U-Net of H x W has 2.
"""

MAX_RELATED = 4
"""Divisions in the comparisons of one condition that relate several symbols, for the same reason,
and …
"""

MAX_RELATED_PERIOD = 256
"""… after how many sizes those may repeat themselves."""

MAX_LISTED = 1_024
"""Sizes, or remainders of a division, that are looked at one by one to print a condition."""

MAX_FACTORED = 1_000_000_000_000
"""The largest number whose divisors are tried, to solve `16*(H // 4)*(W // 4) == 400`."""

MAX_PIECES = 64
"""Cases (`… or … or …`) into which one condition may fall before it is given up as too hard."""


class Account:
    """One budget of `MAX_OPERATIONS` for all questions of a check."""

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self.holds_isl = False

    def hold_isl(self) -> None:
        """Keep other threads from isl until the account closes: their work would be counted too."""
        if not self.holds_isl:
            from cnndsl.sizes.lock import ISL  # noqa: PLC0415 (most files need no isl)

            ISL.acquire()
            self.holds_isl = True

    def close(self) -> None:
        """Let other threads ask."""
        if self.holds_isl:
            from cnndsl.sizes.lock import ISL  # noqa: PLC0415 (most files need no isl)

            self.holds_isl = False
            ISL.release()


_account: ContextVar[Account | None] = ContextVar("account", default=None)


@contextmanager
def one_account() -> Generator[None]:
    """Let all questions inside share one budget of `MAX_OPERATIONS`, as those of one file do.

    It stands here, not beside isl, so that a file without symbols opens one for nothing.
    """
    account = Account()
    token = _account.set(account)
    try:
        yield
    finally:
        _account.reset(token)
        account.close()


def current_account() -> Account | None:
    """The account that is open here, if one is."""
    return _account.get()


class SizeError(ArithmeticError):
    """What is asked of a size cannot be had; the base of all that is raised here."""


class TooLarge(SizeError):
    """A size outgrew one of the limits above, which the message names."""


class UndefinedDivision(SizeError):
    """A size with symbols was divided by something that is not a positive integer constant."""


class Undecidable(SizeError):
    """A comparison multiplies symbols, for which no exact answer can be promised."""


class TooHard(SizeError):
    """A question about symbols took more operations than its budget."""
