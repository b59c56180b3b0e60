"""The same targets, led by coverage: ``python -m tests.fuzz.atheris_run pth -max_total_time=600``.

Needs ``pip install atheris`` (wheels for Linux; no part of any extra, and not run in CI). What
follows the target's name goes to libFuzzer, which stops at the first finding and writes the input
to a file: give that file after the target's name to run it again. Coverage is that of byname's own
Python code; what Pillow, Arrow and ONNX Runtime do inside is not seen, so it helps most where
byname itself reads the bytes, as in ``pth``, ``tar`` and ``taxonomy``.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The command line."""
    import atheris

    with atheris.instrument_imports(include=["byname"]):
        from tests.fuzz.targets import TARGETS
    from hypothesis import HealthCheck, Phase, given, settings

    from tests.fuzz.harness import check

    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"Give one of: {', '.join(TARGETS)}")
    target = TARGETS[name]

    @settings(
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def once(value: object) -> None:
        check(target, value)

    # Hypothesis makes an input of the target out of the bytes that libFuzzer gives.
    # Small ones are too few for it, so long ones come at once.
    atheris.Setup([*sys.argv, "-len_control=0"], once.hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
