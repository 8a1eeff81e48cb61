"""What each latent frame is given: rows of audio by absolute time, channels of the picture.

Time: latent frame 0 is video frame 0, latent frame i >= 1 is video frames 4i-3 .. 4i. A window
depends on the latent's absolute index alone, never on the length of the clip, so a slice of a
stream equals the slice of the whole.

Three rules are in use:

* ``"video-rows"`` (OmniAvatar, LiveTalk, AvatarForcing): one row per video frame; latent 0 hears
  row 0 four times, latent i rows 4i-3 .. 4i.
* ``"own-frames-margin"`` (the embedded model): one row per video frame; latent i hears its own four
  frames and ``margin`` rows on either side, rows 4i-3-margin .. 4i+margin.
* ``"fantasytalking"``: rows at the encoder's own rate, a window around the latent's centre.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from joyflash_cli.conditioning.config import AudioWindowRule, ImageConvention
from joyflash_cli.errors import ConfigError
from joyflash_cli.types import on_device


def row_indices(rule: AudioWindowRule, start: int, stop: int) -> Int[Tensor, "T A"]:
    """Rows of latent frames ``start <= i < stop``; row 0 is at time zero.

    ``"fantasytalking"`` and ``"own-frames-margin"`` reach before time zero.

    Raises:
        ConfigError: If the range is none.
    """
    if not 0 <= start <= stop:
        raise ConfigError(f"latent frames {start} to {stop} are no range")
    ends = torch.tensor([rule.last_row(i) for i in range(start, stop)], dtype=torch.long)
    rows = ends[:, None] + torch.arange(1 - rule.tokens_per_latent, 1)
    return rows.clamp_min(0) if rule.kind == "video-rows" else rows


def audio_windows(
    rows: Float[Tensor, "B R D"],
    rule: AudioWindowRule,
    start: int,
    stop: int,
    *,
    lead_rows: int = 0,
) -> Float[Tensor, "B T A D"]:
    """Audio tokens of latent frames ``start <= i < stop``.

    Args:
        rows: Features; ``rows[:, lead_rows]`` is at time zero.
        rule: The checkpoint's rule.
        start: First latent frame.
        stop: Latent frame after the last.
        lead_rows: Rows of silence in front, encoded together with the sound.

    Returns:
        Tokens. For ``"fantasytalking"``, rows outside the clip are zero, as in the original, which
        also masks them: ``audio_window_mask`` tells which.

    Raises:
        ConfigError: If another rule needs a row outside the clip: encode more silence.
    """
    inside = audio_window_mask(rule, start, stop, num_rows=rows.shape[1], lead_rows=lead_rows)
    if rule.kind != "fantasytalking" and not bool(inside.all()):
        raise ConfigError(
            f"latent frames {start} to {stop} need audio rows outside the {rows.shape[1]} encoded "
            f"ones ({lead_rows} of them before time zero)",
            hint=f"encode {rule.lead_rows} rows of silence in front and "
            f"{rule.num_rows(stop)} rows from time zero",
        )
    indices = row_indices(rule, start, stop) + lead_rows
    chosen = rows[:, on_device(indices.clamp(0, rows.shape[1] - 1), rows.device)]
    return torch.where(on_device(inside, rows.device)[None, :, :, None], chosen, 0.0)


def audio_window_mask(
    rule: AudioWindowRule, start: int, stop: int, *, num_rows: int, lead_rows: int = 0
) -> Bool[Tensor, "T A"]:
    """Which tokens of ``audio_windows`` are rows of the clip rather than zeros.

    Args:
        rule: The checkpoint's rule.
        start: First latent frame.
        stop: Latent frame after the last.
        num_rows: Rows encoded, the lead included.
        lead_rows: Rows before time zero among them.
    """
    indices = row_indices(rule, start, stop) + lead_rows
    return (indices >= 0) & (indices < num_rows)


_MASK_CHANNELS = {"clip": 0, "wan-i2v": 4}


def num_image_channels(latent_channels: int, convention: ImageConvention) -> int:
    """Channels that ``assemble_image_channels`` gives."""
    return latent_channels + _MASK_CHANNELS.get(convention, 1)


def assemble_image_channels(
    reference_latents: Float[Tensor, "B C h w"] | Float[Tensor, "B R C h w"],
    start: int,
    stop: int,
    *,
    convention: ImageConvention,
    known_frames: int = 1,
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
        known_frames: First latent frames that are known, which the mask of ``"avatar"`` tells.

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
        mask = _frame_mask(frames >= known_frames, latents, channels=1)
        return torch.cat([latents, mask], dim=2)
    latents = reference_latents[:, frames.clamp_max(reference_latents.shape[1] - 1)]
    mask = _frame_mask(frames == 0, latents, channels=_MASK_CHANNELS["wan-i2v"])
    return torch.cat([mask, latents], dim=2)


def _frame_mask(values: Tensor, like: Tensor, *, channels: int) -> Tensor:
    """One value per frame, spread over ``(B, T, channels, h, w)`` of these latents."""
    batch, frames, _, height, width = like.shape
    mask = values.to(like.dtype).view(1, frames, 1, 1, 1)
    return mask.expand(batch, frames, channels, height, width)
