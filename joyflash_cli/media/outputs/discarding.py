"""What every writer does when its ``with`` block is left: what was not finished is removed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class DiscardedOnExit(ABC):
    """Base of the writers: leaving the ``with`` block discards what was not kept by then."""

    @abstractmethod
    def discard(self) -> None:
        """Removes every trace; safe to call at any time, and after the end it does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()
