"""Lips of sampled clips against the voice's own, read in latent space: what says when to stop.

The denoising error of unseen people still falls when a generator has begun to learn its people by
heart and their lips come late. Correlation at lag 0, the lag of the best and the amplitude tell.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.model.embeddings import head_patches
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.heads.face_state import MOUTH_TRACKS
from joyflash_cli.studio.training.latent_reader import LatentReader
from joyflash_cli.studio.training.latents import LatentClips
from joyflash_cli.studio.training.validation import (
    ValidationClips,
    ValidationConfig,
    stream_sampler,
)

MAX_LAG_FRAMES = 6


@torch.no_grad()
def read_mouths(
    reader: LatentReader, latents: Tensor, references: Tensor, patch: tuple[int, int]
) -> np.ndarray:
    """Mouth tracks ``(N, 4 (T - 1), M)`` of latents ``(N, T, C, h, w)``, without latent 0."""
    tokens = head_patches(latents.float(), patch)[:, 1:, reader.tokens]
    still = head_patches(references.float()[:, None], patch)[:, :, reader.tokens]
    read = reader(tokens, still.expand(-1, tokens.shape[1], -1, -1))
    return (read * reader.track_std + reader.track_mean).flatten(1, 2).numpy()


def best_lag(made: np.ndarray, true: np.ndarray) -> int:
    """Frames by which the made track ``(F,)`` comes late, where it correlates best."""
    lags = range(-MAX_LAG_FRAMES, MAX_LAG_FRAMES + 1)
    inner = true[MAX_LAG_FRAMES : len(true) - MAX_LAG_FRAMES]
    found = [np.corrcoef(made[MAX_LAG_FRAMES + lag :][: len(inner)], inner)[0, 1] for lag in lags]
    return lags[int(np.argmax(found))]


@torch.no_grad()
def measure_lips(
    model: CausalTransformer,
    clips: LatentClips,
    reader: LatentReader,
    profile: SamplerSettings,
    *,
    tracks: Sequence[str] = ("lip_gap", "lip_width"),
    num_clips: int = 15,
) -> dict[str, float]:
    """Correlation, lag and amplitude of sampled lips with the known ones, mean over clips.

    Args:
        model: Sampled as the product does.
        clips: Of people that training never saw; those that start at their reference are used.
        reader: Of latents; its own ceiling is ``latent_reader.measure_reader``.
        profile: The sampler's.
        tracks: Which of ``MOUTH_TRACKS``; clips of which one is unknown are left out.
        num_clips: At most so many.

    Returns:
        ``NAME_r``, ``NAME_lag`` (frames, positive when late) and ``NAME_amplitude`` (1 is the
        true spread) by track.
    """
    columns = [MOUTH_TRACKS.index(name) for name in tracks]
    truth = clips.known_mouths()[..., columns]
    is_known = ~truth.isnan().flatten(1).any(1) & clips.is_start
    chosen = is_known.nonzero().flatten()
    chosen = chosen[torch.linspace(0, len(chosen) - 1, min(num_clips, len(chosen))).long()]
    references = clips.references[chosen].float()
    shown = ValidationClips(
        pictures=references[:, :3],  # nothing is decoded
        references=references,
        latents=clips.latents[chosen].float(),
        audio=clips.audio[chosen].float(),
    )
    config = ValidationConfig(num_blocks=clips.latents.shape[1] // profile.block_frames)
    with torch.autocast("cpu", torch.bfloat16):
        latents = stream_sampler(profile, config, "every-frame")(model, shown)
    patch = model.config.patch_size[1:]
    made = read_mouths(reader, latents, references, patch)[..., columns]
    true = truth[chosen][:, 1 : latents.shape[1]].flatten(1, 2).numpy()
    figures: dict[str, float] = {}
    for i, name in enumerate(tracks):
        pairs = list(zip(made[..., i], true[..., i], strict=True))
        figures[f"{name}_r"] = float(np.mean([np.corrcoef(m, t)[0, 1] for m, t in pairs]))
        figures[f"{name}_lag"] = float(np.mean([best_lag(m, t) for m, t in pairs]))
        figures[f"{name}_amplitude"] = float(np.mean([m.std() / t.std() for m, t in pairs]))
    return figures
