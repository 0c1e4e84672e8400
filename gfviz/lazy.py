"""scipy.sparse where it is first used: importing it takes more than half of what the lower floors take together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scipy import sparse
else:

    class _Module:
        """A module that is imported when one of its names is asked for first, by any thread.

        >>> _Module("json").dumps([1])
        '[1]'
        """

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            found = getattr(importlib.import_module(self._name), name)
            setattr(self, name, found)  # the next question does not come here
            return found

    sparse = _Module("scipy.sparse")

__all__ = ["sparse"]
