"""Made-up reports of any size and with any names, as the dictionary of the page."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from typing import Any

from byname.report.schema import FORMAT, Report

__all__ = ["BAD", "HOSTILE", "made_up"]

BAD = "<script>window.hacked=1</script>"
HOSTILE = (
    BAD,
    "</script><script>window.hacked=2</script>",
    '" onmouseover="window.hacked=3" x="',
    "' onfocus='window.hacked=4' autofocus='",
    "{{7*7}}{% raw %}${7*7}",
    "<img src=x onerror=window.hacked=5>",
    "</style><style>*{display:none}</style>",
    "</title><svg/onload=window.hacked=6>",
    "javascript:window.hacked=7",
    "<!--<script>",
    "]]>--><b>",
    "\u2028window.hacked=8\u2029",
    "👩‍🔬🦄",
    "\u202eشجرة التفاح\u202d",
    "n" * 500,
    "a\ud800\x00\x1b[31m\tb",
    "https://example.org/x.png",
    "url(//example.org/x)",
    "__proto__",
    "constructor",
)


def plain(kind: str, i: int) -> str:
    """The name of thing ``i`` of a kind."""
    return f"{kind} {i}"


def made_up(
    K: int,
    shown: int,
    *,
    n_images: int | None = None,
    name: Callable[[str, int], str] = plain,
    labelled: bool = True,
    thumbnail: int = 0,
    groups: int = 0,
    texts: int = 8,
) -> Report:
    """A report of K classes that shows some images, with everything that a report can hold.

    Parameters
    ----------
    K, shown : int
        Classes, and images that are shown.
    n_images : int, optional
        Images that there are; as many as are shown by default.
    name : callable
        Makes every text that could come from outside.
    labelled : bool
    thumbnail : int
        Bytes of each picture; 0 for none.
    groups : int
        Inner nodes above the classes; 0 for a flat list.
    texts : int
        Texts of each class.
    """
    dice = random.Random(7)
    ids = [name("id", k) for k in range(K)]
    ids = [i if i not in ids[:k] else f"{i} {k}" for k, i in enumerate(ids)]
    N = shown if n_images is None else n_images
    files = [f"{i}/{name('file', i)}" for i in range(shown)]
    where = [f"group{k % groups}" for k in range(K)] if groups else [""] * K
    one = K == 1
    return Report(
        format=FORMAT,
        title=name("title", 0),
        recipe=name("recipe", 0),
        n_images=N,
        expected_accuracy=None if one else 0.7,
        interval=None if one else [0.6, 0.8],
        worst=[] if one else list(ids),
        summary={
            "n_unreadable": 3,
            "n_classes": K,
            "n_otherwise": 0,
            "coverage": 1.0,
            "expected_accuracy": None if one else 0.7,
            "expected_above": None if one else 0.0,
            "n_labelled": N if labelled else None,
            "accuracy": 0.65 if labelled else None,
            "above": 0.0 if labelled else None,
            "accuracy_accepted": 0.65 if labelled else None,
            "severity": 1.5 if labelled else None,
            "expected_severity": None if one else 1.4,
            "decisions": {"accept": N},
            "verdict": name("verdict", 0),
        },
        findings=[] if one else _findings(ids, files, name),
        classes={i: _class(k, ids, where, shown, name, labelled, texts) for k, i in enumerate(ids)},
        tree=_tree(ids, where, groups, name, labelled),
        heights=[]
        if one
        else [
            {"height": h + 1, "expected_share": 0.2, "true_share": 0.1 if labelled else None}
            for h in range(2 if groups else 1)
        ],
        images=[_image(i, files[i], ids, name, labelled, thumbnail, dice) for i in range(shown)],
        unreadable=[
            {"file_name": name("file", i), "error": name("error", i)} for i in range(min(3, N))
        ],
        numbers={name("analysis", 0): {name("number", 0): 0.5, "none": None}},
        members={name("member", 0): {name("key", 0): [1, {"a": name("value", 0)}], "x": 1.25}},
        notes=[name("note", 0)],
        provenance={
            "command": ["byname", name("word", 0)],
            "date": "2030-01-02T03:04:05+00:00",
            "encoder": {"id": name("encoder", 0)},
        },
    )


def _findings(ids: list[str], files: list[str], name: Callable[[str, int], str]) -> list[Any]:
    return [
        {
            "kind": name("kind", i),
            "level": level,
            "what": name("what", i),
            "next": name("next", i),
            "classes": ids[:20],
            "images": files[:20],
            "texts": [name("text", j) for j in range(8)],
            "count": 20,
            "values": {name("value", i): 0.5},
        }
        for i, level in enumerate(("problem", "warning", "note"))
    ]


def _truth(labelled: bool) -> dict[str, Any] | None:
    return {"n": 8, "accuracy": 0.5, "precision": None} if labelled else None


def _class(
    k: int,
    ids: list[str],
    where: list[str],
    shown: int,
    name: Callable[[str, int], str],
    labelled: bool,
    texts: int,
) -> dict[str, Any]:
    K, own = len(ids), list(range(k, shown, len(ids)))
    return {
        "name": name("class", k),
        "path": [*([where[k]] if where[k] else []), ids[k]],
        "n": 0 if k % 10 == 9 else 10,
        "predicted_share": 1 / K,
        "cmm": None if k % 10 == 9 else 0.01234567,
        "expected_accuracy": None if K == 1 else (k % 100) / 100,
        "interval": None if K == 1 else [0.1, 0.9],
        "confusions": []
        if K == 1
        else [
            {
                "id": ids[(k + step) % K],
                "share": 0.2,
                "contrast": [name("contrast", k), name("contrast", k + 1)],
                "true_share": 0.1,
            }
            for step in range(1, min(4, K))
        ],
        "flag": "weak" if k % 2 else "",
        "next": name("next", k),
        "texts": [
            {
                "text": f"{name('text', k)} {m}",
                "kind": name("kind", m),
                "weight": 0.125,
                "changes": 0.01 * m,
                "effect": 0.01 * (m - 2),
                "hurts": m > 5,
            }
            for m in range(texts)
        ],
        "typical": own[:1],
        "doubtful": own[1:2],
        "truth": _truth(labelled),
    }


def _tree(
    ids: list[str],
    where: list[str],
    groups: int,
    name: Callable[[str, int], str],
    labelled: bool,
) -> dict[str, Any]:
    def node(node_id: str, called: str, level: int, children: list[Any]) -> dict[str, Any]:
        return {
            "id": node_id,
            "name": called,
            "level": level,
            "n": 10,
            "classes": sum(c["classes"] for c in children) or 1,
            "expected_precision": 0.5,
            "truth": _truth(labelled),
            "children": children,
        }

    leaves = [node(i, name("class", k), 2 if groups else 1, []) for k, i in enumerate(ids)]
    if groups:
        made = []
        for g in range(groups):
            own = [leaf for leaf, at in zip(leaves, where, strict=True) if at == f"group{g}"]
            made.append(node(f"group{g}", name("group", g), 1, own))
        leaves = made
    return node("", "", 0, leaves)


def _image(
    i: int,
    file_name: str,
    ids: list[str],
    name: Callable[[str, int], str],
    labelled: bool,
    thumbnail: int,
    dice: random.Random,
) -> dict[str, Any]:
    K = len(ids)
    pieces = [
        {"text": f"{name('text', i)} {m}", "weight": 0.1, "cosine": 0.25, "part": 0.025 - 0.01 * m}
        for m in range(4)
    ]
    code = base64.b64encode(dice.randbytes(thumbnail)).decode()
    return {
        "file_name": file_name,
        "class_id": ids[i % K],
        "label": name("class", i % K),
        "probability": 0.6,
        "margin": 0.2,
        "decision": "accept",
        "outcome": ("right" if i % K == 0 else "wrong") if labelled else None,
        "top": [[ids[(i + j) % K], 0.6 / (j + 1)] for j in range(min(5, K))],
        "why": pieces,
        "against": ids[(i + 1) % K] if K > 1 else None,
        "why_not": pieces if K > 1 else [],
        "thumbnail": f"data:image/jpeg;base64,{code}" if thumbnail else None,
        "true_id": ids[0] if labelled else None,
        "about": ["typical" if i % 2 else "doubtful", name("reason", 0)],
    }
