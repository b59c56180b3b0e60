"""The audit of what CI installed: each kind of fault is found."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "audit.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="needs the checkout's .ci folder")


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize(
    ("name", "version", "seen"),
    [
        ("pyarrow", "14.0.0", "CVE-2023-47248"),
        ("h11", "0.14.0", "CVE-2025-43859"),
        ("torch", "2.5.1+cpu", "CVE-2025-32434"),
        ("jinja2", "3.1.5", "CVE-2025-27516"),
    ],
)
def test_a_bad_version_is_found(audit: ModuleType, name: str, version: str, seen: str) -> None:
    date, listed = audit.known_bad()
    assert date >= "2026-11-23"
    lines = audit.bad_versions({name: version, "numpy": "2.0.0"}, listed)
    assert all(line.startswith(f"{name} {version} is in ") for line in lines)
    assert seen in " ".join(lines)


def test_a_good_version_is_not(audit: ModuleType) -> None:
    listed = audit.known_bad()[1]
    assert audit.bad_versions({"pyarrow": "14.0.1", "h11": "0.16.0", "unknown": "1"}, listed) == []


def test_names_and_ranges_of_the_list_are_sound(audit: ModuleType) -> None:
    from packaging.utils import canonicalize_name

    for name, ranges in audit.known_bad()[1].items():
        assert name == canonicalize_name(name)
        for bad in ranges:
            assert set(bad) == {"versions", "ids"}
            assert bad["ids"], name
            assert audit.SpecifierSet(bad["versions"])


def test_what_the_project_asks_for_admits_no_known_hole(audit: ModuleType) -> None:
    asked = audit.requirements()
    assert any(text.startswith("pillow") for text in asked)
    assert any(text.startswith("starlette") for text in asked)
    assert audit.admitted(asked, audit.known_bad()[1]) == []


@pytest.mark.parametrize("text", ["pillow>=10.3", "Pillow", "pillow~=12.0", "pillow==9.0"])
def test_a_bound_that_admits_one_is_found(audit: ModuleType, text: str) -> None:
    assert "CVE-2026-59199" in " ".join(audit.admitted([text], audit.known_bad()[1]))
    assert audit.admitted(["pillow>=12.3", "numpy>=1.26"], audit.known_bad()[1]) == []


def installed(folder: Path, digest: str) -> Distribution:
    """A distribution of one file, ``a.py``, whose RECORD says that digest."""
    info = folder / "thing-1.0.dist-info"
    info.mkdir()
    (folder / "a.py").write_bytes(b"x = 1\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"a.py,sha256={digest},6\nthing-1.0.dist-info/RECORD,,\n")
    return PathDistribution(info)


GOOD = "nia_NpkRxFwkPGhBR7I_yeHc_PJX0pmhxjIBam_NM_Q"


def test_a_changed_or_lost_file_is_found(audit: ModuleType, tmp_path: Path) -> None:
    held = installed(tmp_path, GOOD)
    assert audit.changed_files(held) == []
    (tmp_path / "a.py").write_bytes(b"x = 2\n")
    assert audit.changed_files(held) == ["thing: a.py is not what was installed"]
    (tmp_path / "a.py").unlink()
    assert audit.changed_files(held) == ["thing: a.py is gone"]
    (tmp_path / "thing-1.0.dist-info" / "RECORD").unlink()
    assert audit.changed_files(held) == ["thing: it has no RECORD"]


def report(name: str, version: str, yanked: bool = False) -> dict[str, Any]:
    return {"install": [{"metadata": {"name": name, "version": version}, "is_yanked": yanked}]}


def test_what_no_install_asked_for_is_found(audit: ModuleType) -> None:
    reports = [report("Thing", "1.0"), report("thing", "1.1"), report("old_one", "2", True)]
    assert audit.against_reports({"thing": "1.1", "old-one": "2"}, reports) == [
        "old-one 2 was yanked by its authors"
    ]
    assert audit.against_reports({"thing": "1.0", "extra": "3"}, reports) == [
        "extra 3 is installed, but no install asked for it",
        "thing is 1.0, but 1.1 was chosen",
        "old-one was chosen, but it is not installed",
    ]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ('{"dependencies": [{"name": "x", "vulns": []}]}', (False, [])),
        ("<html>not found", (False, [])),
        ('{"dependencies": [{"name": "x", "vulns": [{"id": "CVE-1"}]}]}', (True, ["x: CVE-1"])),
    ],
)
def test_silence_of_a_service_is_no_answer(
    audit: ModuleType, tmp_path: Path, answers: str, expected: tuple[bool, list[str]]
) -> None:
    program = tmp_path / "pip-audit"
    program.write_text(f"#!{sys.executable}\nprint({answers!r})\n")
    program.chmod(0o755)
    assert audit.ask_service(program, {"x": "1+cpu"}) == expected
    assert audit.ask_service(tmp_path / "none", {"x": "1"}) == (False, [])


@pytest.mark.slow
def test_the_whole_program(tmp_path: Path) -> None:
    given = tmp_path / "report.json"
    given.write_text(json.dumps({"install": []}))
    run = subprocess.run([sys.executable, SCRIPT, given], capture_output=True, text=True)
    assert run.returncode == 1
    assert "audit: numpy " in run.stderr
    assert "NO VULNERABILITY SERVICE COULD BE ASKED" in run.stdout
    assert "is not what was installed" not in run.stderr
