"""Whether latents stay finite, found out without stopping the device."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.errors import DeviceError


class FiniteCheck:
    """A test of blocks, whose answer from a GPU arrives while the next pass computes there.

    Args:
        latents: ``(B, T, C, H, W)``, blocks of equal length one behind the other.
        blocks: Their indices.
    """

    def __init__(self, latents: Float[Tensor, "B T C H W"], blocks: Sequence[int]) -> None:
        self._blocks = tuple(blocks)
        by_block = latents.unflatten(1, (len(self._blocks), -1)).movedim(1, 0).flatten(1)
        # Not blocking, it lands in page-locked memory; the event says when.
        self._is_finite = by_block.isfinite().all(dim=1).to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if latents.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(latents.device))

    def confirm(self) -> None:
        """Wait for the answer where it is still on its way.

        Raises:
            DeviceError: With the first block that has a number that is not finite.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
        if self._is_finite.all():
            return
        index = self._blocks[self._is_finite.tolist().index(False)]
        raise DeviceError(
            f"Block {index} has latents that are not finite",
            hint="try --dtype float32, or check the weights",
            code="E-DEVICE-NONFINITE",
        )
