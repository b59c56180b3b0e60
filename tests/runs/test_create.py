"""Run folders: made once, found again, never mixed."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from byname.encoders import load_encoder
from byname.errors import EncoderError, OutputError, RunError
from byname.images.sources import open_source
from byname.runs import create
from byname.runs.create import create_run, how_to_load
from byname.runs.plan import Plan
from byname.runs.planfile import is_run
from tests.helpers import FakeEncoder, make_photo, make_photos

HOW = {"encoder": "fake", "precision": None}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos", 7)


def make(photos: Path, encoder: FakeEncoder | None = None, shard_size: int = 3) -> Plan:
    folder = photos.parent / "run"
    return create_run(open_source(photos), folder, encoder or FakeEncoder(), HOW, shard_size)


def test_a_plan_holds_what_the_source_has(photos: Path) -> None:
    source, plan = open_source(photos), make(photos)
    assert [ref.key for ref in plan.refs] == [ref.key for ref in source.refs]
    assert [ref.path for ref in plan.refs] == [os.path.abspath(r.path) for r in source.refs]  # noqa: PTH100
    assert (plan.n_shards, plan.settings.shard_size, plan.how) == (3, 3, HOW)
    assert plan.root == source.root
    assert is_run(plan.folder)


def test_the_same_plan_is_found_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(photos)
    before = {p.name: p.stat().st_mtime_ns for p in plan.folder.iterdir()}
    monkeypatch.chdir(photos.parent)
    again = create_run(open_source("photos"), "run", FakeEncoder(name="alias"), HOW, 3)
    assert again.made_of(1) == plan.made_of(1)
    before.pop("plan.lock")
    assert {n: (plan.folder / n).stat().st_mtime_ns for n in before} == before


def refused(photos: Path, encoder: FakeEncoder | None = None, shard_size: int = 3) -> str:
    with pytest.raises(RunError) as caught:
        make(photos, encoder, shard_size)
    return caught.value.seen


def test_another_plan_is_refused_with_what_differs(photos: Path) -> None:
    make(photos)
    assert refused(photos, shard_size=4) == "another one is there (shard size: 3 there, 4 now)"
    seen = refused(photos, FakeEncoder(name="other", weights="fake-2"))
    assert seen.startswith("another one is there (encoder: 'fake' there, 'other' now; weights: ")
    assert "images" not in seen
    make_photo(50).save(photos / "new.png")
    (photos / "0003.png").unlink()
    make_photo(51, (80, 80)).save(photos / "0001.png")
    assert refused(photos) == "another one is there (images: 1 added, 1 removed, 1 changed)"
    both = refused(photos, FakeEncoder(weights="fake-2"), 5)
    assert "shard size: 3 there, 5 now; images: 1 added" in both


def test_preprocessing_that_differs_is_named(photos: Path) -> None:
    make(photos)
    encoder = FakeEncoder()
    from dataclasses import replace

    assert encoder.info.preprocess is not None
    other = replace(encoder.info.preprocess, resize=48)
    encoder.info = replace(encoder.info, preprocess=other)
    assert "preprocessing, resize: 32 there, 48 now" in refused(photos, encoder)


def test_a_folder_with_other_files_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("dear")
    with pytest.raises(RunError, match=r"there are other files in it \(thesis.tex\)"):
        make(photos)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "dear"
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"it is a file\. Give a new or an empty folder"):
        create_run(open_source(photos), tmp_path / "file", FakeEncoder(), HOW)


def test_what_a_killed_planning_leaves_is_cleared(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("inputs.parquet", ".plan.json.0123456789ab.tmp", "plan.lock"):
        (tmp_path / "run" / name).write_text("half")
    plan = make(photos)
    assert len(plan.shard(2)) == 1
    assert sorted(p.name for p in plan.folder.iterdir()) == [
        "inputs.parquet",
        "plan.json",
        "plan.lock",
    ]


def test_a_full_disk_leaves_no_plan(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(create, "write_plan", full)
        with pytest.raises(OutputError, match=r"the disk is full, or your share of it \("):
            make(photos)
    assert not is_run(photos.parent / "run")
    assert make(photos).n_shards == 3


def test_an_encoder_without_pixels_makes_no_folder(photos: Path) -> None:
    encoder = FakeEncoder()
    encoder.info = type(encoder.info)("ready", 8, None, weights_sha256="x")
    with pytest.raises(EncoderError, match="it takes no pixels"):
        make(photos, encoder)
    assert not (photos.parent / "run").exists()


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"images": 2**31}, r"inputs.parquet.*and plan.json says 2,147,483,648 in "),
        ({"images": 6}, r"inputs.parquet.*and plan.json says 6 in 2"),
        ({"images": "8"}, "its number of images is '8'"),
        ({"images": 8.0}, "its number of images is 8.0"),
        ({"how": {"encoder": 5, "precision": None}}, "its plan.json cannot be used"),
        ({"how": {"encoder": "mini", "precision": {}}}, "its plan.json cannot be used"),
        ({"how": ["mini"]}, "its plan.json cannot be used"),
        ({"how": {}}, "its plan.json cannot be used"),
    ],
)
def test_a_plan_that_does_not_hold_what_it_should(
    photos: Path, change: dict[str, object], seen: str
) -> None:
    folder = make(photos).folder
    told = json.loads((folder / "plan.json").read_bytes())
    (folder / "plan.json").write_text(json.dumps(told | change))
    with pytest.raises(RunError, match=seen) as caught:
        Plan.open(folder)
    assert "\n" not in str(caught.value)


def test_the_list_of_images_is_understood_once(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its footer grows with the plan: read again for each shard, it would be the square."""
    opened: list[object] = []
    real, refs = pq.ParquetFile, make(photos, shard_size=1).refs

    def watched(*arguments: Any, **options: Any) -> pq.ParquetFile:
        opened.append(options.get("metadata"))
        return real(*arguments, **options)

    monkeypatch.setattr(pq, "ParquetFile", watched)
    assert len(list(refs)) == len(refs) > 3
    assert len(opened) == len(refs)
    assert None not in opened


def test_names_that_are_not_unicode_come_back(tmp_path: Path) -> None:
    path = os.fsencode(make_photos(tmp_path / "photos", 1)) + b"/caf\xe9.png"
    make_photo(1).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(os.fsdecode(path))
    plan = make(tmp_path / "photos")
    assert os.fsencode(plan.refs[1].path) == path
    assert plan.refs[1].read()


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("mini", "mini"),
        ("enc", "{here}/enc"),
        ("onnx:enc", "onnx:{here}/enc"),
        ("onnx:../enc", "onnx:{here}/../enc"),
        ("transformers:enc", "transformers:{here}/enc"),
        ("transformers:openai/clip", "transformers:openai/clip"),
        ("onnx-hub:enc", "onnx-hub:enc"),
        ("open_clip:ViT-B-32/openai", "open_clip:ViT-B-32/openai"),
        ("open_clip:ViT-B-32@enc/w.pt", "open_clip:ViT-B-32@{here}/enc/w.pt"),
        ("open_clip:local-dir:enc", "open_clip:local-dir:{here}/enc"),
        ("open_clip:hf-hub:a/b", "open_clip:hf-hub:a/b"),
    ],
)
def test_encoders_are_named_for_workers_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, wanted: str
) -> None:
    (tmp_path / "enc").mkdir()
    monkeypatch.chdir(tmp_path)
    here = Path.cwd()
    told = how_to_load(FakeEncoder(), spec, None)
    assert told == {"encoder": wanted.format(here=here), "precision": None}
    monkeypatch.setenv("BYNAME_ENCODER", spec)
    assert how_to_load(FakeEncoder(), None, None) == told


def test_the_precision_is_the_one_that_was_kept(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="makes a tiny encoder with the package onnx")
    from tests.encoders import tiny

    encoder = load_encoder(tiny.byname_folder(tmp_path / "encoder"))
    assert how_to_load(encoder, "mini", "int8")["precision"] == "fp32"
    assert how_to_load(FakeEncoder(), "mini", "bf16")["precision"] == "bf16"
