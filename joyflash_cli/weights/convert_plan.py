"""What a conversion will write, planned from names and shapes alone before any tensor is read.

Of quantised sources, 8-bit floats with scales are read where that loses nothing more: the
repackaged umT5 encoders keep their weights as ``float8`` with one scale beside each, and the value
is the product. Integer and block formats are refused with what to give instead.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from joyflash_cli.errors import CheckpointError

Shape = tuple[int, ...]

MARKER = "scaled_fp8"
"""An empty tensor by which such files say that they have scales."""

SCALE_LEAVES = (".scale_weight", ".weight_scale")
ACTIVATION_LEAVES = (".scale_input", ".input_scale")
"""Only for multiplying in 8 bits, which is not done."""

FOREIGN_LEAVES = (
    ".comfy_quant", ".absmax", ".quant_map", ".nested_absmax", ".SCB", ".qweight", ".qzeros",
    ".scales", ".g_idx",
)  # fmt: skip
FOREIGN_PARTS = (".quant_state.",)


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


def meta_shapes(build: Callable[..., nn.Module], *config: Any) -> dict[str, Shape]:
    """Names and shapes of a module, without memory for its weights."""
    with torch.device("meta"):
        module = build(*config)
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


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


def split_scales(shapes: Mapping[str, Shape]) -> tuple[dict[str, Shape], dict[str, str]]:
    """The weights of a source without its scales, and each weight's scale by the weight's name.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` for another kind of quantisation, and for scales
            that belong to nothing or are missing.
    """
    _refuse_foreign(shapes)
    plain: dict[str, Shape] = {}
    scales: dict[str, str] = {}
    for name, shape in shapes.items():
        leaf = next((leaf for leaf in SCALE_LEAVES if name.endswith(leaf)), None)
        if leaf is not None:
            scales[f"{name.removesuffix(leaf)}.weight"] = name
        elif name != MARKER and not name.endswith(ACTIVATION_LEAVES):
            plain[name] = shape
    for weight, scale in scales.items():
        if weight not in plain:
            raise _refusal(f"has the scale {scale} of a weight that it lacks")
        rows = plain[weight][:1] if len(plain[weight]) == 2 else ()
        if shapes[scale] not in ((), (1,), rows, (*rows, 1)):
            raise _refusal(f"has a scale {scale} of the shape {shapes[scale]}")
    if MARKER in shapes and not scales:
        raise _refusal("says that it is scaled float8 and has no scales")
    return plain, scales


def take_scaled(name: str, source: str, shape: Shape, scales: Mapping[str, str]) -> OutputTensor:
    """A tensor that changes its name, multiplied by its scale if it has one."""
    if source not in scales:
        return take(name, source, shape)
    return OutputTensor(name, shape, (source, scales[source]), _times_scale)


def refuse_quantised(shapes: Mapping[str, Shape], what: str) -> None:
    """Refuse a quantised source of a part that is not read so.

    Args:
        shapes: Of the source.
        what: The part, for the message.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT``.
    """
    _refuse_foreign(shapes)
    marks = [n for n in shapes if n == MARKER or n.endswith((*SCALE_LEAVES, *ACTIVATION_LEAVES))]
    if marks:
        raise CheckpointError(
            f"the {what} is scaled float8 ({marks[0]}), which is read of text encoders only",
            hint="give its bf16, fp16 or fp32 file; rendering itself can use --quantize fp8",
            code="E-CHECKPOINT-LAYOUT",
        )


def _refuse_foreign(shapes: Mapping[str, Shape]) -> None:
    for name in shapes:
        if name.endswith(FOREIGN_LEAVES) or any(part in name for part in FOREIGN_PARTS):
            raise _refusal(f"is quantised in a form that is not read ({name})")


def _times_scale(weight: Tensor, scale: Tensor) -> Tensor:
    factor = scale.to(torch.float32)
    if factor.numel() > 1:
        factor = factor.reshape(-1, 1)
    return weight.to(torch.float32) * factor


def _refusal(complaint: str) -> CheckpointError:
    return CheckpointError(
        f"the source {complaint}",
        hint="give the bf16, fp16 or scaled fp8 (umt5_xxl_fp8_e4m3fn_scaled) file instead",
        code="E-CHECKPOINT-LAYOUT",
    )
