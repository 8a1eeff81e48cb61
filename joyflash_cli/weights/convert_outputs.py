"""What a conversion will write, planned from names and shapes alone before any tensor is read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from joyflash_cli.errors import CheckpointError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class OutputTensor:
    """One tensor of the result.

    Attributes:
        name: In our layout.
        shape: In our layout.
        sources: Names in the source that it is made from.
        build: The sources' tensors, in that order, to the result.
    """

    name: str
    shape: Shape
    sources: tuple[str, ...]
    build: Callable[..., Tensor]


def keep(tensor: Tensor) -> Tensor:
    """The tensor as it is."""
    return tensor


def take(name: str, source: str, shape: Shape) -> OutputTensor:
    """A tensor that only changes its name."""
    return OutputTensor(name, shape, (source,), keep)


def merged_adapter(weight: Tensor, down: Tensor, up: Tensor, *, scale: float) -> Tensor:
    """``weight + scale * up @ down``, computed in float32 or better, in the dtype of the weight."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    update = up.to(dtype) @ down.to(dtype)
    return (weight.to(dtype) + scale * update).to(weight.dtype)


def check_outputs(
    outputs: Iterable[OutputTensor],
    expected: Mapping[str, Shape],
    *,
    unexpected: Iterable[str] = (),
    public_name: Callable[[str], str] = str,
) -> None:
    """Refuse a plan that is not exactly what a module needs.

    Args:
        outputs: The plan.
        expected: Names and shapes of the module.
        unexpected: Source names that nothing is made from.
        public_name: Our name to the one in the source, for messages.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` naming the first five differences.
    """
    planned = {output.name: output.shape for output in outputs}
    extra = [*unexpected, *(public_name(name) for name in planned if name not in expected)]
    _refuse("lacks", [public_name(name) for name in expected if name not in planned])
    _refuse("has unexpected", extra)
    for name, shape in expected.items():
        if planned[name] != tuple(shape):
            raise CheckpointError(
                f"{public_name(name)} has the shape {planned[name]}; {tuple(shape)} is needed",
                hint="the checkpoint is of another size than the profile says",
                code="E-CHECKPOINT-LAYOUT",
            )


def _refuse(complaint: str, names: list[str]) -> None:
    if names:
        first = ", ".join(names[:5])
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise CheckpointError(
            f"The checkpoint {complaint} {first}{more}",
            hint="it has another layout than the profile says",
            code="E-CHECKPOINT-LAYOUT",
        )
