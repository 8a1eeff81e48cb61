"""A toy talker and toy clips: every part of the distillation in seconds."""

import dataclasses

import torch

from joyflash_cli.model.config import AudioAttentionConfig, TransformerConfig
from joyflash_cli.model.initialisation import initialise
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.settings import PAPER, TINY, SamplerSettings
from joyflash_cli.sampler.stream import Stream
from joyflash_cli.studio.training.batches import RolloutBatch, rollout_batch
from joyflash_cli.studio.training.latents import LatentClips

SHAPE = (4, 2, 2)
CONFIG = TransformerConfig(
    dim=24, num_layers=2, num_heads=2, ffn_dim=32, freq_dim=16, in_channels=9, out_channels=4,
    audio_attention=AudioAttentionConfig(audio_dim=3, tokens_per_latent=2, projection_dim=12),
)  # fmt: skip
CLEAN_CONFIG = dataclasses.replace(CONFIG, prediction="clean", audio_modulation=True)
NO_RULE = dataclasses.replace(TINY, first_frame_rule="none")
PLAIN = dataclasses.replace(PAPER, psb=False, sub_steps=(), mci=False, mci_noise=False)
"""Main steps only and no condition frame."""


def toy_model(config: TransformerConfig = CONFIG, seed: int = 0) -> CausalTransformer:
    """Random weights everywhere, so that every path matters."""
    generator = torch.Generator().manual_seed(seed)
    model = initialise(CausalTransformer(config), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def toy_clips(num_clips: int = 4, num_frames: int = 21) -> LatentClips:
    """Random clips; every other one starts at its reference."""
    generator = torch.Generator().manual_seed(3)
    return LatentClips(
        latents=torch.randn(num_clips, num_frames, *SHAPE, generator=generator),
        references=torch.randn(num_clips, *SHAPE, generator=generator),
        audio=torch.randn(num_clips, num_frames, 2, 3, generator=generator),
        token_weights=torch.ones(num_clips, 1),
        is_start=torch.arange(num_clips) % 2 == 0,
        clip_weights=torch.ones(num_clips),
    )


def toy_batch(num_blocks: int, batch: int = 1) -> RolloutBatch:
    """Streams with pictures and voices of their own."""
    clips = toy_clips(batch, num_frames=3 * num_blocks + 1)
    return rollout_batch(clips, torch.arange(batch).numpy(), clips.audio, num_blocks)


def toy_stream(
    profile: SamplerSettings, num_blocks: int, *, model: CausalTransformer | None = None, seed=0
) -> Stream:
    """A generator with conditioning for ``num_blocks`` blocks."""
    batch = toy_batch(num_blocks)
    return Stream.start(
        model or toy_model(),
        profile,
        source=batch,
        noise=SeededNoise(seed, SHAPE),
        latent_shape=SHAPE,
        reference_latent=batch.reference_latent,
    )
