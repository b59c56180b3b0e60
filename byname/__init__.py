"""byname labels images by the names of their classes.

>>> import byname
>>> model = byname.Classifier(["cat", "dog"], encoder="mini")  # doctest: +SKIP
>>> rows = model.classify("photos")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byname.classifier import Classifier
    from byname.embeddings import Embeddings
    from byname.encoders import Encoder, load_encoder
    from byname.errors import BynameError
    from byname.promptset import PromptSet
    from byname.recipes import Recipe
    from byname.rows import Row
    from byname.taxonomy import Taxonomy
    from byname.taxonomy_io import read_taxonomy

__version__ = "0.1.0"
__all__ = [
    "BynameError",
    "Classifier",
    "Embeddings",
    "Encoder",
    "PromptSet",
    "Recipe",
    "Row",
    "Taxonomy",
    "load_encoder",
    "read_taxonomy",
]

_HOME = {
    "BynameError": "errors",
    "Classifier": "classifier",
    "Embeddings": "embeddings",
    "Encoder": "encoders",
    "PromptSet": "promptset",
    "Recipe": "recipes",
    "Row": "rows",
    "Taxonomy": "taxonomy",
    "load_encoder": "encoders",
    "read_taxonomy": "taxonomy_io",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that "byname --version" does not wait for ONNX Runtime.
    if name not in _HOME:
        raise AttributeError(f"module 'byname' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"byname.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
