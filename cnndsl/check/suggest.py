"""What a user may have meant: words near a misspelt one."""

from collections.abc import Iterable

# Pairs of letters that are compared for one word: those of a hundred names.
MOST_PAIRS = 10_000


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelt one most likely stands for, or None.

    A word is near where at most a third of its letters are changed, added, dropped or swapped.
    Only so many of the known words are looked at as `MOST_PAIRS` allows.
    """
    best, best_distance = None, max(1, len(word) // 3) + 1
    word = word.lower()
    letters, left = set(word), MOST_PAIRS
    for candidate in known:
        small = candidate.lower()
        if len(letters.difference(small)) >= best_distance:
            continue  # each letter that is not there is an edit
        a, b = _apart(word, small)
        left -= len(a) * len(b) + 1
        if left < 0:
            break
        distance = _distance(a, b, best_distance)
        if distance < best_distance:
            best, best_distance = candidate, distance
    return best


def _apart(a: str, b: str) -> tuple[str, str]:
    """Two words without the letters that they have in common at the start and at the end."""
    start, most = 0, min(len(a), len(b))
    while start < most and a[start] == b[start]:
        start += 1
    end = 0
    while end < most - start and a[-1 - end] == b[-1 - end]:
        end += 1
    return a[start : len(a) - end], b[start : len(b) - end]


def _distance(a: str, b: str, limit: int) -> int:
    """Edits between two words, a swap of neighbours counting one (optimal string alignment)."""
    if abs(len(a) - len(b)) >= limit:
        return limit
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        next_row = [i]
        for j, y in enumerate(b, 1):
            cost = min(row[j] + 1, next_row[j - 1] + 1, row[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            next_row.append(cost)
        before, row = row, next_row
        if min(row) >= limit and min(before) >= limit:
            return limit  # it only grows from here
    return row[-1]
