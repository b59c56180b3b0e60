"""scikit-learn's manners without scikit-learn: parameters, learned attributes, pickling."""

from __future__ import annotations

import copy
import inspect
from typing import Any, ClassVar, Self

from byname.errors import UsageError

__all__ = ["Estimator"]


class Estimator:
    """Parameters are stored untouched; what is learned ends in ``_`` and is forgotten on change.

    Subclasses name in ``_light`` the parameters whose change invalidates nothing, and in
    ``_derived`` private attributes that are learned too.
    """

    _light: ClassVar[frozenset[str]] = frozenset()
    _derived: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters as given, so that ``sklearn.base.clone`` works."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Change parameters; what was learned with others is forgotten at the next use."""
        for name, value in params.items():
            if name not in self._parameter_names():
                raise UsageError(
                    f"set '{name}'",
                    f"{type(self).__name__} has no such parameter",
                    f"It has: {', '.join(self._parameter_names())}.",
                )
            setattr(self, name, value)
        self._refresh()
        return self

    def _remember(self) -> None:
        """Note the parameters with which everything was learned."""
        # A list that the user goes on changing must be seen to differ.
        self._learned_with = {
            name: copy.deepcopy(value) if isinstance(value, list | dict) else value
            for name, value in self._heavy().items()
        }

    def _refresh(self) -> None:
        """Forget what was learned if a parameter has changed since."""
        then = getattr(self, "_learned_with", None)
        if then is None or all(_same(then[name], v) for name, v in self._heavy().items()):
            return
        self._forget()

    def _forget(self, keep: frozenset[str] = frozenset()) -> None:
        """Drop what was learned, but for what is named."""
        learned = [n for n in vars(self) if n.endswith("_") or n in self._derived]
        for name in {*learned, "_learned_with"} - keep:
            vars(self).pop(name, None)

    def _heavy(self) -> dict[str, Any]:
        return {n: v for n, v in self.get_params().items() if n not in self._light}

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        given = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name].default
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=False),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(),
        )


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    return type(a) is type(b) and isinstance(a, plain) and bool(a == b)
