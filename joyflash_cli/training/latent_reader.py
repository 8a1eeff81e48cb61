"""A mouth reader in latent space, and the loss it gives the generator.

Squared error of latents cares about head motion far more than about lips: visemes explain only a
quarter of a mouth token's variance. A small network that reads viseme weights from the mouth's
latent tokens turns "the lips are wrong" into a loss of its own, as sync experts do for pixels. It
is part of training only: generated video is measured by the readers of ``evaluation``, which see
pixels and never saw this network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.data.face_state import VISEMES
from joyflash_cli.model.embeddings import head_patches
from joyflash_cli.training.denoising import NetworkTraining
from joyflash_cli.training.latents import LatentClips
from joyflash_cli.training.session import Session, run_loop
from joyflash_cli.training.trainer import OptimiserConfig, TrainingRun

FRAMES_PER_LATENT = 4


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
    """Viseme weights of a latent frame's four video frames from its mouth tokens.

    Args:
        config: Sizes.
        token_size: Numbers of a token.
    """

    tokens: Tensor
    viseme_mean: Tensor
    viseme_std: Tensor

    def __init__(self, config: LatentReaderConfig, token_size: int) -> None:
        super().__init__()
        count = len(VISEMES)
        self.register_buffer("tokens", torch.zeros(config.num_tokens, dtype=torch.long))
        self.register_buffer("viseme_mean", torch.zeros(count))
        self.register_buffer("viseme_std", torch.ones(count))
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
        """Standardised visemes ``(..., 4, 6)`` of mouth tokens ``(..., P, N)``.

        Args:
            mouth: Latents of the ``tokens``, in the order of ``head_patches``.
            reference_mouth: The same tokens of the reference's conditioning latents.
        """
        seen = torch.cat([self.change(mouth), self.reference(reference_mouth)], -1)
        return self.trunk(seen.flatten(-2)).unflatten(-1, (FRAMES_PER_LATENT, -1))

    def standardise(self, visemes: Tensor) -> Tensor:
        """Viseme tracks ``(..., 6)`` in the units of ``forward``."""
        return (visemes - self.viseme_mean) / self.viseme_std


def make_reader(
    config: LatentReaderConfig, clips: LatentClips, patch: tuple[int, int]
) -> LatentReader:
    """A fresh reader with the tokens and statistics of these clips."""
    size = clips.latents.shape[2] * patch[0] * patch[1]
    reader = LatentReader(config, size)
    heaviest = clips.token_weights.mean(0).argsort(descending=True)[: config.num_tokens]
    visemes = clips.known_visemes().flatten(0, -2)
    reader.tokens.copy_(heaviest.sort().values)
    reader.viseme_mean.copy_(visemes.mean(0))
    reader.viseme_std.copy_(visemes.std(0).clamp(min=1e-3))
    return reader


@torch.no_grad()
def measure_reader(
    reader: LatentReader, clips: LatentClips, patch: tuple[int, int]
) -> dict[str, float]:
    """Correlation of each viseme read from true latents with its track."""
    tokens = head_patches(clips.latents.float(), patch)[:, 1:, reader.tokens]
    references = head_patches(clips.references.float()[:, None], patch)[:, :, reader.tokens]
    read = reader(tokens, references.expand(-1, tokens.shape[1], -1, -1)).flatten(0, -2)
    truth = clips.known_visemes()[:, 1:].flatten(0, -2)
    return {
        name: float(np.corrcoef(read[:, i].numpy(), truth[:, i].numpy())[0, 1])
        for i, name in enumerate(VISEMES)
    }


def train_latent_reader(
    config: LatentReaderConfig,
    *,
    clips: LatentClips,
    held_out: LatentClips,
    patch: tuple[int, int],
    out_dir: Path,
    resume: bool = False,
    session: Session | None = None,
    log_every: int = 500,
) -> LatentReader:
    """Train on true latents, noised up to ``noise``; the averaged reader."""
    session = session if session is not None else Session()
    torch.manual_seed(config.seed)
    reader = make_reader(config, clips, patch)
    tokens = head_patches(clips.latents.float(), patch)[:, :, reader.tokens].half()
    references = head_patches(clips.references.float()[:, None], patch)[:, 0, reader.tokens]
    truth = reader.standardise(clips.known_visemes())
    spread = tokens[::5].float().square().mean((0, 1)).sqrt()
    run = TrainingRun(out_dir, reader, config.optimiser, seed=config.seed, session=session)
    if resume:
        run.resume()

    def loss(network: LatentReader, step: int, streams: Sequence[int]) -> Tensor:
        rng = np.random.default_rng([config.seed, step])
        clip = torch.from_numpy(rng.integers(0, len(tokens), config.batch))
        latent = torch.from_numpy(rng.integers(0, tokens.shape[1], config.batch))
        mouth = tokens[clip, latent].float()
        level = torch.rand(len(mouth), 1, 1, generator=run.generator) * config.noise
        mouth = mouth + torch.randn(mouth.shape, generator=run.generator) * spread * level
        return functional.mse_loss(network(mouth, references[clip]), truth[clip, latent])

    training = NetworkTraining(
        run, loss, batch=config.batch, bf16=False,
        measure=lambda network: measure_reader(network, held_out, patch),
    )  # fmt: skip
    run_loop(training, steps=config.optimiser.steps, log_every=log_every, session=session)
    return run.averaged


def lip_loss(
    reader: LatentReader, prediction: Tensor, reference: Tensor, visemes: Tensor
) -> Tensor:
    """Squared error of read visemes, standardised, ``(B, T)``.

    Args:
        reader: Frozen.
        prediction: Predicted clean tokens ``(B, T, P, N)`` of all of a frame's tokens or of a
            subset that holds the reader's, already reduced to the reader's tokens.
        reference: The reference's tokens ``(B, T, P, N)``.
        visemes: True tracks ``(B, T, 4, 6)``.
    """
    error = reader(prediction, reference) - reader.standardise(visemes)
    return error.square().mean((-1, -2))
