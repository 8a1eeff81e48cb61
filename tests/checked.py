"""Packages whose functions say the shapes of their tensors; under test they are held to it."""

from typing import get_args

from beartype import beartype
from jaxtyping import AbstractArray

CHECKED_PACKAGES = {
    "beartype.beartype": ("model", "sampler", "codec"),
    "checked.check_shapes": (
        "conditioning",
        "encoders",
        "studio.training",
        "studio.evaluation",
    ),
}
"""By what checks them: every annotation, or those of tensors alone, where tests use fakes."""


def check_shapes(function):
    """The function, held to the shapes of its annotations and to nothing else."""
    hints = function.__annotations__.items()
    function.__annotations__ = {name: hint for name, hint in hints if _says_shape(hint)}
    return beartype(function)


def _says_shape(hint) -> bool:
    is_shape = isinstance(hint, type) and issubclass(hint, AbstractArray)
    return is_shape or any(_says_shape(part) for part in get_args(hint))
