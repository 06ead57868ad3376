"""Compiled forms in memory: few, and none for a size of image that does not stay."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Form = TypeVar("Form")

PATIENCE = 5
"""Uses without a compiled form before the first replacement, twice as many before the second."""
CANDIDATES = 64
"""Forms that are not compiled and whose uses are counted."""


class CompiledForms(Generic[Form]):
    """A store of compiled forms that bounds memory and the number of compilations.

    Compiling takes from a tenth of a second to many seconds, and tracing a network leaves memory
    behind in torch. Images whose size changes all the time must not compile all the time. The
    first forms are compiled at their first use. Once the store is full, a new one replaces the
    least recently used only after `PATIENCE` uses times the number of replacements so far plus one:
    n uses make at most about sqrt(2 n / PATIENCE) replacements.

    Args:
        size: number of forms that are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._forms: OrderedDict[Hashable, Form] = OrderedDict()
        self._uses: OrderedDict[Hashable, int] = OrderedDict()
        self._replaced = 0

    def get(self, key: Hashable, compile_form: Callable[[], Form]) -> Form | None:
        """The form of a key, compiled if need be; None where it is not worth compiling yet."""
        if key in self._forms:
            self._forms.move_to_end(key)
            return self._forms[key]
        if len(self._forms) >= self._size:
            if not self._is_due(key):
                return None
            self._forms.popitem(last=False)
            self._replaced += 1
        self._uses.pop(key, None)
        self._forms[key] = compile_form()
        return self._forms[key]

    def clear(self) -> None:
        """Release all forms."""
        self._forms.clear()
        self._uses.clear()

    def _is_due(self, key: Hashable) -> bool:
        uses = self._uses.pop(key, 0) + 1
        self._uses[key] = uses
        if len(self._uses) > CANDIDATES:
            self._uses.popitem(last=False)
        return uses > PATIENCE * (self._replaced + 1)
