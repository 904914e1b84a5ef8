"""The lock around isl, by itself: `threading` takes longer to load than a small file to check."""

from threading import RLock

ISL = RLock()
"""Held while isl works: it keeps one count of operations for all threads.

It is the only lock of checking, so no two threads can each wait for a lock that the other holds.
Nothing below it may take another one; `functools.cached_property`, which has one on Python 3.11,
is replaced by `record.once`.
"""
