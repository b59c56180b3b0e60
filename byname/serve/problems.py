"""What a client is told when something cannot be done: JSON with asked, seen and do."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from byname.errors import BynameError

__all__ = ["Problem", "Reply", "as_json", "refusal"]


class Problem(BynameError):  # noqa: N818 - most are no errors of anyone
    """A request that is refused, with the status of HTTP that says why.

    Examples
    --------
    >>> Problem(404, "find the image 'i9'", "there is no such image").status
    404
    """

    def __init__(self, status: int, asked: str, seen: str, do: str = "") -> None:
        super().__init__(asked, seen, do)
        self.status = status


@dataclass(frozen=True)
class Reply:
    """What is sent: bytes with a status and a type."""

    body: bytes
    kind: str = "application/json"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def as_json(value: Any, status: int = 200) -> Reply:
    """A reply in JSON; NaN is a mistake of ours and never sent.

    Examples
    --------
    >>> as_json({"n": 1}).body
    b'{"n":1}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Halves of characters, which JSON can carry in, cannot be sent.
    return Reply(text.encode("utf-8", "replace"), status=status)


def refusal(error: BynameError, **more: Any) -> Reply:
    """The reply to a request that is refused; what is no Problem is bad input.

    Examples
    --------
    >>> refusal(Problem(404, "find it", "it is not there")).status
    404
    """
    status = error.status if isinstance(error, Problem) else 400
    said = {"asked": error.asked, "seen": error.seen, "do": error.do}
    reply = as_json({"error": said, **more}, status)
    return Reply(reply.body, status=status, headers={"Retry-After": "1"} if status == 429 else {})
