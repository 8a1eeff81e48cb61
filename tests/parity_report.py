"""Collects the differences between recorded and computed tensors."""

import math
from collections.abc import Callable

from torch import Tensor


class Report:
    """Differences of one case.

    Args:
        io: All recorded tensors, inputs and outputs.
        echo: Gets one line per comparison.
    """

    def __init__(self, io: dict[str, Tensor], *, echo: Callable[[str], None] | None = None) -> None:
        self.io = io
        self.max_abs_error = 0.0
        self._echo = echo
        self._seen: set[str] = set()
        self._is_complete = False

    def compare(self, name: str, computed: Tensor) -> None:
        """Compare with the record called ``name``; without such a record nothing happens.

        Raises:
            ValueError: If the shapes differ.
        """
        if name not in self.io:
            return
        recorded = self.io[name]
        if recorded.shape != computed.shape:
            raise ValueError(
                f"{name}: recorded {tuple(recorded.shape)}, computed {tuple(computed.shape)}"
            )
        self._seen.add(name)
        error = (recorded.double() - computed.double()).abs().max().item()
        self._add(name, error)

    def compare_part(self, name: str, computed: Tensor, *, dim: int) -> None:
        """As ``compare``, for a record whose end along ``dim`` was never written."""
        if name in self.io:
            self._seen.add(name)
            recorded = self.io[name].narrow(dim, 0, computed.shape[dim])
            self._add(name, (recorded.double() - computed.double()).abs().max().item())

    def use(self, *names: str) -> list[Tensor]:
        """Recorded inputs."""
        self._seen.update(names)
        return [self.io[name] for name in names]

    def ignore(self, *names: str) -> None:
        """Records that say nothing more, such as the order of draws."""
        self._seen.update(names)

    def add_result(self, name: str, error: float) -> None:
        """The result of a runner that compares by itself."""
        self._is_complete = True
        self._add(name, error)

    def note(self, name: str, figure: float) -> None:
        """A figure that is no difference and was judged already."""
        if self._echo is not None:
            self._echo(f"{name:<36} {figure:.3e}")

    def add_difference(self, name: str, one: Tensor, other: Tensor) -> None:
        """The difference of two computed tensors that must agree."""
        self._add(name, (one.double() - other.double()).abs().max().item())

    def check_complete(self, case: dict) -> None:
        """Every recorded tensor was an input or was compared.

        Raises:
            ValueError: Naming the records nobody looked at.
        """
        left = sorted(set(self.io) - self._seen)
        if left and not self._is_complete:
            raise ValueError(f"{case.get('case')}: nobody compared {', '.join(left[:8])}")

    def _add(self, name: str, error: float) -> None:
        # A difference that is no number must not look like agreement.
        error = math.inf if math.isnan(error) else error
        self.max_abs_error = max(self.max_abs_error, error)
        if self._echo is not None:
            self._echo(f"{name:<36} {error:.3e}")
