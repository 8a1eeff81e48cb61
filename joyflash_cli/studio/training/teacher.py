"""The bidirectional teacher: flow matching on encoded clips, one noise level per clip (§3.2).

Conditioning kinds are dropped independently, so that the teacher can be guided. Full clips, plain
loss: this is the score network that ODE pairs and DMD need. ``generator`` trains the quicker
weighted denoiser from which it may start.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.training.latents import LatentClips
from joyflash_cli.studio.training.scores import (
    Segment,
    draw_noise,
    flow_matching_loss,
    given_frames,
    noised,
    predict,
)
from joyflash_cli.studio.training.tensors import to_device
from joyflash_cli.studio.training.trainer import NetworkStage, OptimiserConfig
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
class TeacherConfig(NetworkStage):
    """How the teacher is trained.

    Attributes:
        num_frames: Latent frames of a clip; 21 are 81 video frames.
        start_share: Share of the steps with clips that begin at their reference.
        dropout: Of conditioning kinds.
        timestep_limits: Least and greatest timestep. A model that predicts the clean latent has
            its error divided by the noise level; the least one keeps that bounded.
    """

    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(steps=4000, learning_rate=5e-4, ema_decay=0.998)
    )
    num_frames: int = 21
    start_share: float = 0.5
    dropout: ConditionDropout = field(default_factory=ConditionDropout)
    timestep_limits: tuple[float, float] = (50.0, 1000.0)


def drop_conditioning(
    conditioning: Conditioning,
    dropout: ConditionDropout,
    rng: np.random.Generator,
    *,
    latent_channels: int,
    batch: int,
    streams: Sequence[int],
) -> Conditioning:
    """The conditioning with random samples of each kind at zero.

    Args:
        conditioning: Of some samples of a batch.
        dropout: Shares.
        rng: Source of the choices; the same number of draws whatever kinds are present.
        latent_channels: Leading channels of the image conditioning that are the reference.
        batch: Samples of the whole batch.
        streams: Which of them are given.
    """
    changes = {}
    for kind, share_name in (
        ("text", "text"), ("audio", "audio"), ("face", "face"), ("image", "reference"),
    ):  # fmt: skip
        stays = rng.random(batch) >= getattr(dropout, share_name)
        value = getattr(conditioning, kind)
        if value is None:
            continue
        kept = torch.from_numpy(stays[list(streams)]).to(value).view(-1, *[1] * (value.ndim - 1))
        if kind == "image":
            reference, mask = value[:, :, :latent_channels], value[:, :, latent_channels:]
            changes[kind] = torch.cat([reference * kept, mask], dim=2)
        else:
            changes[kind] = value * kept
    return conditioning.with_frames(**changes)


def draw_clip_segment(
    clips: LatentClips,
    config: TeacherConfig,
    profile: SamplerSettings,
    rng: np.random.Generator,
    streams: Sequence[int],
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
    pool = clips.starts() if from_start else np.arange(len(clips))
    start = 0 if from_start else int(rng.integers(1, length - config.num_frames + 1))
    chosen = torch.from_numpy(rng.choice(pool, config.batch))[list(streams)]
    frames = slice(start, start + config.num_frames)
    return Segment(
        latents=clips.latents[chosen][:, frames].float(),
        conditioning=clips.conditioning(chosen, clips.audio[chosen][:, frames], start=start),
        positions=torch.arange(start, start + config.num_frames),
        given=given_frames(profile, config.num_frames, start),
    )


@dataclass(frozen=True)
class TeacherLoss:
    """The teacher's loss as a function of network, step and samples."""

    config: TeacherConfig
    clips: LatentClips
    profile: SamplerSettings

    def __call__(
        self, network: CausalTransformer, step: int, streams: Sequence[int]
    ) -> torch.Tensor:
        """Flow matching on these samples of the step's batch."""
        config = self.config
        rng = np.random.default_rng([config.seed, step])
        segment = draw_clip_segment(self.clips, config, self.profile, rng, streams)
        conditioning = drop_conditioning(
            segment.conditioning, config.dropout, rng, batch=config.batch, streams=streams,
            latent_channels=network.config.out_channels,
        )  # fmt: skip
        device = next(network.parameters()).device
        segment = to_device(replace(segment, conditioning=conditioning), device)
        sigmas, noise = draw_noise(
            segment, streams, seed=int(rng.integers(2**62)), batch=config.batch,
            shift=self.profile.shift, limits=config.timestep_limits,
        )  # fmt: skip
        flow = predict(network, segment, noised(segment, noise, sigmas), sigmas).flow
        return flow_matching_loss(flow, segment.latents, noise, segment.learnt)
