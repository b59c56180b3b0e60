"""What goes over the wire: bodies of requests, and what bodies of answers say."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from byname.files import parse_json
from byname.llm.address import as_it_is, one_line
from byname.queries import Query, is_refusal

__all__ = [
    "BadReplyError",
    "Complaint",
    "Manner",
    "Mode",
    "Reply",
    "adapted",
    "complaint",
    "endpoint",
    "read_reply",
    "request_body",
    "safe_text",
    "samples_left",
]

Mode = Literal["chat", "completion"]
"""Whether a model answers messages, or goes on with a text, as base models do."""

WITHHELD = "I'm sorry, the server withheld this reply (content filter)."
_THOUGHT = re.compile(r"\A\s*<think>.*?(?:</think>\s*|\Z)", re.S)
_NEWER = re.compile(r"(?:gpt-[5-9]|o\d)", re.I)  # they refuse max_tokens, temperature and stop
_LONG = re.compile(
    r"context[ _]?(?:length|window|size)|maximum context|prompt is too long|too many tokens", re.I
)
_SCHEMA = re.compile(r"response_format|json_?schema|structured output|grammar|guided", re.I)
_FILTERED = re.compile(r"content_filter|content_policy|ResponsibleAI", re.I)


class BadReplyError(ValueError):
    """A body that is no answer of such a server."""


@dataclass(frozen=True)
class Manner:
    """How requests are put: what a server turned out not to know is left out."""

    schema: bool = False
    tokens: str = "max_tokens"
    temperature: bool = True
    stop: bool = True

    @classmethod
    def of(cls, model: str, schema: bool) -> Manner:
        """What a model of OpenAI's is known to take; for batch files, which cannot try."""
        if _NEWER.match(model.rpartition("/")[2]):
            return cls(schema, "max_completion_tokens", temperature=False, stop=False)
        return cls(schema)


@dataclass(frozen=True)
class Reply:
    """One answer: its text, why it ended, and the tokens as the server counted them."""

    text: str
    finish: str = ""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Complaint:
    """What an error body says: what it is about, and the server's words on one line."""

    kind: Literal["", "context", "filter", "quota"]
    text: str


def endpoint(mode: Mode) -> str:
    """Path after the base address."""
    return "/chat/completions" if mode == "chat" else "/completions"


def samples_left(query: Query, have: Mapping[str, int] | None) -> range:
    """Numbers of the samples that are still wanted: the last ones, as ``have`` counts the first.

    Examples
    --------
    >>> query = Query.make("cat", "", "look", "Describe a cat.", samples=3)
    >>> samples_left(query, {query.id: 2})
    range(2, 3)
    """
    return range(min(max(0, (have or {}).get(query.id, 0)), query.samples), query.samples)


def request_body(query: Query, model: str, mode: Mode, manner: Manner) -> dict[str, Any]:
    """Body of the request that asks a query once.

    Examples
    --------
    >>> query = Query.make("cat", "", "look", "Describe a cat.", stop=".")
    >>> request_body(query, "m", "completion", Manner())
    {'model': 'm', 'prompt': 'Describe a cat.', 'max_tokens': 150, 'temperature': 1.0, 'stop': '.'}
    """
    body: dict[str, Any] = {"model": model}
    if mode == "chat":
        body["messages"] = [{"role": "user", "content": query.text}]
    else:
        body["prompt"] = query.text
    body[manner.tokens] = query.max_tokens
    if manner.temperature:
        body["temperature"] = query.temperature
    if query.stop and manner.stop:
        body["stop"] = query.stop
    if manner.schema and mode == "chat" and query.form != "text":
        names = ("items",) if query.form == "list" else ("a", "b")
        schema = {
            "type": "object",
            "properties": {n: {"type": "array", "items": {"type": "string"}} for n in names},
            "required": list(names),
            "additionalProperties": False,
        }
        held = {"name": query.form, "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": held}
    return body


def safe_text(text: str) -> str:
    """The text without halves of characters, which no file can hold; all else stays as it is.

    Examples
    --------
    >>> safe_text("a\\ud800b")
    'a\ufffdb'
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_reply(held: Any, hide: Callable[[str], str] = as_it_is) -> Reply:
    """The first answer in the body of a chat or completion response.

    Reasoning in ``<think>`` is left out. What a server's filter withheld reads as a refusal.
    ``hide`` takes the key out of all but the text.

    Raises
    ------
    BadReplyError
        For a body of another shape.

    Examples
    --------
    >>> read_reply({"choices": [{"text": "It is red.", "finish_reason": "stop"}]}).text
    'It is red.'
    """
    if not isinstance(held, dict):
        raise BadReplyError("JSON that is no object")
    choices = held.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        said = complaint(held, hide).text if held.get("error") else ""
        raise BadReplyError(f"no choices in the answer{f': {said}' if said else ''}")
    choice, refusal = choices[0], None
    if isinstance(message := choice.get("message"), dict):
        text, refusal = _content(message.get("content")), message.get("refusal")
    else:
        text = choice.get("text")
    finish = choice.get("finish_reason")
    if isinstance(refusal, str) and refusal.strip() and not text:
        text = refusal if is_refusal(refusal) else f"I'm sorry: {refusal}"
    if finish == "content_filter" and not is_refusal(text if isinstance(text, str) else ""):
        text = WITHHELD
    if text is None and finish == "length":
        text = ""  # all was spent on reasoning
    if not isinstance(text, str):
        raise BadReplyError("an answer without text")
    usage = held.get("usage")
    counted = usage if isinstance(usage, dict) else {}
    prompt, completion = (
        n if isinstance(n := counted.get(f"{what}_tokens"), int) and 0 <= n < 2**40 else 0
        for what in ("prompt", "completion")
    )
    return Reply(
        safe_text(_THOUGHT.sub("", text, count=1)),
        one_line(finish or "", 40, hide),
        one_line(held.get("model") or "", 200, hide),
        prompt,
        completion,
    )


def _content(content: Any) -> Any:
    """Text of a message, which some servers give in parts."""
    if not isinstance(content, list):
        return content
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(part for part in parts if isinstance(part, str)) if parts else None


def complaint(body: Any, hide: Callable[[str], str] = as_it_is) -> Complaint:
    """What an error body says, in any of the shapes that servers give it.

    ``hide`` takes the key out.

    Examples
    --------
    >>> complaint(b'{"error": {"message": "Too long", "code": "context_length_exceeded"}}').kind
    'context'
    """
    held = body
    if isinstance(body, bytes):
        try:
            held = parse_json(body)
        except ValueError:
            held = body.decode("utf-8", "replace")
    if isinstance(held, str):
        page = held.lstrip()[:15].lower().startswith(("<!doctype", "<html", "<"))
        return Complaint("", "an HTML page" if page else one_line(held, hide=hide))
    error = (held.get("error") or held) if isinstance(held, dict) else held
    said: Any = error
    code = ""
    if isinstance(error, dict):
        said = error.get("message") or error.get("detail") or (error if any(error.values()) else "")
        code = " ".join(str(error.get(key) or "") for key in ("code", "type", "param"))
    text, code = one_line(said, hide=hide), one_line(code, hide=hide)
    if "insufficient_quota" in code:
        return Complaint("quota", text)
    if _FILTERED.search(code):
        return Complaint("filter", text)
    if _LONG.search(f"{code} {text}"):
        return Complaint("context", text)
    return Complaint("", one_line(f"{text} ({code.strip()})" if code.strip() else text, hide=hide))


def adapted(manner: Manner, body: dict[str, Any], said: str) -> Manner | None:
    """The manner without what a server refuses in a body; None where it is about something else.

    Examples
    --------
    >>> adapted(Manner(), {"temperature": 1}, "Unsupported value: 'temperature'").temperature
    False
    """
    if "response_format" in body and _SCHEMA.search(said):
        return dataclasses.replace(manner, schema=False)
    if "max_tokens" in body and "max_completion_tokens" in said:
        return dataclasses.replace(manner, tokens="max_completion_tokens")
    if "temperature" in body and re.search(r"\btemperature\b", said):
        return dataclasses.replace(manner, temperature=False)
    if "stop" in body and re.search(r"(?=.*support).*['\"` ]stop\b", said):
        return dataclasses.replace(manner, stop=False)
    return None
