"""Where a decoder may draw: below the nose, and above only what lids need.

Framed pictures have their mouths in the lower half. All above is better moved than drawn: what a
generator says of hair, brows, eyes and nose is less sure than the picture itself.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.codec.warp import Drawing

EDGE = 0.04
"""Height over which drawing sets in, as a share of the picture's."""
LIDS = 0.25
"""How far lids are closed when all is drawn above the line too."""


def draw_below(drawing: Drawing, line: float, lids: Float[Tensor, "BT 4"]) -> Drawing:
    """The drawing with nothing drawn above a line, but for frames whose lids are closing.

    Args:
        drawing: Of pictures of height H.
        line: Where half of what is drawn is left, as a share of the height; 0 leaves all.
        lids: How far the eyelids are closed, 0 open .. 1.
    """
    if not line:
        return drawing
    height = drawing.copied.shape[2]
    rows = (torch.arange(height, device=lids.device, dtype=torch.float32) + 0.5) / height
    below = ((rows - line) / EDGE + 0.5).clamp(0, 1)
    lidded = (lids.float() / LIDS).clamp(max=1)
    drawn = torch.maximum(below[:, None], lidded[:, :, None, None])
    frames = torch.lerp(drawing.moved, drawing.frames, drawn.repeat_interleave(3, 1))
    return replace(drawing, frames=frames, copied=1 - drawn * (1 - drawing.copied))
