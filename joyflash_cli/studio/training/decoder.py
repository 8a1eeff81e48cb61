"""Training of the tiny codec's networks on rendered clips.

First encoder and decoder together. Then, with the encoder fixed so that encoded clips stay valid,
the decoder alone: besides clean and noised latents it may be shown what the generator predicts
from half-noised ones, as it must draw crisp frames from what it will be given, not only from the
truth.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.codec.networks import Drawing
from joyflash_cli.codec.tiny import TinyCodec
from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.studio.training.codec import measure_codec
from joyflash_cli.studio.training.decoder_batches import (
    BatchReader,
    DecoderBatch,
    DecoderTrainingConfig,
    read_decoder_batch,
)
from joyflash_cli.studio.training.loop import run_loop
from joyflash_cli.studio.training.mouth_networks import (
    MouthCritic,
    VisemeProbe,
    balanced_adversarial_loss,
    critic_loss,
    mouth_crops,
    viseme_error,
)
from joyflash_cli.studio.training.session import ALONE, Session
from joyflash_cli.studio.training.trainer import OptimiserConfig, TrainingRun
from joyflash_cli.types import FRAMES_PER_LATENT


def encoded_latents(codec: TinyCodec, batch: DecoderBatch) -> Tensor:
    """Latents of the batch's frames with open eyes, ``(B, T, C, h, w)``."""
    count = batch.seen.shape[1]
    reference = batch.reference.repeat_interleave(count, 0)
    return codec.encoder(batch.seen.flatten(0, 1), reference).float().unflatten(0, (-1, count))


def noised_latents(
    latents: Tensor,
    predicted: Tensor | None,
    *,
    noise: float,
    spread: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """What the decoder is given ``(B, T, C, h, w)``: predicted where known, else noised."""
    level = torch.rand(len(latents), 1, 1, 1, 1, generator=generator).square() * noise
    latents = latents + torch.randn(latents.shape, generator=generator) * spread * level
    return latents if predicted is None else torch.where(predicted.isnan(), latents, predicted)


def decoder_loss(
    drawing: Drawing, batch: DecoderBatch, config: DecoderTrainingConfig
) -> tuple[Tensor, dict[str, float]]:
    """Weighted absolute errors of pixels, gradients and motion; and the parts as figures."""
    truth = batch.frames

    def in_time(frames: Tensor) -> Tensor:
        return frames.unflatten(1, (FRAMES_PER_LATENT, 3)).unflatten(0, truth.shape[:2])

    decoded, moved = in_time(drawing.frames), in_time(drawing.moved)
    error = decoded - truth
    pixels = (error.abs() * batch.weight).mean()
    sideways = (error.diff(dim=-1).abs() * batch.weight[..., 1:]).mean()
    upright = (error.diff(dim=-2).abs() * batch.weight[..., 1:, :]).mean()
    changes = error.flatten(1, 2).diff(dim=1).abs()
    # Errors change where a latent ends and stand still inside it: every fourth frame would jump.
    joints = changes.new_ones(changes.shape[1])
    joints[FRAMES_PER_LATENT - 1 :: FRAMES_PER_LATENT] = config.joint_weight
    motion = (changes * joints[:, None, None, None] * batch.weight[:, 0]).mean()
    moved_error = ((moved - truth).abs() * batch.weight).mean()
    coarse_error = ((in_time(drawing.coarse) - truth).abs() * batch.weight).mean()
    # The reference is moved for the truth's sake, not to come closer to what is drawn over it.
    drawn = (decoded - moved.detach()).abs()
    still_open = 1 - batch.lids[..., None, None, None]  # lids have to be drawn
    restrained = (drawn * batch.weight * batch.outside * still_open).mean()
    copied = drawing.copied.unflatten(0, truth.shape[:2])[:, :, :, None]
    # Where no error has weight, copying would be all that pays: that is no place to reward it.
    drawn_share = ((1 - copied) * (batch.weight > 0)).mean()
    loss = (
        pixels
        + config.gradient_weight * (sideways + upright)
        + config.motion_weight * motion
        + config.moved_weight * moved_error
        + config.coarse_weight * coarse_error
        + config.copy_weight * drawn_share
        + config.restraint_weight * restrained
    )
    figures = {
        "pixels": float(pixels.detach()),
        "moved": float(moved_error.detach()),
        "coarse": float(coarse_error.detach()),
        "drawn_share": float(drawn_share.detach()),
        "drawn_outside": float(restrained.detach()),
    }
    return loss, figures


@torch.no_grad()
def latent_spread(codec: TinyCodec, store: ClipStore, config: DecoderTrainingConfig) -> Tensor:
    """Root mean square of each latent channel ``(1, C, 1, 1)``, for the noise."""
    rng = np.random.default_rng(1)
    batches = [read_decoder_batch(store, config, rng) for _ in range(8)]
    values = torch.cat([codec.encoder(b.frames[:, 1], b.reference).float() for b in batches])
    return values.square().mean((0, 2, 3), keepdim=True).sqrt()


class DecoderTraining:
    """The decoder, its critic and their loss, as ``run_loop`` wants them."""

    def __init__(
        self,
        codec: TinyCodec,
        config: DecoderTrainingConfig,
        *,
        store: ClipStore,
        held_out: ClipStore,
        out_dir: Path,
        read_batch: BatchReader,
        session: Session,
    ) -> None:
        torch.manual_seed(config.seed)
        codec.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        codec.encoder.requires_grad_(config.learns_latents)
        for fitted in (codec.encoder.components, codec.decoder.components):
            fitted.requires_grad_(False)  # steps of an optimiser would spoil them at once
        self.config = config
        self.store = store
        self.held_out = held_out
        self.read_batch = read_batch
        rates = OptimiserConfig(
            steps=config.optimiser.steps,
            learning_rate=config.critic.learning_rate,
            schedule="constant",
            betas=(0.5, 0.9),
            weight_decay=0.0,
        )
        critic, probe = MouthCritic(config.critic), VisemeProbe(codec.latent_channels)
        about: dict = {"seed": config.seed, "session": session}
        self.decoder = TrainingRun(out_dir, codec, config.optimiser, **about)
        self.critic = TrainingRun(out_dir / "critic", critic, rates, **about)
        self.probe = TrainingRun(out_dir / "probe", probe, rates, **about)
        self.runs: dict[str, TrainingRun] = {
            "decoder": self.decoder, "critic": self.critic, "probe": self.probe,
        }  # fmt: skip
        self.metrics, self.log = self.decoder.metrics, self.decoder.log
        # Latents that are learnt are kept at a spread of one; those that are given have theirs.
        self.spread = (
            torch.ones(()) if config.learns_latents else latent_spread(codec, store, config)
        )

    @property
    def step(self) -> int:
        """Steps so far."""
        return self.decoder.step

    @property
    def averaged(self) -> TinyCodec:
        """The codec with averaged weights."""
        return self.decoder.averaged

    def state(self) -> dict:
        """Of all networks."""
        return {name: run.state() for name, run in self.runs.items()}

    def load_state(self, state: dict) -> None:
        """Put back what ``state`` gave."""
        for name, run in self.runs.items():
            run.load_state(state[name])

    def take_step(self) -> None:
        """One update of the decoder, and of the critic where there is one."""
        config, codec = self.config, self.decoder.module
        batch = self.read_batch(self.store, config, np.random.default_rng([config.seed, self.step]))
        with self.decoder.autocast(bf16=True):
            encoded = encoded_latents(codec, batch)
            latents = noised_latents(
                encoded, batch.predicted, noise=config.noise, spread=self.spread,
                generator=self.decoder.generator,
            )  # fmt: skip
            drawing, _ = codec.draw(latents, codec.start_decoding(batch.reference), batch.lids)
        loss, figures = decoder_loss(drawing, batch, config)
        if config.learns_latents:
            spread = encoded.square().mean((0, 1, 3, 4))
            read = self.probe.module(encoded, batch.mouths)
            visemes = viseme_error(read, batch.visemes)
            figures["visemes"] = float(visemes.detach())
            loss = loss + config.spread_weight * (spread - 1).square().mean()
            loss = loss + config.viseme_weight * visemes
        if config.critic.share:
            adversarial, figures["critic"] = self._play(drawing, batch, loss)
            loss = loss + adversarial
        self.decoder.backward(loss)
        self.decoder.apply(**figures)
        if config.learns_latents:
            self.probe.apply()

    def _play(
        self, drawing: Drawing, batch: DecoderBatch, reconstruction: Tensor
    ) -> tuple[Tensor, float]:
        """One step of the critic, and what it costs the decoder (nothing while it warms up)."""
        settings, critic = self.config.critic, self.critic
        shape = (len(batch.frames), -1)
        drawn = drawing.frames.unflatten(1, (FRAMES_PER_LATENT, 3)).flatten(0, 1)
        # Of mouths that no error holds to the truth, a critic would ask for teeth anywhere.
        judged = (batch.weight * (1 - batch.outside)).flatten(1).amax(1) > 0
        if not judged.any():
            return torch.zeros(()), 0.0
        mouths = batch.mouths[judged]
        drawn = mouth_crops(drawn.unflatten(0, shape)[judged], mouths, settings.crop_px)
        true = mouth_crops(batch.frames.flatten(1, 2)[judged], mouths, settings.crop_px)
        loss = critic_loss(critic.module, true, drawn)
        critic.backward(loss)
        critic.apply()
        if critic.step <= settings.warmup_steps:
            return torch.zeros(()), float(loss.detach())
        critic.module.requires_grad_(False)
        last = self.decoder.module.warp.to_drawn.weight
        adversarial = balanced_adversarial_loss(
            critic.module, drawn, reconstruction, last, settings.share
        )
        critic.module.requires_grad_(True)
        return adversarial, float(loss.detach())


def train_decoder(
    codec: TinyCodec,
    config: DecoderTrainingConfig,
    *,
    clips_dir: Path,
    held_out_dir: Path,
    out_dir: Path,
    read_batch: BatchReader = read_decoder_batch,
    session: Session = ALONE,
    log_every: int = 200,
) -> TinyCodec:
    """Train a fitted codec in place; the codec with averaged weights."""
    training = DecoderTraining(
        codec,
        config,
        store=ClipStore(clips_dir),
        held_out=ClipStore(held_out_dir),
        out_dir=out_dir,
        read_batch=read_batch,
        session=session,
    )
    run_loop(
        training, training.take_step, steps=config.optimiser.steps, log_every=log_every,
        measure=lambda: measure_codec(training.averaged, training.held_out),
    )  # fmt: skip
    return training.averaged
