"""The whole application, and what hostile requests get."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from byname.serve.guard import HEADERS
from byname.serve.session import Session
from tests.serve.conftest import LIMITS, photo
from tests.serve.test_pictures import bomb

Upload = Callable[..., Any]


def refused(reply: Any, status: int) -> dict[str, str]:
    """The three texts of an error, after a look at what every error is."""
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/json"
    assert all(reply.headers[name] == value for name, value in HEADERS.items())
    error: dict[str, str] = reply.json()["error"]
    assert set(error) == {"asked", "seen", "do"}
    assert "Traceback" not in reply.text
    assert ".py" not in reply.text
    return error


def test_a_whole_visit(client: Any, upload: Upload) -> None:
    assert client.get("/").text == "<!doctype html>"
    state = client.get("/api/state").json()
    assert [one["id"] for one in state["classes"]] == ["cat", "dog", "cow"]
    done = upload(("a.jpg", photo(1)), ("b.jpg", photo(2)), ("c.jpg", b"no")).json()
    assert [one["name"] for one in done["added"]] == ["a.jpg", "b.jpg"]
    assert [one["name"] for one in done["refused"]] == ["c.jpg"]
    classes = [{"id": "cat", "name": "tiger"}, {"name": "hen"}]
    body = {"classes": classes, "recipes": ["plain", "ensemble"], "order": "name"}
    found = client.post("/api/score", json=body).json()
    assert [one["name"] for one in found["runs"][0]["classes"]] == ["tiger", "hen"]
    assert [row["name"] for row in found["rows"]] == ["a.jpg", "b.jpg"]
    assert len(found["rows"][0]["answers"]) == 2
    thumb = client.get(f"/api/thumb/{found['rows'][0]['image']}")
    assert thumb.headers["content-type"] == "image/jpeg"
    assert client.get("/api/why/i0?recipe=ensemble").json()["texts"]
    put = client.put("/api/corrections", json={"image": "i0", "class_id": "hen"})
    assert put.json() == {"corrections": 1}
    table = client.get("/api/corrections.csv")
    assert "attachment" in table.headers["content-disposition"]
    assert table.text.splitlines()[1].startswith("a.jpg,hen,hen,")
    report = client.get("/api/report")
    assert "attachment" in report.headers["content-disposition"]
    assert "<html" in report.text
    assert client.delete("/api/images/i0").json() == {"images": 1}
    assert client.get("/api/progress").json() == {"what": "", "done": 0, "total": 0}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:9999", "evil.example:8765"])
def test_wrong_hosts(client: Any, host: str) -> None:
    for path in ("/", "/api/state", "/nothing"):
        refused(client.get(path, headers={"Host": host}), 403)


def test_wrong_origins(client: Any) -> None:
    for origin in ("http://evil.example", "null"):
        refused(client.post("/api/score", json={}, headers={"Origin": origin}), 403)


def test_no_token(client: Any) -> None:
    del client.headers["X-Byname-Token"]
    for method, path in (
        ("GET", "/api/state"),
        ("POST", "/api/images"),
        ("DELETE", "/api/images/i0"),
        ("OPTIONS", "/api/score"),
        ("GET", "/api/report?token=t0ken"),
        ("GET", "/api/thumb/i0"),
    ):
        refused(client.request(method, path), 401)
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//app.py",
        "/static/app.py",
        "/static/..\\app.py",
        "/..%2f..%2fetc/passwd",
        "/static/%00",
        "/static/",
        "/app.py",
        "//etc/passwd",
        "/api/thumb/../state/x",
        "/api/thumb/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/api/why/..%2f..%2fetc%2fpasswd",
    ],
)
def test_paths_reach_nothing(client: Any, path: str) -> None:
    refused(client.get(path), 404)


def test_unknown_images_and_methods(client: Any) -> None:
    for path in ("/api/thumb/i7", "/api/why/i7", "/api/thumb/x%00"):
        refused(client.get(path), 404)
    refused(client.delete("/api/images/i7"), 404)
    refused(client.put("/api/corrections", json={"image": "i7", "class_id": "cat"}), 404)
    refused(client.put("/api/state", json={}), 405)


def test_the_files_of_the_page_are_served_and_nothing_else() -> None:
    from byname.serve.app import static_files

    found = static_files()
    assert {"/", "/static/app.js", "/static/app.css"} <= set(found)
    assert all(path == "/" or path.startswith("/static/") for path in found)
    assert not any("py" in path for path in found)


def streamed(total: int, head: bytes = b"") -> Iterator[bytes]:
    """A body without a length, sent in chunks."""
    yield head
    for _ in range(total // 10_000):
        yield bytes(10_000)


def test_bodies_are_counted_and_their_length_never_believed(client: Any) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=X"}
    head = b'--X\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    body = streamed(LIMITS.body + 20_000, head)
    error = refused(client.post("/api/images", content=body, headers=kind), 413)
    assert "MB" in error["seen"]
    lied = {**kind, "Content-Length": "10"}
    body = streamed(LIMITS.body + 20_000, head)
    refused(client.post("/api/images", content=body, headers=lied), 413)


def test_a_large_file_is_one_refusal(upload: Upload) -> None:
    found = upload(("big.jpg", bytes(LIMITS.file + 1)), ("a.jpg", photo(1))).json()
    assert [one["name"] for one in found["added"]] == ["a.jpg"]
    assert "MB" in found["refused"][0]["error"]


def test_ten_thousand_parts(client: Any) -> None:
    part = b'--X\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=X"}
    reply = client.post("/api/images", content=part * 10_000 + b"--X--\r\n", headers=kind)
    assert "30 parts" in refused(reply, 400)["seen"]


def test_other_content_types(client: Any) -> None:
    kind = {"Content-Type": "image/jpeg"}
    refused(client.post("/api/images", content=photo(1), headers=kind), 415)
    refused(client.post("/api/images"), 415)


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x", bytes(10**6))
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bomb(30_000), "megapixels"),
        (b"<svg onload=alert(1)></svg>", "SVG"),
        (b"<html><script>alert(1)</script>", "HTML"),
        (b"%PDF-1.4", "PDF"),
        (zipped(), "ZIP"),
        (photo(3)[: len(photo(3)) // 2], "truncated"),
        (photo(3, "JPEG")[:300], "truncated"),
        (b"", "empty"),
    ],
)
def test_what_is_no_image_is_one_refusal(upload: Upload, data: bytes, reason: str) -> None:
    reply = upload(("photo.jpg", data))
    assert reply.status_code == 200
    assert reply.json()["added"] == []
    assert reason in reply.json()["refused"][0]["error"]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "<script>alert(1)</script>", "a\nb.jpg", "=1+1.jpg", "\u202ex.jpg"]
)
def test_hostile_file_names_are_texts(client: Any, upload: Upload, name: str) -> None:
    (one,) = upload((name, photo(1))).json()["added"]
    assert "/" not in one["name"].replace("</", "")
    assert "\n" not in one["name"]
    row = client.post("/api/score", json={}).json()["rows"][0]
    assert row["name"] == one["name"]
    client.put("/api/corrections", json={"image": one["id"], "class_id": "cat"})
    line = client.get("/api/corrections.csv").text.splitlines()[1]
    assert not line.startswith(("=", '"='))


def test_a_file_in_another_field_is_an_error_that_keeps_what_came_before(client: Any) -> None:
    files = [("files", ("a.jpg", photo(1))), ("image", ("b.jpg", photo(2)))]
    reply = client.post("/api/images", files=files)
    assert "another name" in refused(reply, 400)["seen"]
    assert [one["name"] for one in reply.json()["added"]] == ["a.jpg"]


def test_room_ends(client: Any, upload: Upload) -> None:
    for start in range(0, 40, 20):
        assert (
            upload(*[(f"{i}.png", photo(i)) for i in range(start, start + 20)]).status_code == 200
        )
    found = upload(("one more.png", photo(1))).json()
    assert "--max-images" in found["refused"][0]["error"]
    assert client.get("/api/state").json()["images"] == 40


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"classes": "cat"}',
        b'{"classes": []}',
        b'{"classes": [{"name": ""}]}',
        b'{"classes": [{}]}',
        b'{"classes": [{"name": 7}]}',
        b'{"recipes": []}',
        json.dumps({"recipes": ["x" * 201]}).encode(),
        b'{"recipes": ["a", "b", "c", "d"]}',
        b'{"offset": -1}',
        b'{"limit": 1e99}',
        b'{"limit": ' + b"9" * 5000 + b"}",
        b'{"order": "price"}',
        json.dumps({"classes": [{"name": "x" * 301}]}).encode(),
        json.dumps({"template": "{}" * 300}).encode(),
    ],
)
def test_bad_json_is_told_apart_from_good(client: Any, body: bytes) -> None:
    seen = refused(client.post("/api/score", content=body), 400)["seen"]
    assert seen
    assert "ScoreRequest" not in seen


def test_ten_megabytes_of_json(client: Any) -> None:
    body = b'{"template": "' + b"x" * 10_000_000 + b'"}'
    refused(client.post("/api/score", content=body), 413)
    refused(client.put("/api/corrections", content=body), 413)


@pytest.mark.slow
def test_long_class_lists(client: Any, upload: Upload, session: Session) -> None:
    upload(("a.jpg", photo(1)))
    session.limits = type(LIMITS)(json=1_000_000)
    many = [{"name": f"name {i}"} for i in range(5_000)]
    found = client.post("/api/score", json={"classes": many}).json()
    assert len(found["runs"][0]["classes"]) == 5_000
    assert found["rows"][0]["top"][0][1] > 0
    found = client.post("/api/score", json={"classes": many, "recipes": ["ensemble"]}).json()
    assert "395,000 new texts" in found["runs"][0]["error"]["seen"]


def test_class_lists_of_any_length(client: Any, upload: Upload, session: Session) -> None:
    upload(("a.jpg", photo(1)))
    session.limits = type(LIMITS)(json=1_000_000)
    many = [{"name": f"name {i}"} for i in range(5_001)]
    assert "5000" in refused(client.post("/api/score", json={"classes": many}), 400)["seen"]
    one = client.post("/api/score", json={"classes": many[:1]}).json()
    assert one["rows"][0]["answers"][0]["probability"] == 1.0
    twins = client.post("/api/score", json={"classes": [{"name": "a"}, {"name": "a"}]}).json()
    assert [c["id"] for c in twins["runs"][0]["classes"]] == ["a", "a-2"]
    assert "a-2" in twins["notes"][0]


def test_halves_of_characters_do_no_harm(client: Any, upload: Upload) -> None:
    upload(("a.jpg", photo(1)))
    names = b'{"classes": [{"name": "\\ud800"}, {"name": "b"}]}'
    refused(client.post("/api/score", content=names), 400)
    refused(client.post("/api/score", content=b'{"recipes": ["\\ud800"]}'), 400)


def test_an_error_of_ours_is_answered_and_logged(
    client: Any, session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(session, "state", broken)
    error = refused(client.get("/api/state"), 500)
    assert "secret" not in json.dumps(error)
    assert "a secret path" in caplog.text
