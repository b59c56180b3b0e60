"""Telling that memory did not suffice from whatever else an encoder may fail with."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from byname.errors import EncoderMemoryError

__all__ = ["MORE_MEMORY", "out_of_memory", "within_memory"]

T = TypeVar("T")
MORE_MEMORY = "Use a smaller --batch-size, or an encoder that needs less."
# As torch, CUDA, cuDNN, cuBLAS, onnxruntime and C++ say it. None has a class that all versions of
# the library share, and some have none at all.
_SAID = re.compile(
    r"out of memory|not enough memory|bad[ _]alloc|alloc_failed"
    r"|(failed to|can't|cannot|unable to) allocate",
    re.IGNORECASE,
)
_DEPTH = 8


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that it was raised for, means that memory did not suffice.

    Examples
    --------
    >>> out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    True
    >>> out_of_memory(RuntimeError("shapes do not match"))
    False
    """
    link: BaseException | None = error
    for _ in range(_DEPTH):
        if link is None:
            return False
        if isinstance(link, MemoryError | EncoderMemoryError) or _SAID.search(str(link)):
            return True
        if type(link).__name__ == "OutOfMemoryError":  # torch's, which may say nothing
            return True
        link = link.__cause__ or link.__context__
    return False


def within_memory(asked: str, run: Callable[[], T], free: Callable[[], None] = lambda: None) -> T:
    """What ``run`` returns; where memory does not suffice for it, it is freed and said.

    Raises
    ------
    EncoderMemoryError

    Examples
    --------
    >>> within_memory("encode images", lambda: 3)
    3
    """
    try:
        return run()
    except (RuntimeError, MemoryError) as error:  # torch's own class is a RuntimeError
        if not out_of_memory(error):
            raise
        seen = f"memory does not suffice ({error!s:.200})"
    # Outside: an exception that knew of the first one would keep its frames, and what is in them.
    free()
    raise EncoderMemoryError(asked, seen, MORE_MEMORY)
