"""What a user may have meant: words near a misspelt one, and other tools' names for our layers."""

from collections.abc import Iterable

# What people call these layers elsewhere, and how they are written here.
OTHER_NAMES = {
    "avgpool": "pool avg",
    "avg_pool": "pool avg",
    "averagepool": "pool avg",
    "averagepooling2d": "pool avg",
    "avgpool2d": "pool avg",
    "batch_norm": "batchnorm",
    "batchnorm2d": "batchnorm",
    "batchnormalization": "batchnorm",
    "bn": "batchnorm",
    "conv2d": "conv",
    "convolution": "conv",
    "convolution2d": "conv",
    "dense": "fc",
    "fully_connected": "fc",
    "fullyconnected": "fc",
    "gap": "globalpool avg",
    "globalavgpool": "globalpool avg",
    "globalaveragepooling2d": "globalpool avg",
    "identity": "skip",
    "linear": "fc",
    "max_pool": "pool max",
    "maxpool": "pool max",
    "maxpool2d": "pool max",
    "maxpooling2d": "pool max",
    "meanpool": "pool avg",
    "pooling": "pool",
}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelt one most likely stands for, or None.

    A word is near where at most a third of its letters are changed, added, dropped or swapped.
    """
    best, best_distance = None, max(1, len(word) // 3) + 1
    for candidate in known:
        distance = _distance(word.lower(), candidate.lower(), best_distance)
        if distance < best_distance:
            best, best_distance = candidate, distance
    return best


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
    return row[-1]
