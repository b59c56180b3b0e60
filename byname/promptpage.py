"""A prompt set as one page for readers: no script, nothing loaded, every text inert."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from byname.promptset import PromptSet
from byname.taxonomy import Taxonomy

__all__ = ["prompt_page"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #6b6b6b; }
@media (prefers-color-scheme: dark) { :root { --dim: #a8a8a8; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } dt { color: var(--dim); } dd { margin: 0 0 .5rem; }
details { border-top: 1px solid var(--line); padding: .4rem 0; }
summary { cursor: pointer; } small { color: var(--dim); }
li { margin: .3rem 0; overflow-wrap: anywhere; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'sha256-{{ digest }}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>Prompts of {{ classes | length }} classes</title>
<style>{{ style }}</style>
</head>
<body>
<h1>Prompts of {{ classes | length }} classes</h1>
<dl>
{%- for key, value in facts %}
<dt>{{ key }}</dt><dd><bdi dir="auto">{{ value }}</bdi></dd>
{%- endfor %}
</dl>
{%- for class in classes %}
<details>
<summary><bdi dir="auto">{{ class.name }}</bdi> <small>{{ class.texts | length }} texts, \
<bdi dir="auto">{{ class.id }}</bdi></small></summary>
<ol>
{%- for text, note in class.texts %}
<li><bdi dir="auto">{{ text }}</bdi>\
{% if note %} <small><bdi dir="auto">{{ note }}</bdi></small>{% endif %}</li>
{%- endfor %}
</ol>
</details>
{%- endfor %}
</body>
</html>
"""


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(_PAGE)


def prompt_page(prompts: PromptSet, taxonomy: Taxonomy) -> str:
    """HTML of the texts of every class, folded up class by class.

    Control characters and marks of direction appear as U+FFFD, and each text is a ``bdi`` element
    of its own, so that none changes how its surroundings read. The page's policy allows no script
    and loads nothing.

    Examples
    --------
    >>> taxonomy = Taxonomy.from_names(["cat"])
    >>> "a &lt;b&gt;cat" in prompt_page(PromptSet.from_templates(taxonomy, ["a <b>{}"]), taxonomy)
    True
    """
    counts = prompts.summary()
    kinds = ", ".join(f"{kind} ({count})" for kind, count in Counter(counts["kinds"]).items())
    facts = [("texts", str(counts["texts"])), ("kinds", kinds)]
    facts += [
        (key, str(value))
        for key, value in prompts.provenance.model_dump().items()
        if value not in ("", None)
    ]
    against: dict[str, list[tuple[str, str]]] = {}
    for pair in prompts.pairs:
        note = f"against {taxonomy.node(pair.b).name}"
        against.setdefault(pair.a, []).extend((_shown(text), _shown(note)) for text in pair.texts)
    classes = [
        {
            "id": _shown(node.id),
            "name": _shown(node.name),
            "texts": [(_shown(p.text), _shown(_note(p))) for p in prompts.classes.get(node.id, ())]
            + against.get(node.id, []),
        }
        for node in taxonomy.classes
        if node.id in prompts.classes or node.id in against
    ]
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return _template().render(
        classes=classes,
        facts=[(_shown(key), _shown(value)) for key, value in facts],
        # Our own text, and it must be byte for byte what the policy's hash is over.
        style=Markup(_STYLE),
        digest=Markup(digest),
    )


def _note(prompt: Any) -> str:
    parts = [prompt.kind if prompt.kind != "text" else "", prompt.about]
    parts += [f"level {prompt.level}"] * (prompt.level >= 0)
    parts += [f"weight {prompt.weight:g}"] * (prompt.weight != 1)
    return ", ".join(filter(None, parts))


def _shown(text: str) -> str:
    """The text with U+FFFD for what is not printable; joiners of letters stay."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t \u200c\u200d\xa0\u3000" else "\ufffd" for c in text
    )
