"""What the C library does with memory that is freed: it is kept for the next request.

glibc takes arrays of more than 128 KiB from the system and gives them back at once, at first; later
it gives back the end of its heap. Every picture, tensor and message is such an array, and the
system has to clear every page of the next one: more time for an answer of 200 KB than all that
Python does for it. So arrays up to `LARGE` come from the heap, and the heap keeps what is free up
to `KEPT`; what is larger still goes back. Options: mallopt(3).
"""

from __future__ import annotations

import ctypes

MIB = 1024 * 1024
LARGE, KEPT = 8 * MIB, 96 * MIB
# Threads that each have a heap would each keep what is free in theirs.
HEAPS = 2

# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def keep_freed_memory() -> bool:
    """Set the C library up so, before the first thread starts; False where it has no such options
    (musl, macOS), and nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    options = ((_ARENA_MAX, HEAPS), (_MMAP_THRESHOLD, LARGE), (_TRIM_THRESHOLD, KEPT))
    taken = [mallopt(option, value) for option, value in options]
    return all(taken)
