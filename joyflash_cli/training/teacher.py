"""The bidirectional teacher: flow matching on encoded clips, one noise level per clip (§3.2).

Conditioning kinds are dropped independently, so that the teacher can be guided. Full clips, plain
loss: this is the score network that ODE pairs and DMD need. ``generator`` trains the quicker
weighted denoiser from which it may start.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.profile import SamplerProfile
from joyflash_cli.training.batches import start_clips
from joyflash_cli.training.generator import output_scale
from joyflash_cli.training.latents import LatentClips
from joyflash_cli.training.losses import flow_matching_loss
from joyflash_cli.training.ode_pairs import given_frames
from joyflash_cli.training.scores import Segment, draw_sigmas, noised, predict
from joyflash_cli.training.trainer import OptimiserConfig, TrainingRun
from joyflash_cli.types import Conditioning


@dataclass(frozen=True)
class ConditionDropout:
    """Share of clips that lose a kind of conditioning; the paper gives no values.

    Attributes:
        text: Text states become zero.
        audio: Audio features become zero.
        face: The face embedding becomes zero and gives no tokens.
        reference: The reference latents become zero; the mask beside them stays.
    """

    text: float = 0.1
    audio: float = 0.1
    face: float = 0.1
    reference: float = 0.0


@dataclass(frozen=True)
class TeacherConfig:
    """How the teacher is trained.

    Attributes:
        optimiser: Steps and rates.
        batch: Clips per step.
        num_frames: Latent frames of a clip; 21 are 81 video frames.
        start_share: Share of the steps with clips that begin at their reference.
        dropout: Of conditioning kinds.
        timestep_limits: Least and greatest timestep. A model that predicts the clean latent has
            its error divided by the noise level; the least one keeps that bounded.
        seed: Of data order and noise.
        bf16: Whether the network runs in bfloat16.
        log_every: Steps between two lines of the log.
    """

    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(steps=4000, learning_rate=5e-4, ema_decay=0.998)
    )
    batch: int = 4
    num_frames: int = 21
    start_share: float = 0.5
    dropout: ConditionDropout = field(default_factory=ConditionDropout)
    timestep_limits: tuple[float, float] = (50.0, 1000.0)
    seed: int = 0
    bf16: bool = True
    log_every: int = 50


def fresh_teacher(sizes: TransformerConfig, clips: LatentClips, *, seed: int) -> CausalTransformer:
    """A teacher to be trained from nothing; a clean prediction gets the latents' energy."""
    teacher = CausalTransformer(sizes).initialise(torch.Generator().manual_seed(seed))
    if sizes.prediction == "clean":
        with torch.no_grad():
            teacher.output_scale.copy_(output_scale(clips, sizes.patch_size[1:]))
    return teacher


def drop_conditioning(
    conditioning: Conditioning,
    dropout: ConditionDropout,
    rng: np.random.Generator,
    *,
    latent_channels: int,
) -> Conditioning:
    """The conditioning with random samples of each kind at zero.

    Args:
        conditioning: Of a batch.
        dropout: Shares.
        rng: Source of the choices; the same number of draws whatever kinds are present.
        latent_channels: Leading channels of the image conditioning that are the reference.
    """
    changes = {}
    for kind in ("text", "audio", "face"):
        value = getattr(conditioning, kind)
        share = getattr(dropout, kind)
        changes[kind] = None if value is None else value * _kept(value, share, rng)
    image = conditioning.image
    if image is not None:
        reference, mask = image[:, :, :latent_channels], image[:, :, latent_channels:]
        kept = _kept(image, dropout.reference, rng)
        changes["image"] = torch.cat([reference * kept, mask], dim=2)
    return conditioning.with_frames(**changes)


def _kept(value: torch.Tensor, share: float, rng: np.random.Generator) -> torch.Tensor:
    """One for samples that stay, zero for the others, ready to multiply."""
    kept = torch.from_numpy(rng.random(len(value)) >= share).to(value)
    return kept.view(-1, *[1] * (value.ndim - 1))


def draw_clip_segment(
    clips: LatentClips, config: TeacherConfig, profile: SamplerProfile, rng: np.random.Generator
) -> Segment:
    """Random clips: from their reference on, or from the middle with a reference from elsewhere.

    Raises:
        ConfigError: If the clips are shorter than the configuration wants.
    """
    length = clips.latents.shape[1]
    if length < config.num_frames:
        raise ConfigError(
            f"num_frames is {config.num_frames}; the clips have {length} latent frames"
        )
    from_start = rng.random() < config.start_share or length == config.num_frames
    pool = start_clips(clips) if from_start else np.arange(len(clips))
    start = 0 if from_start else int(rng.integers(1, length - config.num_frames + 1))
    chosen = torch.from_numpy(rng.choice(pool, config.batch))
    frames = slice(start, start + config.num_frames)
    latents = clips.latents[chosen][:, frames].float()
    reference = clips.references[chosen].float()[:, None].expand(-1, config.num_frames, -1, -1, -1)
    unknown = torch.ones_like(reference[:, :, :1])
    if from_start:
        unknown[:, 0] = 0
    return Segment(
        latents=latents,
        conditioning=Conditioning(
            image=torch.cat([reference, unknown], dim=2),
            audio=clips.audio[chosen][:, frames].float(),
        ),
        positions=torch.arange(start, start + config.num_frames),
        given=given_frames(profile, config.num_frames, start),
    )


def train_teacher(
    config: TeacherConfig,
    *,
    teacher: CausalTransformer,
    clips: LatentClips,
    profile: SamplerProfile,
    out_dir: Path,
    resume: bool = False,
    on_log: Callable[[dict], None] | None = None,
) -> CausalTransformer:
    """Train the teacher, and return its average.

    Args:
        config: How.
        teacher: Fresh, or any denoiser to start from.
        clips: Encoded clips.
        profile: Gives the warp and whether frame 0 is given.
        out_dir: For state and metrics.
        resume: Go on from the saved state.
        on_log: Called with every line of the log.
    """
    run = TrainingRun(out_dir, teacher, config.optimiser, seed=config.seed)
    if resume:
        run.resume()
    while run.step < config.optimiser.steps:
        rng = np.random.default_rng([config.seed, run.step])
        segment = draw_clip_segment(clips, config, profile, rng)
        conditioning = drop_conditioning(
            segment.conditioning,
            config.dropout,
            rng,
            latent_channels=teacher.config.out_channels,
        )
        sigmas = draw_sigmas(
            config.batch, run.generator, shift=profile.shift, limits=config.timestep_limits
        )
        noise = torch.randn(segment.latents.shape, generator=run.generator)
        noisy = noised(segment, noise, sigmas)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            flow = predict(teacher, segment, noisy, sigmas, conditioning=conditioning).flow
        run.update(flow_matching_loss(flow, segment.latents, noise, segment.learnt))
        if run.step % config.log_every == 0 or run.step == config.optimiser.steps:
            line = run.log()
            if on_log is not None:
                on_log(line)
    run.save()
    return run.averaged
