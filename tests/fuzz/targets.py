"""Every fuzz target, by name."""

from __future__ import annotations

from tests.fuzz import (
    targets_arrays,
    targets_encoders,
    targets_images,
    targets_runs,
    targets_texts,
)

__all__ = ["TARGETS"]

TARGETS = {
    target.name: target
    for module in (targets_images, targets_texts, targets_arrays, targets_encoders, targets_runs)
    for target in module.TARGETS
}
