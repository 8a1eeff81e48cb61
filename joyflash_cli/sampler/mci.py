"""Motion condition injection (MCI): one noised clean frame in front of the window.

Paper §3.4; decision D6. The last latent frame of the preceding clean block is noised to the level
of the first window block, afresh in every iteration, and stands in front of the window at the
index and with the conditioning of its own latent frame. It attends and is attended like any other
frame; its result is dropped and nothing of it is kept. There is none until a block is clean.
"""

from jaxtyping import Float
from torch import Tensor

from joyflash_cli.sampler.psb import CLEAN, NoiseLevel
from joyflash_cli.sampler.solver import add_noise


def condition_frame(
    clean_block: Float[Tensor, "B T C H W"],
    noise_level: NoiseLevel,
    noise: Float[Tensor, "B 1 C H W"] | None,
) -> tuple[Float[Tensor, "B 1 C H W"], NoiseLevel]:
    """The condition frame made from the preceding clean block, and its noise level.

    Args:
        clean_block: The block in front of the window.
        noise_level: Of the first window block, before its step.
        noise: Fresh noise; ``None`` leaves the frame clean, at timestep 0 (the ablation
            without noise, and a share of the training batches).
    """
    last = clean_block[:, -1:]
    if noise is None:
        return last, CLEAN
    return add_noise(last, noise, noise_level.sigma), noise_level
