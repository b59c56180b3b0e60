"""Images in an S3 store, as moto plays it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byname.errors import ImageError
from byname.images import cells, remote
from byname.images.refs import ImageRef
from byname.images.sources import open_source

from .samples import keys, refusal, write_tar

pytestmark = pytest.mark.slow
s3fs = pytest.importorskip("s3fs", reason="needs the extra 'remote'")
moto = pytest.importorskip("moto.server", reason="needs moto[server]")
SECRET = "wJalrXUtnFEMIK7MDENG"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A store with one bucket, found by the environment alone."""
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(remote, "BACK_OFF", 0.01)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    fs.makedirs("bucket", exist_ok=True)
    yield fs
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_every_kind_of_source(bucket: Any, tmp_path: Path) -> None:
    cells._reset()
    for name in ("b/a.png", "b/what?.jpg", "z#1.webp", "notes.txt"):
        bucket.pipe(f"bucket/photos/{name}", name.encode())
    source = open_source("s3://bucket/photos")
    assert keys(source) == ["b/a.png", "b/what?.jpg", "z#1.webp"]
    assert [ref.read() for ref in source.refs] == [b"b/a.png", b"b/what?.jpg", b"z#1.webp"]
    assert all(ref.mtime_ns > 10**18 for ref in source.refs)
    assert keys(open_source("s3://bucket/photos/**/*.png")) == ["b/a.png"]
    bucket.pipe(
        "bucket/s.tar", write_tar(tmp_path / "s.tar", {"1.jpg": b"1", "2.jpg": b"22"}).read_bytes()
    )
    assert [ref.read() for ref in open_source("s3://bucket/s.tar").refs] == [b"1", b"22"]
    rows, stream = [b"%02d" % i for i in range(40)], io.BytesIO()
    pq.write_table(pa.table({"image": rows}), stream, row_group_size=10)
    bucket.pipe("bucket/t/t.parquet", stream.getvalue())
    assert [ref.read() for ref in open_source("s3://bucket/t").refs] == rows
    (tmp_path / "l.txt").write_text("s3://bucket/photos/b/a.png\ns3://bucket/none.png\n")
    there, gone = sorted(open_source(tmp_path / "l.txt").refs, key=lambda ref: "none" in ref.key)
    assert there.read() == b"b/a.png"
    with pytest.raises(ImageError, match="it is not there"):
        gone.read()


def test_errors_hold_no_secret(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is there" in refusal("s3://bucket/none")
    for url in ("s3://no-such-bucket/a.jpg", "s3://bucket/no.jpg"):
        with pytest.raises(ImageError) as caught:
            ImageRef("k", url).read()
        assert "it is not there" in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ImageError) as caught:
        ImageRef("k", "s3://bucket/a.jpg").read()
    assert SECRET not in repr(caught.value)
