"""Connecting to Ray, quietly, and leaving everything as it was."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from byname.errors import RunError, UsageError

__all__ = ["LOCAL", "address_of", "connected", "import_ray"]

LOCAL = "local"
KNOCK = 20.0  # seconds for a cluster to take a connection
STORE = 100 * 2**20  # bytes of Ray's object store, through which next to nothing goes


def import_ray() -> Any:
    """The module, told to be quiet.

    Raises
    ------
    UsageError
        Where it is not installed.
    """
    # Without these it reports home, and warns of what it will do in versions to come.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        do = "pip install 'byname[ray]', or use --engine local."
        raise UsageError("run with Ray", "it is not installed", do) from None
    return ray


def address_of(address: str | None) -> str:
    """The cluster that is asked for; ``"local"``: one of its own.

    Examples
    --------
    >>> address_of("10.0.0.7:6379")
    '10.0.0.7:6379'
    """
    return address or os.environ.get("RAY_ADDRESS") or LOCAL


@contextmanager
def connected(ray: Any, address: str, cpus: int, gpus: float) -> Iterator[None]:
    """A connection for the block; the caller's, if there is one already.

    Parameters
    ----------
    ray : module
    address : str
        As of :func:`address_of`.
    cpus : int
        Of a cluster of its own: what all workers reserve together.
    gpus : float
        What each worker reserves.

    Raises
    ------
    RunError
        Where there is no cluster, it is of another version, or none can be started here.
    """
    if ray.is_initialized():
        yield
        return
    own = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": STORE}
    options = own if address == LOCAL else {}
    try:
        _knock(address)
        with _signals_kept(), _found_again():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        seen = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        do = "Look at the cluster with 'ray status', or leave out its address to use this machine."
        raise RunError(f"use Ray at '{address}'", seen, do) from error
    try:
        have = ray.cluster_resources().get("GPU", 0.0)
        if address == LOCAL and gpus > have:
            seen = f"it sees {have:g} GPUs on this machine, and each worker is to have {gpus:g}"
            raise RunError("run with Ray", seen, "Use --device cpu, or a cluster that has GPUs.")
        with _no_copies_of_logs(ray):
            yield
    except ray.exceptions.RayError as error:
        seen = f"it has ended: {str(error).strip()[:300]}".splitlines()[0]
        do = "Start the same command again: it goes on where it ended."
        raise RunError(f"go on with Ray at '{address}'", seen, do) from error
    finally:
        # On a cluster that was there before, this only says good-bye.
        with _signals_kept():
            ray.shutdown()


@contextmanager
def _no_copies_of_logs(ray: Any) -> Iterator[None]:
    """Ray prints pages to standard output for each worker that dies, whatever it is told.

    There is no public switch for that; without the private one they are printed.
    """
    inside, name = getattr(getattr(ray, "_private", None), "worker", None), "_worker_logs_enabled"
    before = getattr(inside, name, None)
    if before is None:
        yield
        return
    setattr(inside, name, False)
    try:
        yield
    finally:
        setattr(inside, name, before)


def _knock(address: str) -> None:
    """Ray itself tries for many minutes to reach a cluster that is not there."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d{1,5})", address)
    if found is not None:
        with socket.create_connection((found[1], int(found[2])), KNOCK):
            return


@contextmanager
def _found_again() -> Iterator[None]:
    """Have the workers of a cluster that starts now import the byname that runs here."""
    before = os.environ.get("PYTHONPATH")
    here = str(Path(__file__).resolve().parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in place of the one that lets a run end well."""
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
