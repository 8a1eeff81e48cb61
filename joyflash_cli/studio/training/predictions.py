"""What the generator makes of known clips, for the decoder to learn to draw from.

A generator's latents are softer than encoded video: details it cannot know are averaged. Here true
latents are noised to one of the sampler's levels and the generator finishes the remaining main
steps, with the profile's guidance. Pose and lips stay close to the truth, details are the
generator's own, so the true frames still are the right answer for the decoder.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.codec.tiny import TinyCodec
from joyflash_cli.conditioning.frames import assemble_image_channels
from joyflash_cli.encoders.front_end import FrontEnd
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.psb import noise_levels
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.studio.training.latents import audio_tokens
from joyflash_cli.studio.training.tensors import build_shards
from joyflash_cli.types import Conditioning, to_signed


@dataclass(frozen=True)
class PredictionsConfig:
    """How much is predicted.

    Attributes:
        num_clips: Clips, spread over the store.
        span: Latent frames that the generator sees at once.
        start_reference_share: Share of clips whose reference is their first frame.
        first_steps: Main steps the truth is noised to, drawn evenly; later ones are the
            generator's.
        seed: Of clips, references and noise.
    """

    num_clips: int = 1000
    span: int = 6
    start_reference_share: float = 0.5
    first_steps: tuple[int, ...] = (1, 2)
    seed: int = 0


@torch.no_grad()
def predict_latents(
    transformer: CausalTransformer,
    clean: Tensor,
    conditioning: Conditioning,
    *,
    positions: Tensor,
    profile: SamplerSettings,
    first_step: int,
    generator: torch.Generator,
) -> Tensor:
    """The generator's clean prediction ``(B, T, C, H, W)`` of latents noised to a main step."""
    levels = [noise_levels(profile)[2 * k].sigma for k in range(len(profile.main_steps))]
    audio = conditioning.audio
    assert audio is not None
    silent = conditioning.with_frames(audio=torch.zeros_like(audio))
    estimate = clean
    for sigma in levels[first_step:]:
        noise = torch.randn(clean.shape, generator=generator)
        noisy = (1 - sigma) * estimate + sigma * noise
        timesteps = torch.full(clean.shape[:2], 1000 * sigma)
        with torch.autocast("cpu", torch.bfloat16):
            heard = transformer(noisy, timesteps, conditioning, positions=positions)
            if not profile.needs_audio_free_pass:
                estimate = heard.prediction.float()
                continue
            free = transformer(noisy, timesteps, silent, positions=positions)
        estimate = profile.audio_guidance * (heard.prediction - free.prediction).float()
        estimate = estimate + profile.audio_free_weight * free.prediction.float()
    return estimate


def predict_clip(
    index: int,
    *,
    store: ClipStore,
    codec: TinyCodec,
    front_end: FrontEnd,
    transformer: CausalTransformer,
    profile: SamplerSettings,
    config: PredictionsConfig,
) -> dict[str, Tensor]:
    """Predicted latents of a clip, the index of its reference frame and its own index."""
    rng = np.random.default_rng([config.seed, index])
    clip = to_signed(store.open_eyed(index))
    at_start = rng.random() < config.start_reference_share
    reference_index = 0 if at_start else int(rng.integers(len(clip)))
    reference = clip[reference_index]
    latents = codec.encode(clip[None], reference[None])[0]
    count = (len(latents) - 1) // config.span
    first = 1 + int(rng.integers(len(latents) - count * config.span))
    rows = (first + torch.arange(count * config.span)).unflatten(0, (count, config.span))
    still = codec.reference_latents(reference[None]).expand(count, -1, -1, -1)
    audio = audio_tokens(front_end, store.waveform(index), len(latents))
    predicted = predict_latents(
        transformer,
        latents[rows],
        Conditioning(
            image=assemble_image_channels(still, first, first + config.span, convention="avatar"),
            audio=audio[rows],
        ),
        positions=rows[0],
        profile=profile,
        first_step=int(rng.choice(config.first_steps)),
        generator=torch.Generator().manual_seed(int(rng.integers(2**31))),
    )
    return {
        "latents": predicted.flatten(0, 1).half(),
        "clip": torch.tensor(index),
        "reference": torch.tensor(reference_index),
        "first": torch.tensor(first),
    }


def build_predictions(
    config: PredictionsConfig,
    *,
    clips_dir: Path,
    out_dir: Path,
    codec: TinyCodec,
    front_end: FrontEnd,
    transformer: CausalTransformer,
    profile: SamplerSettings,
    per_shard: int = 50,
    on_shard: Callable[[int, int], None] | None = None,
) -> None:
    """Predict clips that are not predicted yet, in shards; run again to go on."""
    store = ClipStore(clips_dir)
    chosen = np.linspace(0, len(store) - 1, min(config.num_clips, len(store))).astype(int).tolist()
    predict = functools.partial(
        predict_clip,
        store=store,
        codec=codec,
        front_end=front_end,
        transformer=transformer,
        profile=profile,
        config=config,
    )
    build_shards(
        out_dir / "predictions",
        [chosen[i : i + per_shard] for i in range(0, len(chosen), per_shard)],
        lambda shard, group: [predict(index) for index in group],
        on_shard,
    )
