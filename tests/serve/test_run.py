"""Where it listens, what it warns of, and what is refused before any work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from byname.cli import app
from byname.errors import BynameError, UsageError
from byname.serve.run import bind, warning_of
from tests.helpers import make_photos


def test_a_port_that_is_taken_is_an_error_that_says_what_to_do() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UsageError, match="--port") as caught:
            bind("127.0.0.1", port)
        assert str(port) in caught.value.asked


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(UsageError):
        bind("192.0.2.1", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "::1", "localhost"])
def test_this_machine_needs_no_warning(host: str) -> None:
    assert warning_of(host) == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "pc.local"])
def test_others_do(host: str) -> None:
    assert host in warning_of(host)
    assert "not encrypted" in warning_of(host)


def run(*arguments: str) -> BynameError:
    """The error of ``byname serve`` with these arguments."""
    found = CliRunner().invoke(app, ["serve", "-e", "mini", "--port", "0", *arguments])
    assert isinstance(found.exception, BynameError), found.output
    return found.exception


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("starlette", "uvicorn", "python_multipart", "threadpoolctl"):
        pytest.importorskip(package, reason="needs the extra: pip install 'byname[serve]'")


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "cat,dog", "nothing-here"],
        ["-c", "nothing-here.csv"],
        ["-c", "cat,dog", "-r", "nonsense"],
        ["-c", "cat,dog", "-r", "cupl"],
    ],
)
def test_bad_arguments_are_found_before_any_work(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("byname.commands_serve.load_encoder", never)
    assert run(*arguments).do


@pytest.mark.usefixtures("_installed")
def test_more_images_than_may_be_held(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "p", 3)
    assert "--max-images" in run(str(folder), "-c", "cat,dog", "--max-images", "2").do


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from byname.serve import app as serve_app

    found: Callable[[str], object] = lambda name: None if name == "uvicorn" else name  # noqa: E731
    monkeypatch.setattr(serve_app, "find_spec", found)
    with pytest.raises(UsageError, match="byname\\[serve\\]"):
        serve_app.need_serve()


@pytest.mark.usefixtures("_installed")
def test_strangers_cannot_fill_the_terminal_and_connections_have_an_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import uvicorn

    from byname.serve import run as serve_run

    kept: list[uvicorn.Config] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: kept.append(self.config))
    with bind("127.0.0.1", 0) as listening:
        serve_run.serve(object(), listening)
    assert kept[0].limit_concurrency == serve_run.CONNECTIONS
    for name in ("uvicorn.error", "python_multipart"):
        assert logging.getLogger(name).getEffectiveLevel() == logging.ERROR
        assert not logging.getLogger(f"{name}.multipart").isEnabledFor(logging.WARNING)
