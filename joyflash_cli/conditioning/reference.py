"""The reference picture: from pixels to the channels that accompany the noisy latents."""

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.conditioning.config import ImageConvention
from joyflash_cli.errors import ConfigError

_WAN_MASK_CHANNELS = 4


def num_image_channels(latent_channels: int, convention: ImageConvention) -> int:
    """Channels that ``assemble_image_channels`` gives."""
    return latent_channels + (_WAN_MASK_CHANNELS if convention == "wan-i2v" else 1)


def assemble_image_channels(
    reference_latents: Float[Tensor, "B C h w"] | Float[Tensor, "B R C h w"],
    start: int,
    stop: int,
    *,
    convention: ImageConvention,
) -> Float[Tensor, "B T Cimg h w"]:
    """Image channels of latent frames ``start <= i < stop``, counted from the stream's begin.

    The model's input is ``[noisy | these channels]``. Source: paper, image condition; conventions
    of OmniAvatar/LiveTalk/AvatarForcing and of Wan 2.1 image-to-video (decision D9).

    Args:
        reference_latents: ``"avatar"``: the picture's latent, repeated over all frames (or, for
            ``"avatar-first-frame"``, zero after frame 0).
            ``"wan-i2v"``: the R latents of the picture followed by empty frames; beyond them the
            last one is repeated.
        start: First latent frame.
        stop: Latent frame after the last.
        convention: Order and sign of the mask.

    Raises:
        ConfigError: If the latents have the wrong number of axes or the range is none.
    """
    if not 0 <= start <= stop:
        raise ConfigError(f"latent frames {start} to {stop} are no range")
    expected_axes = 5 if convention == "wan-i2v" else 4
    if reference_latents.ndim != expected_axes:
        raise ConfigError(
            f'"{convention}" image channels need reference latents of {expected_axes} axes, '
            f"not of shape {tuple(reference_latents.shape)}",
            hint='"wan-i2v" takes the latents of the zero-padded clip, "avatar" a single latent',
        )
    frames = torch.arange(start, stop, device=reference_latents.device)
    if convention != "wan-i2v":
        latents = reference_latents[:, None].expand(-1, len(frames), -1, -1, -1)
        if convention == "avatar-first-frame":
            latents = latents * (frames == 0).to(latents.dtype)[:, None, None, None]
        mask = _frame_mask(frames != 0, latents, channels=1)
        return torch.cat([latents, mask], dim=2)
    latents = reference_latents[:, frames.clamp_max(reference_latents.shape[1] - 1)]
    mask = _frame_mask(frames == 0, latents, channels=_WAN_MASK_CHANNELS)
    return torch.cat([mask, latents], dim=2)


def _frame_mask(values: Tensor, like: Tensor, *, channels: int) -> Tensor:
    """One value per frame, spread over ``(B, T, channels, h, w)`` of these latents."""
    batch, frames, _, height, width = like.shape
    mask = values.to(like.dtype).view(1, frames, 1, 1, 1)
    return mask.expand(batch, frames, channels, height, width)
