"""The command line called in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from byname import cli

__all__ = ["Result", "Run", "call"]


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


def call(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> Result:
    """``byname`` with these arguments: exit code, standard output, standard error."""
    capfd.readouterr()
    monkeypatch.setattr(sys, "argv", ["byname", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capfd.readouterr()
    return Result(int(stopped.value.code or 0), out, err)
