"""Training of the tiny generator on encoded clips by denoising, in the sampler's own windows.

Teacher-forced denoising: the bidirectional clip layout teaches the score, the rolling layouts of
``generator_batches`` the causal windows with PSB levels and the condition frame. Distillation (ODE
initialisation, DMD) starts from what this gives.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.embeddings import head_patches
from joyflash_cli.model.initialisation import initialise
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.model.transformer_layer import TransformerLayer
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.training.generator_batches import (
    Batch,
    GeneratorTrainingConfig,
    draw_kind,
    read_batch,
)
from joyflash_cli.studio.training.latent_reader import LatentReader, known_error
from joyflash_cli.studio.training.latents import LatentClips
from joyflash_cli.studio.training.loop import train_network
from joyflash_cli.studio.training.session import ALONE, Session
from joyflash_cli.studio.training.trainer import NetworkStage, TrainingRun
from joyflash_cli.studio.training.validation import measure_lips
from joyflash_cli.types import Conditioning


def output_scale(clips: LatentClips, patch: tuple[int, int]) -> Tensor:
    """Root mean square of every number of a token, ``(patch * C,)``, in the head's order."""
    sample = clips.latents[:: max(1, len(clips) // 200)].float()
    return head_patches(sample, patch).flatten(0, -2).square().mean(0).sqrt()


def fresh_transformer(
    sizes: TransformerConfig, clips: LatentClips, *, seed: int
) -> CausalTransformer:
    """A transformer to be trained from nothing; a clean prediction gets the latents' energy.

    Raises:
        ConfigError: If it predicts other latents than the clips have.
    """
    channels = clips.latents.shape[2]
    if sizes.out_channels != channels:
        raise ConfigError(
            f"out_channels is {sizes.out_channels}; the encoded clips have {channels} channels",
            hint=f"set out_channels = {channels} and in_channels = {2 * channels + 1}",
        )
    model = initialise(CausalTransformer(sizes), torch.Generator().manual_seed(seed))
    if sizes.prediction == "clean":
        with torch.no_grad():
            model.output_scale.copy_(output_scale(clips, sizes.patch_size[1:]))
    return model


@torch.no_grad()
def build_generator(config: GeneratorTrainingConfig, clips: LatentClips) -> CausalTransformer:
    """A fresh transformer that predicts a copy of the reference."""
    model = fresh_transformer(config.transformer, clips, seed=config.seed)
    for layer in model.layers:  # open gates: a small model has no depth to lose
        assert isinstance(layer, TransformerLayer)
        layer.modulation[2] += 1
        layer.modulation[5] += 1
    return model


def noised(batch: Batch, *, context_noise: float, generator: torch.Generator) -> Tensor:
    """The batch's latents at its noise levels, clean context slightly noised, too."""
    layout = batch.layout
    sigma = layout.sigmas[..., None, None, None]
    context = (layout.sigmas == 0) & ~layout.learns & (layout.frames > 0)
    level = torch.rand(sigma.shape, generator=generator) * context_noise
    sigma = torch.where(context[..., None, None, None], level, sigma)
    noise = torch.randn(batch.clean.shape, generator=generator)
    return (1 - sigma) * batch.clean + sigma * noise


def predicted_tokens(
    model: CausalTransformer, batch: Batch, noisy: Tensor, conditioning: Conditioning
) -> Tensor:
    """Clean prediction ``(B, T, P, N)`` of the batch's tokens, under its layout's mask."""
    layout, mask = batch.layout, None
    if layout.mask is not None:
        rows, columns = (size // model.config.patch_size[1] for size in noisy.shape[-2:])
        count = rows * columns if batch.token_subset is None else len(batch.token_subset)
        mask = layout.mask.repeat_interleave(count, 0).repeat_interleave(count, 1)
    output = model(
        noisy,
        layout.timesteps,
        conditioning,
        positions=layout.positions,
        mask=mask,
        as_tokens=True,
        token_subset=batch.token_subset,
    )
    return output.prediction.float()


def token_error(
    prediction: Tensor, target: Tensor, batch: Batch
) -> tuple[Tensor, dict[str, float]]:
    """Weighted squared error of tokens ``(B, T, P, N)`` over sigma, where frames are learnt."""
    learns = batch.layout.learns
    error = (prediction - target).square().mean(-1)
    error = (error * batch.token_weights[:, None]).mean(-1)
    error = error[:, learns] * batch.clip_weights[:, None]
    scale = batch.layout.sigmas[:, learns].clamp(min=0.1)
    return (error / scale).mean(), {"error": float(error.detach().mean())}


def denoising_loss(
    model: CausalTransformer,
    batch: Batch,
    *,
    context_noise: float,
    generator: torch.Generator,
    reader: LatentReader | None = None,
    lip_weight: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    """Weighted squared error of the clean prediction over sigma, plus the lip loss; the parts."""
    patch = model.config.patch_size[1:]
    noisy = noised(batch, context_noise=context_noise, generator=generator)
    target = head_patches(batch.clean, patch)
    if batch.token_subset is not None:
        target = target[:, :, batch.token_subset]
    prediction = predicted_tokens(model, batch, noisy, batch.conditioning)
    loss, figures = token_error(prediction, target, batch)
    if reader is not None and lip_weight:
        learns = batch.layout.learns
        lips = _lip_error(reader, prediction[:, learns], batch, patch)
        # Weighed by sigma, as noise leaves the lips open.
        lips = lips * batch.layout.sigmas[:, learns].clamp(min=0.1)
        loss = loss + lip_weight * lips.mean()
        figures["lips"] = float(lips.detach().mean())
    return loss, figures


def _lip_error(
    reader: LatentReader, prediction: Tensor, batch: Batch, patch: tuple[int, int]
) -> Tensor:
    """Squared error of the mouth tracks read from the learnt frames' clean tokens, ``(B, T)``."""
    image, learns = batch.conditioning.image, batch.layout.learns
    assert image is not None
    assert batch.mouths is not None
    reference = head_patches(image[:, learns, : batch.clean.shape[2]], patch)
    tokens = reader.tokens
    if batch.token_subset is not None:
        tokens = torch.searchsorted(batch.token_subset, tokens)
    read = reader(prediction[:, :, tokens], reference[:, :, reader.tokens])
    return known_error(read, reader.standardise(batch.mouths[:, learns]))


@torch.no_grad()
def measure_denoising(
    model: CausalTransformer, clips: LatentClips, *, num_clips: int = 16
) -> dict[str, float]:
    """Error relative to the latents' energy at a few noise levels, with right and wrong audio."""
    generator = torch.Generator().manual_seed(1)
    chosen = np.nonzero(clips.is_start.numpy())[0][:num_clips]
    clean = clips.latents[chosen][:, 6:12].float()
    noise = torch.randn(clean.shape, generator=generator)
    conditioning = clips.conditioning(chosen, clips.audio[chosen][:, 6:12], start=6)
    audio = conditioning.audio
    assert audio is not None
    patch = model.config.patch_size[1:]
    weights = (clips.token_weights[chosen] > 1.5).float()[:, None, :, None]
    energy = (head_patches(clean, patch).square() * weights).sum()
    figures = {}
    for sigma in (1.0, 0.8333, 0.625):
        for name, heard in (("", audio), ("_wrong", audio.roll(1, 0))):
            with torch.autocast("cpu", torch.bfloat16):
                output = model(
                    (1 - sigma) * clean + sigma * noise,
                    torch.full(clean.shape[:2], 1000 * sigma),
                    conditioning.with_frames(audio=heard),
                    positions=torch.arange(6, 12),
                )
            error = (
                head_patches(output.prediction.float() - clean, patch).square() * weights
            ).sum()
            figures[f"mouth_{sigma}{name}"] = float(error / energy)
    return figures


def measure_held_out_lips(
    model: CausalTransformer,
    held_out: LatentClips,
    reader: LatentReader | None,
    sampler: SamplerSettings,
) -> dict[str, float]:
    """``measure_lips`` of films and of heads apart; nothing without a reader."""
    figures: dict[str, float] = {}
    for name, is_film in (("film", True), ("head", False)):
        some = held_out.chosen((held_out.is_film == is_film).nonzero().flatten())
        if reader is not None and len(some):
            lips = measure_lips(model, some, reader, sampler)
            figures |= {f"{name}_{figure}": value for figure, value in lips.items()}
    return figures


def train_generator(
    config: GeneratorTrainingConfig,
    *,
    clips: LatentClips,
    held_out: LatentClips,
    out_dir: Path,
    start_from: dict[str, Tensor] | None = None,
    reader: LatentReader | None = None,
    session: Session = ALONE,
    log_every: int = 200,
) -> CausalTransformer:
    """Train, and return the averaged transformer.

    Raises:
        TrainingStopped: When the session asked to stop; the state is saved.
    """
    model = build_generator(config, clips)
    if start_from is not None:
        model.load_state_dict(start_from)
    run = TrainingRun(out_dir, model, config.optimiser, seed=config.seed, session=session)

    def loss(
        network: CausalTransformer, step: int, streams: Sequence[int]
    ) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([config.seed, step])
        kind = draw_kind(config, step, rng)
        return denoising_loss(
            network,
            read_batch(clips, kind, config, rng),
            context_noise=config.context_noise,
            generator=run.generator,
            reader=reader,
            lip_weight=config.lip_weight,
        )

    def measure(network: CausalTransformer) -> dict[str, float]:
        figures = measure_denoising(network, held_out)
        return figures | measure_held_out_lips(network, held_out, reader, config.sampler)

    stage = NetworkStage(batch=1, log_every=log_every)
    return train_network(run, loss, stage, measure=measure)
