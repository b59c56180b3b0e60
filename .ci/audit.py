"""What an environment holds, checked without a service: ``python .ci/audit.py REPORT...``.

REPORT are what ``pip install --report FILE`` wrote, in the order of the installs. Checked are files
against the hashes in each RECORD, requirements (``pip check``), that nothing is installed which no
report names, that nothing is yanked, and versions against ``known_bad.toml``. Then pip-audit is
asked, if it is given and a vulnerability service answers; if none does, the output says so.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parent
# They come with Python's own venv, not with byname; byname itself is what is being built.
NOT_AUDITED = {"pip", "setuptools", "byname"}
# A version that the service must find fault with: an answer without it comes from no service.
CANARY = "jinja2==2.4.1"


def known_bad(path: Path = HERE / "known_bad.toml") -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """The date of the list, and its ranges by package."""
    held = tomllib.loads(path.read_text(encoding="utf-8"))
    return str(held["checked"]), held["packages"]


def bad_versions(installed: dict[str, str], listed: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Installed versions that lie in a listed range."""
    return [
        f"{name} {version} is in {bad['versions']}: {', '.join(bad['ids'])}"
        for name, version in sorted(installed.items())
        for bad in listed.get(name, [])
        if SpecifierSet(bad["versions"]).contains(version, prereleases=True)
    ]


def admitted(requirements: Iterable[str], listed: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Requirements whose own lowest version lies in a listed range."""
    found = []
    for text in requirements:
        asked = Requirement(text)
        lowest = {s.version for s in asked.specifier if s.operator in (">=", "==", "~=")}
        for bad in listed.get(canonicalize_name(asked.name), []):
            if not lowest or any(SpecifierSet(bad["versions"]).contains(v) for v in lowest):
                found.append(f"'{text}' admits {bad['versions']}: {', '.join(bad['ids'])}")
    return found


def requirements(path: Path = HERE.parent / "pyproject.toml") -> list[str]:
    """What the project asks for, with all extras."""
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    return [*project["dependencies"], *(t for t in extras if not t.startswith("byname"))]


def changed_files(held: Distribution) -> list[str]:
    """Files of a distribution that are gone, or are not what its RECORD says."""
    wrong, name = [], held.metadata["Name"]
    if held.files is None:
        return [f"{name}: it has no RECORD"]
    for file in held.files:
        if file.hash is None:
            continue  # RECORD itself, and byte code
        place = Path(str(file.locate()))
        if not place.is_file():
            wrong.append(f"{name}: {file} is gone")
            continue
        with place.open("rb") as stream:
            digest = hashlib.file_digest(stream, file.hash.mode).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value.rstrip("="):
            wrong.append(f"{name}: {file} is not what was installed")
    return wrong


def against_reports(installed: dict[str, str], reports: list[dict[str, Any]]) -> list[str]:
    """What no install asked for or the resolver did not choose, and what is yanked."""
    chosen: dict[str, tuple[str, bool]] = {}
    for report in reports:
        for item in report["install"]:
            name = str(canonicalize_name(item["metadata"]["name"]))
            chosen[name] = item["metadata"]["version"], bool(item.get("is_yanked"))
    wrong = []
    for name, version in sorted(installed.items()):
        wanted, yanked = chosen.get(name, (None, False))
        if wanted is None:
            wrong.append(f"{name} {version} is installed, but no install asked for it")
        elif wanted != version:
            wrong.append(f"{name} is {version}, but {wanted} was chosen")
        if yanked:
            wrong.append(f"{name} {version} was yanked by its authors")
    gone = sorted(set(chosen) - set(installed) - NOT_AUDITED)
    return wrong + [f"{name} was chosen, but it is not installed" for name in gone]


def ask_service(
    program: Path, versions: dict[str, str], seconds: float = 120.0
) -> tuple[bool, list[str]]:
    """Whether a vulnerability service answered pip-audit, and what it found."""
    # The canary first: some mirrors answer "not found" for all, which looks like "no fault".
    canary, wanted = [CANARY], [f"{n}=={v.partition('+')[0]}" for n, v in versions.items()]
    found: list[str] = []
    for asked in (canary, wanted):
        with TemporaryDirectory() as folder:
            (Path(folder) / "r.txt").write_text("\n".join(asked), encoding="utf-8")
            command = [
                str(program),
                "-r",
                f"{folder}/r.txt",
                "--no-deps",
                "--disable-pip",
                "-f",
                "json",
            ]
            try:
                run = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
                held = json.loads(run.stdout)["dependencies"]
            except (OSError, subprocess.TimeoutExpired, ValueError, KeyError):
                return False, []
        found = [f"{d['name']}: {hole['id']}" for d in held for hole in d.get("vulns", [])]
        if asked == canary and not found:
            return False, []
    return True, found


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="*", type=Path, metavar="REPORT")
    parser.add_argument("--pip-audit", type=Path, help="that program, for asking a service")
    asked = parser.parse_args()
    held = {
        name: one
        for one in distributions()
        if (name := str(canonicalize_name(one.metadata["Name"]))) not in NOT_AUDITED
    }
    versions = {name: one.version for name, one in held.items()}
    date, listed = known_bad()
    wrong = [line for one in held.values() for line in changed_files(one)]
    files = sum(1 for one in held.values() for file in one.files or [] if file.hash)
    print(f"{files:,} files of {len(held)} distributions were compared with their RECORD")
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    if check.returncode:
        wrong += check.stdout.splitlines() or check.stderr.splitlines()
    if asked.reports:
        reports = [json.loads(path.read_text(encoding="utf-8")) for path in asked.reports]
        wrong += against_reports(versions, reports)
        print(f"what is installed was compared with {len(reports)} reports of pip")
    else:
        print("no report of pip was given: extra and yanked distributions were not looked for")
    wrong += bad_versions(versions, listed) + admitted(requirements(), listed)
    print(f"versions were compared with .ci/known_bad.toml of {date}: {len(listed)} packages")
    answered, found = ask_service(asked.pip_audit, versions) if asked.pip_audit else (False, [])
    wrong += found
    print(
        "a vulnerability service was asked"
        if answered
        else "NO VULNERABILITY SERVICE COULD BE ASKED: holes that the list lacks are not found"
    )
    for line in wrong:
        print(f"audit: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
