"""A served session with the small encoder; the tests skip where the extra is absent."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image

from byname.serve.encoder import SharedEncoder
from byname.serve.guard import allowed_hosts
from byname.serve.problems import Reply
from byname.serve.session import Session
from byname.serve.uploads import Limits
from byname.taxonomy import Node, Taxonomy
from tests.helpers import FakeEncoder, make_photo

TOKEN = "t0ken"
BASE = "http://127.0.0.1:8765"
LIMITS = Limits(file=200_000, images=40, pixels=1_000_000, parts=30, json=100_000)


def photo(seed: int = 0, kind: str = "PNG", **how: Any) -> bytes:
    """The bytes of a small photo."""
    out = io.BytesIO()
    image: Image.Image = make_photo(seed)
    image.save(out, kind, **how)
    return out.getvalue()


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def session(encoder: FakeEncoder) -> Session:
    nodes = [Node("pets", "Pets"), Node("cat", "cat", "pets"), Node("dog", "dog", "pets")]
    taxonomy = Taxonomy([*nodes, Node("cow", "cow")])
    return Session(taxonomy, SharedEncoder(encoder), recipe="plain", limits=LIMITS)


@pytest.fixture
def client(session: Session) -> Iterator[Any]:
    """A client with the token and the right host."""
    pytest.importorskip("starlette", reason="needs the extra: pip install 'byname[serve]'")
    pytest.importorskip("python_multipart", reason="needs the extra: pip install 'byname[serve]'")
    from starlette.testclient import TestClient

    from byname.serve.app import make_app

    app = make_app(
        session,
        token=TOKEN,
        hosts=allowed_hosts(8765),
        static={"/": Reply(b"<!doctype html>", "text/html")},
    )
    with TestClient(app, base_url=BASE, headers={"X-Byname-Token": TOKEN}) as found:
        yield found


@pytest.fixture
def upload(client: Any) -> Callable[..., Any]:
    """Send files; returns the reply."""

    def send(*files: tuple[str, bytes]) -> Any:
        given = [("files", (name, data, "image/jpeg")) for name, data in files]
        return client.post("/api/images", files=given)

    return send
