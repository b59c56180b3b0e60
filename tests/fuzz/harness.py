"""What every fuzz target must keep to, and how bytes are spoilt."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hypothesis import strategies as st

from byname.errors import BynameError

__all__ = ["JSON", "MAX_MEGABYTES", "MAX_SECONDS", "Target", "attempt", "cards", "check", "spoilt"]

MAX_SECONDS = 5.0
MAX_MEGABYTES = 1024
_BYTES = (0, 1, 2, 0x20, 0x22, 0x2C, 0x41, 0x7F, 0x80, 0xFE, 0xFF)
_NUMBERS = (0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63)


@dataclass(frozen=True)
class Target:
    """What is fed with what: ``run`` must return, or raise one of ``errors``.

    ``megabytes``: what one input may take.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    run: Callable[[Any], object]
    errors: tuple[type[Exception], ...] = (BynameError,)
    megabytes: int = MAX_MEGABYTES


def check(target: Target, value: Any) -> str:
    """Run a target once. AssertionError for what may not happen; else the error, "" for none."""
    before, started = _peak_megabytes(), time.process_time()
    said = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.run(value)
    except target.errors as error:
        said = _said(error)
    except BaseException as error:
        # Panics of native code come as BaseException, too.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise AssertionError(f"{target.name}: {type(error).__name__}: {error!s:.300}") from error
    # Time of the processor, so that a busy machine does not look like a slow reader.
    took, grown = time.process_time() - started, _peak_megabytes() - before
    assert took < MAX_SECONDS, f"{target.name}: {took:.1f} s"
    assert grown < target.megabytes, f"{target.name}: {grown:,.0f} MB"
    return said


def attempt(*readers: Callable[[], object]) -> None:
    """Every reader in turn, also where one before it refuses with a BynameError."""
    for reader in readers:
        try:
            reader()
        except BynameError as error:
            _said(error)


def _said(error: Exception) -> str:
    """What an error says, which must not be nothing."""
    parts = [error.asked, error.seen] if isinstance(error, BynameError) else []
    assert all(part.strip() for part in (str(error), *parts)), f"{error!r} says too little"
    return str(error)


def _peak_megabytes() -> float:
    try:
        import resource
    except ImportError:  # Windows has no such count; the other limits still hold there
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# -- inputs

_PLACE = st.integers(0, 2**24 - 1)
_STEP = st.one_of(
    st.tuples(st.just("set"), _PLACE, st.one_of(st.sampled_from(_BYTES), st.integers(0, 255))),
    st.tuples(st.just("number"), _PLACE, st.sampled_from(_NUMBERS), st.booleans()),
    st.tuples(st.just("cut"), _PLACE),
    st.tuples(st.just("drop"), _PLACE, st.integers(1, 64)),
    st.tuples(st.just("twice"), _PLACE, st.integers(1, 64)),
    st.tuples(st.just("put"), _PLACE, st.binary(min_size=1, max_size=8)),
)


def spoilt(
    seeds: Sequence[bytes], *, head: int = 0, most: int = 6, words: Sequence[bytes] = ()
) -> st.SearchStrategy[bytes]:
    """Seeds with a few things changed, half of the time within their first ``head`` bytes.

    ``words`` are put in where a step puts bytes: pieces that mean something in the format.
    """
    steps = _STEP
    if words:
        steps = st.one_of(steps, st.tuples(st.just("put"), _PLACE, st.sampled_from(list(words))))
    near = st.booleans() if head else st.just(False)
    listed = st.lists(st.tuples(steps, near), min_size=0, max_size=most)
    return st.builds(partial(_spoil, head=head), st.sampled_from(list(seeds)), listed)


def _spoil(seed: bytes, steps: list[Any], head: int) -> bytes:
    data = bytearray(seed)
    for (kind, place, *more), near in steps:
        at = place % (min(len(data), head if near else len(data)) + 1)
        if kind == "set" and at < len(data):
            data[at] = more[0]
        elif kind == "number":
            width = 4 if more[0] < 2**32 else 8
            data[at : at + width] = more[0].to_bytes(width, "little" if more[1] else "big")
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + more[0]]
        elif kind == "twice":
            data[at:at] = data[at : at + more[0]]
        elif kind == "put":
            data[at:at] = more[0]
    return bytes(data)


_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 100),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**400, 1e308, float("inf"), float("nan")]),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["", " ", "cat", "dog", "\ud800", "\0", "a\nb", "<pad>", "A" * 300]),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(["cat", "dog"]), st.text(max_size=4)), inner,
                        max_size=4),
    ),
    max_leaves=8,
)  # fmt: skip


def cards(
    good: dict[str, Any], names: Sequence[str] = (), most: int = 3
) -> st.SearchStrategy[bytes]:
    """JSON objects that are nearly ``good``: a few members changed, added or taken away."""
    keys = st.sampled_from([*good, *names])
    changes = st.dictionaries(keys, st.one_of(JSON, st.just(...)), max_size=most)

    def made(changed: dict[str, Any]) -> bytes:
        held = {k: v for k, v in (good | changed).items() if v is not ...}
        return json.dumps(held).encode()

    return st.builds(made, changes)
