"""How the process of a command holds memory: it keeps what is freed, and uses it again.

A step of a network frees what it took, and the C library gives large parts of that back to the
system; the next step gets them back page by page, each one cleared. On a CPU that took up to a
sixth of a step of training and a fifth of inference (`docs/performance.md`).
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_MOST = 2**31 - 1  # bytes: an int's largest
# Larger tensors get pages of their own, as they do by default: in one heap they would leave holes.
_SMALL = 2**25


def keep_freed() -> bool:
    """Ask glibc to keep memory that is freed; gives whether it took that. Others are left alone."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library, such as musl
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _SMALL) and mallopt(_TRIM_THRESHOLD, _MOST))
