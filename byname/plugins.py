"""A user's own members: a Python file or module that the user names, imported once."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

from byname.errors import UsageError
from byname.stage import members

__all__ = ["load_plugin"]


def load_plugin(name: str) -> list[str]:
    """Import a file or module, whose members register themselves.

    This runs the code in it: it is for the user's own, and no file that byname reads can ask for
    it.

    Parameters
    ----------
    name : str
        A path that ends in ``.py``, or the name of an installed module.

    Returns
    -------
    list of str
        Names of the members that it added.

    Raises
    ------
    UsageError
        Where there is no such file or module, it does not import, or adds no member.

    Examples
    --------
    >>> load_plugin("no_such_file.py")
    Traceback (most recent call last):
    ...
    byname.errors.UsageError: cannot load the plugin 'no_such_file.py': there is no such file...
    """
    asked, before = f"load the plugin '{name}'", set(members())
    try:
        if name.endswith(".py"):
            _run_file(Path(name), asked)
        else:
            importlib.import_module(name)
    except UsageError:
        raise
    except ValueError as error:
        if "is taken by" not in str(error):
            raise UsageError(asked, f"it does not import (ValueError: {error})") from error
        raise UsageError(asked, str(error), "Give each member a name of its own.") from error
    except Exception as error:
        seen = f"it does not import ({type(error).__name__}: {error})"
        raise UsageError(asked, seen, "Run it with python first, and mend it.") from error
    found = sorted(set(members()) - before)
    if not found:
        raise UsageError(
            asked,
            "it adds no member",
            "Write @register over its class; see docs/your-own-method.md.",
        )
    return found


def _run_file(path: Path, asked: str) -> None:
    if not path.is_file():
        raise UsageError(asked, "there is no such file", "Check the path.")
    module_name = f"byname_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
