"""A mouth reader in latent space, and the loss it gives the generator.

Squared error of latents cares about head motion far more than about lips: visemes explain only a
quarter of a mouth token's variance. A small network that reads visemes and the opening and width of
the lips from the mouth's latent tokens turns "the lips are wrong" into a loss of its own, as sync
experts do for pixels. It is part of training only: generated video is measured by the readers of
``evaluation``, which see pixels and never saw this network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from joyflash_cli.model.embeddings import head_patches
from joyflash_cli.studio.heads.face_state import MOUTH_TRACKS
from joyflash_cli.studio.training.latents import LatentClips
from joyflash_cli.studio.training.loop import train_network
from joyflash_cli.studio.training.session import ALONE, Session
from joyflash_cli.studio.training.trainer import NetworkStage, OptimiserConfig, TrainingRun
from joyflash_cli.types import FRAMES_PER_LATENT


@dataclass(frozen=True)
class LatentReaderConfig:
    """How the reader is built and trained.

    Attributes:
        num_tokens: Tokens it reads: the heaviest of a frame, which are the mouth's.
        token_dim: Width a token is reduced to.
        dim: Width of the hidden layers.
        batch: Latent frames per step.
        noise: Largest noise in units of each number's spread, so that it reads imperfect latents.
        optimiser: Steps and rates.
        seed: Of batches and noise.
    """

    num_tokens: int = 14
    token_dim: int = 48
    dim: int = 256
    batch: int = 256
    noise: float = 0.5
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            steps=4000, learning_rate=1e-3, flat_share=0.3, weight_decay=0.05, ema_decay=0.995
        )
    )
    seed: int = 0


class LatentReader(nn.Module):
    """Mouth tracks of a latent frame's four video frames from its mouth tokens."""

    tokens: Tensor
    track_mean: Tensor
    track_std: Tensor

    def __init__(self, config: LatentReaderConfig, token_size: int) -> None:
        super().__init__()
        count = len(MOUTH_TRACKS)
        self.register_buffer("tokens", torch.zeros(config.num_tokens, dtype=torch.long))
        self.register_buffer("track_mean", torch.zeros(count))
        self.register_buffer("track_std", torch.ones(count))
        self.change = nn.Linear(token_size, config.token_dim)
        self.reference = nn.Linear(token_size, config.token_dim)
        self.trunk = nn.Sequential(
            nn.Linear(2 * config.num_tokens * config.token_dim, config.dim),
            nn.LayerNorm(config.dim),
            nn.SiLU(),
            nn.Linear(config.dim, config.dim),
            nn.SiLU(),
            nn.Linear(config.dim, FRAMES_PER_LATENT * count),
        )

    def forward(self, mouth: Tensor, reference_mouth: Tensor) -> Tensor:
        """Standardised mouth tracks ``(..., 4, M)`` of mouth tokens ``(..., P, N)``.

        Args:
            mouth: Latents of the ``tokens``, in the order of ``head_patches``.
            reference_mouth: The same tokens of the reference's conditioning latents.
        """
        seen = torch.cat([self.change(mouth), self.reference(reference_mouth)], -1)
        return self.trunk(seen.flatten(-2)).unflatten(-1, (FRAMES_PER_LATENT, -1))

    def read(self, latents: Tensor, references: Tensor, patch: tuple[int, int]) -> Tensor:
        """Standardised mouth tracks ``(B, T, 4, M)`` of whole latents ``(B, T, C, h, w)``.

        ``references`` are conditioning latents of the clips' pictures, ``(B, C, h, w)``.
        """
        tokens = head_patches(latents.float(), patch)[:, :, self.tokens]
        still = head_patches(references.float()[:, None], patch)[:, :, self.tokens]
        return self(tokens, still.expand(-1, tokens.shape[1], -1, -1))

    def standardise(self, mouths: Tensor) -> Tensor:
        """Mouth tracks ``(..., M)`` in the units of ``forward``."""
        return (mouths - self.track_mean) / self.track_std


def make_reader(
    config: LatentReaderConfig, clips: LatentClips, patch: tuple[int, int]
) -> LatentReader:
    """A fresh reader with the tokens and statistics of these clips."""
    size = clips.latents.shape[2] * patch[0] * patch[1]
    reader = LatentReader(config, size)
    heaviest = clips.token_weights.mean(0).argsort(descending=True)[: config.num_tokens]
    mouths = clips.known_mouths().flatten(0, -2)
    reader.tokens.copy_(heaviest.sort().values)
    for i, track in enumerate(mouths.unbind(-1)):
        known = track[~track.isnan()]
        if len(known) > 1:  # else nobody knows it, and nothing is learnt of it
            reader.track_mean[i] = known.mean()
            reader.track_std[i] = known.std().clamp(min=1e-3)
    return reader


@torch.no_grad()
def measure_reader(
    reader: LatentReader, clips: LatentClips, patch: tuple[int, int]
) -> dict[str, float]:
    """Correlation of each mouth track read from true latents with the known one."""
    read = reader.read(clips.latents[:, 1:], clips.references, patch).flatten(0, -2)
    truth = clips.known_mouths()[:, 1:].flatten(0, -2)
    found = {}
    for i, name in enumerate(MOUTH_TRACKS):
        known = ~truth[:, i].isnan()
        if known.any():
            pair = read[known, i].numpy(), truth[known, i].numpy()
            found[name] = float(np.corrcoef(*pair)[0, 1])
    return found


def train_latent_reader(
    config: LatentReaderConfig,
    *,
    clips: LatentClips,
    held_out: LatentClips,
    patch: tuple[int, int],
    out_dir: Path,
    session: Session = ALONE,
    log_every: int = 500,
) -> LatentReader:
    """Train on true latents, noised up to ``noise``; the averaged reader."""
    torch.manual_seed(config.seed)
    reader = make_reader(config, clips, patch)
    tokens = head_patches(clips.latents.float(), patch)[:, :, reader.tokens].half()
    references = head_patches(clips.references.float()[:, None], patch)[:, 0, reader.tokens]
    truth = reader.standardise(clips.known_mouths())
    spread = tokens[::5].float().square().mean((0, 1)).sqrt()
    run = TrainingRun(out_dir, reader, config.optimiser, seed=config.seed, session=session)

    def loss(network: LatentReader, step: int, streams: Sequence[int]) -> Tensor:
        rng = np.random.default_rng([config.seed, step])
        clip = torch.from_numpy(rng.integers(0, len(tokens), config.batch))
        latent = torch.from_numpy(rng.integers(0, tokens.shape[1], config.batch))
        mouth = tokens[clip, latent].float()
        level = torch.rand(len(mouth), 1, 1, generator=run.generator) * config.noise
        mouth = mouth + torch.randn(mouth.shape, generator=run.generator) * spread * level
        return known_error(network(mouth, references[clip]), truth[clip, latent]).mean()

    stage = NetworkStage(batch=config.batch, bf16=False, log_every=log_every)
    return train_network(
        run, loss, stage, measure=lambda network: measure_reader(network, held_out, patch)
    )


def spoken_error(read: Tensor, truth: Tensor) -> Tensor:
    """How wrong whole tracks are ``(B, M)``: out of time, too lively or dull, off their mean.

    One minus the correlation, the squared error of the spread's ratio and a quarter of the squared
    error of the mean. Unlike the squared error of each frame, which a voice's uncertainty makes
    smaller the less lips move, it asks for the true spread.
    """
    known = ~truth.isnan()
    count = known.sum(1).clamp(min=1)
    truth = truth.nan_to_num()

    def centred(tracks: Tensor) -> tuple[Tensor, Tensor]:
        mean = (tracks * known).sum(1) / count
        return (tracks - mean[:, None]) * known, mean

    (made, made_mean), (true, true_mean) = centred(read), centred(truth)
    made_spread = (made.square().sum(1) / count + 1e-4).sqrt()
    true_spread = (true.square().sum(1) / count + 1e-4).sqrt()
    correlation = (made * true).sum(1) / count / (made_spread * true_spread)
    error = 1 - correlation + (made_spread / true_spread - 1).square()
    error = error + 0.25 * ((made_mean - true_mean) / true_spread).square()
    return error * (known.sum(1) > FRAMES_PER_LATENT)


def spoken_gradient(
    reader: LatentReader,
    latents: Tensor,
    references: Tensor,
    mouths: Tensor,
    patch: tuple[int, int],
) -> Tensor:
    """Derivative of ``spoken_error``, summed over clips and tracks, by latents ``(B, T, C, h, w)``.

    Args:
        reader: Frozen.
        latents: Of clips.
        references: Conditioning latents of their pictures ``(B, C, h, w)``.
        mouths: True tracks ``(B, T, 4, M)``, NaN where unknown.
        patch: Of a token.
    """
    leaf = latents.detach().float().requires_grad_()
    read = reader.read(leaf, references, patch).flatten(1, 2)
    error = spoken_error(read, reader.standardise(mouths).flatten(1, 2)).sum()
    return torch.autograd.grad(error, leaf)[0]


def known_error(read: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error ``(...)`` over what is known of tracks ``(..., 4, M)``, 0 for nothing."""
    known = ~truth.isnan()
    error = (read - truth.nan_to_num()).square() * known
    return error.sum((-1, -2)) / known.sum((-1, -2)).clamp(min=1)
