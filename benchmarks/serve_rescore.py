"""How long the page of ``byname serve`` waits after one name is edited.

Made-up images (unit vectors around the text vectors), 20 classes, the encoder ``mini``. Each edit
gives one class a name that was never seen; the request is the one that the page sends, through the
whole application, and the clock stands around it. ``parts`` says where the time goes.

    python benchmarks/serve_rescore.py [--images 1000] [--edits 50] [--recipe ensemble]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from byname.encoders import load_encoder
from byname.serve import scores
from byname.serve.app import make_app
from byname.serve.encoder import SharedEncoder
from byname.serve.guard import allowed_hosts
from byname.serve.run import one_blas_thread
from byname.serve.session import Session
from byname.serve.uploads import Limits
from byname.taxonomy import Taxonomy

NAMES = (  # noqa: SIM905 - one a word would fill the page
    "tabby cat,golden retriever,brown horse,dairy cow,barn owl,goldfish,honey bee,oak tree,"
    "red rose,green apple,ripe banana,coffee mug,wooden chair,table lamp,road bike,fire truck,"
    "sailing boat,steam train,acoustic guitar,grand piano"
).split(",")
FIRST = ("old", "small", "wild", "blue", "striped", "young", "heavy", "round", "broken", "silver")
SECOND = ("kettle", "sparrow", "wagon", "pumpkin", "violin", "lantern", "otter", "cactus", "anchor")


def session_of(n: int, recipe: str, threads: int | None) -> Session:
    """A session with n made-up images."""
    encoder = SharedEncoder(load_encoder("mini", threads=threads))
    found = Session(
        Taxonomy.from_names(NAMES), encoder, recipe=recipe, limits=Limits(images=max(n, 1))
    )
    rng = np.random.default_rng(0)
    T = encoder.encode_texts([f"a photo of a {name}." for name in NAMES])
    X = T[rng.integers(len(T), size=n)] + rng.normal(size=(n, T.shape[1])) / T.shape[1] ** 0.5
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    for i, x in enumerate(X.astype(np.float32)):
        found.store.add(f"{i}.jpg", x)
    return found


def timed(parts: dict[str, list[float]], name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """``work``, with its seconds noted."""

    def run(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            parts.setdefault(name, []).append(time.perf_counter() - start)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--recipe", default="ensemble")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    session = session_of(given.images, given.recipe, given.threads)
    parts: dict[str, list[float]] = {}
    inner = session.encoder.inner
    inner.encode_texts = timed(parts, "encode new texts", inner.encode_texts)  # type: ignore[method-assign]
    scores.diagnose = timed(parts, "expected accuracy", scores.diagnose)  # type: ignore[assignment]
    app = make_app(session, token="t", hosts=allowed_hosts(8765))
    classes = [{"id": i, "name": name} for i, name in zip(session.base.class_ids, NAMES)]  # noqa: B905
    seconds, cpu, size = [], [], 0
    with one_blas_thread(), TestClient(app, base_url="http://127.0.0.1:8765") as client:
        headers = {"X-Byname-Token": "t"}
        client.post("/api/score", json={"classes": classes}, headers=headers)
        parts.clear()
        for i in range(given.edits):
            new = f"{FIRST[i % len(FIRST)]} {SECOND[i % len(SECOND)]}"
            classes[i % len(classes)] = {**classes[i % len(classes)], "name": new}
            start, used = time.perf_counter(), time.process_time()
            reply = client.post("/api/score", json={"classes": classes}, headers=headers)
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)  # of all threads: what others do not disturb
            assert reply.status_code == 200
            size = len(reply.content)
    shown = {name: round(1000 * float(np.median(s))) for name, s in parts.items()}
    print(
        json.dumps(
            {
                "images": given.images,
                "edits": given.edits,
                "recipe": given.recipe,
                "p50_ms": round(1000 * float(np.percentile(seconds, 50))),
                "p95_ms": round(1000 * float(np.percentile(seconds, 95))),
                "processor_p50_ms": round(1000 * float(np.percentile(cpu, 50))),
                "parts_p50_ms": shown,
                "reply_kb": round(size / 1000),
            }
        )
    )


if __name__ == "__main__":
    main()
