"""Training of the tiny generator on encoded clips by denoising, in the sampler's own windows.

Teacher-forced denoising: the bidirectional clip layout teaches the score, the rolling layouts of
``layouts`` the causal windows with PSB levels and the condition frame. Distillation (ODE
initialisation, DMD) starts from what this gives.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.model.embeddings import head_patches
from joyflash_cli.model.transformer import CausalTransformer, TransformerLayer
from joyflash_cli.studio.training.generator_batches import (
    Batch,
    GeneratorTrainingConfig,
    read_batch,
)
from joyflash_cli.studio.training.latent_reader import LatentReader, lip_loss
from joyflash_cli.studio.training.latents import LatentClips
from joyflash_cli.studio.training.lip_measure import measure_lips
from joyflash_cli.studio.training.session import Session, run_loop
from joyflash_cli.studio.training.trainer import TrainingRun
from joyflash_cli.types import Conditioning


def output_scale(clips: LatentClips, patch: tuple[int, int]) -> Tensor:
    """Root mean square of every number of a token, ``(patch * C,)``, in the head's order."""
    sample = clips.latents[:: max(1, len(clips) // 200)].float()
    return head_patches(sample, patch).flatten(0, -2).square().mean(0).sqrt()


def build_generator(config: GeneratorTrainingConfig, clips: LatentClips) -> CausalTransformer:
    """A fresh transformer that predicts a copy of the reference."""
    model = CausalTransformer(config.transformer)
    model.initialise(torch.Generator().manual_seed(config.seed))
    with torch.no_grad():
        model.output_scale.copy_(output_scale(clips, config.transformer.patch_size[1:]))
        for layer in model.layers:  # open gates: a small model has no depth to lose
            assert isinstance(layer, TransformerLayer)
            layer.modulation[2] += 1
            layer.modulation[5] += 1
    return model


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
    layout, clean = batch.layout, batch.clean
    sigma = batch.sigmas[:, :, None, None, None]
    context = (layout.sigmas == 0) & ~layout.learns & (layout.frames > 0)
    level = torch.rand(sigma.shape, generator=generator) * context_noise
    sigma = torch.where(context[None, :, None, None, None], level, sigma)
    noise = torch.randn(clean.shape, generator=generator)
    noisy = (1 - sigma) * clean + sigma * noise
    patch = model.config.patch_size[1:]
    target = head_patches(clean, patch)
    if batch.token_subset is not None:
        target = target[:, :, batch.token_subset]
    mask = None
    if layout.mask is not None:
        count = target.shape[2]
        mask = layout.mask.repeat_interleave(count, 0).repeat_interleave(count, 1)
    output = model.forward_tokens(
        noisy,
        batch.timesteps,
        batch.conditioning,
        positions=layout.positions,
        mask=mask,
        token_subset=batch.token_subset,
    )
    prediction = output.prediction.float()
    learns = layout.learns
    error = (prediction - target).square().mean(-1)
    error = (error * batch.token_weights[:, None]).mean(-1)
    error = error[:, learns] * batch.clip_weights[:, None]
    scale = batch.sigmas[:, learns].clamp(min=0.1)
    loss = (error / scale).mean()
    figures = {"error": float(error.detach().mean())}
    if reader is not None and lip_weight:
        lips = _lip_loss(reader, prediction[:, learns], batch, patch) * scale
        loss = loss + lip_weight * lips.mean()
        figures["lips"] = float(lips.detach().mean())
    return loss, figures


def _lip_loss(
    reader: LatentReader, prediction: Tensor, batch: Batch, patch: tuple[int, int]
) -> Tensor:
    """``lip_loss`` of the learnt frames; weighed by sigma, as noise leaves the lips open."""
    image = batch.conditioning.image
    assert image is not None
    assert batch.mouths is not None
    reference = head_patches(image[:, batch.layout.learns, : batch.clean.shape[2]], patch)
    tokens = reader.tokens
    if batch.token_subset is not None:
        tokens = torch.searchsorted(batch.token_subset, tokens)
    return lip_loss(
        reader,
        prediction[:, :, tokens],
        reference[:, :, reader.tokens],
        batch.mouths[:, batch.layout.learns],
    )


@torch.no_grad()
def measure_denoising(
    model: CausalTransformer, clips: LatentClips, *, num_clips: int = 16
) -> dict[str, float]:
    """Error relative to the latents' energy at a few noise levels, with right and wrong audio."""
    generator = torch.Generator().manual_seed(1)
    chosen = np.nonzero(clips.is_start.numpy())[0][:num_clips]
    clean = clips.latents[chosen][:, 6:12].float()
    noise = torch.randn(clean.shape, generator=generator)
    reference = clips.references[chosen].float()[:, None].expand(-1, 6, -1, -1, -1)
    image = torch.cat([reference, torch.ones_like(clean[:, :, :1])], 2)
    audio = clips.audio[chosen][:, 6:12].float()
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
                    Conditioning(image=image, audio=heard),
                    positions=torch.arange(6, 12),
                )
            error = (
                head_patches(output.prediction.float() - clean, patch).square() * weights
            ).sum()
            figures[f"mouth_{sigma}{name}"] = float(error / energy)
    return figures


class GeneratorTraining:
    """The generator and its loss, as ``session.run_loop`` wants them.

    Args:
        model: Trained in place.
        config: How.
        clips: Encoded clips to learn from.
        held_out: Encoded clips that the log measures.
        out_dir: Of state and metrics.
        reader: Mouth reader of the lip loss; ``None`` trains without it.
        session: Saving, stopping, logging.
    """

    def __init__(
        self,
        model: CausalTransformer,
        config: GeneratorTrainingConfig,
        *,
        clips: LatentClips,
        held_out: LatentClips,
        out_dir: Path,
        reader: LatentReader | None,
        session: Session,
    ) -> None:
        self.config = config
        self.clips = clips
        self.held_out = held_out
        self.reader = reader
        self.run = TrainingRun(out_dir, model, config.optimiser, seed=config.seed, session=session)

    @property
    def step(self) -> int:
        """Steps so far."""
        return self.run.step

    @property
    def directory(self) -> Path:
        """Of the run."""
        return self.run.directory

    @property
    def averaged(self) -> CausalTransformer:
        """The transformer with averaged weights."""
        return self.run.averaged

    def save(self) -> None:
        """Write the resumable state."""
        self.run.save()

    def log(self, **figures: float | str) -> dict:
        """Write the mean figures since the last call, and the held-out errors."""
        measured = measure_denoising(self.averaged, self.held_out)
        if self.reader is not None:
            for kind, is_film in (("film", True), ("head", False)):
                clips = self.held_out.chosen((self.held_out.is_film == is_film).nonzero().flatten())
                if len(clips):
                    lips = measure_lips(self.averaged, clips, self.reader, self.config.sampler)
                    measured |= {f"{kind}_{name}": value for name, value in lips.items()}
        return self.run.log(**measured, **figures)

    def take_step(self) -> None:
        """One update on a batch of a random kind."""
        config = self.config
        rng = np.random.default_rng([config.seed, self.step])
        is_early = self.step < config.optimiser.steps / 2
        shares = np.array([k.share_first if is_early else k.share_last for k in config.steps])
        kind = config.steps[int(rng.choice(len(shares), p=shares / shares.sum()))]
        batch = read_batch(self.clips, kind, config, rng)
        with self.run.autocast(bf16=True):
            loss, figures = denoising_loss(
                self.run.module,
                batch,
                context_noise=config.context_noise,
                generator=self.run.generator,
                reader=self.reader,
                lip_weight=config.lip_weight,
            )
        self.run.backward(loss)
        self.run.apply(**figures)


def train_generator(
    config: GeneratorTrainingConfig,
    *,
    clips: LatentClips,
    held_out: LatentClips,
    out_dir: Path,
    resume: bool = False,
    start_from: dict[str, Tensor] | None = None,
    reader: LatentReader | None = None,
    session: Session | None = None,
    log_every: int = 200,
) -> CausalTransformer:
    """Train, and return the averaged transformer."""
    session = session if session is not None else Session()
    model = build_generator(config, clips)
    if start_from is not None:
        model.load_state_dict(start_from)
    training = GeneratorTraining(
        model,
        config,
        clips=clips,
        held_out=held_out,
        out_dir=out_dir,
        reader=reader,
        session=session,
    )
    if resume:
        training.run.resume()
    run_loop(training, steps=config.optimiser.steps, log_every=log_every, session=session)
    return training.averaged
