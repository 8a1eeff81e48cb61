"""Validation: held-out clips sampled on the way, seen by eye and heard by their lips.

Picture sheets show them beside the truth. Lips are read in latent space, and say when to stop: the
denoising error of unseen people still falls when a generator has begun to learn its people by heart
and their lips come late. Correlation at lag 0, the lag of the best and the amplitude tell.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from joyflash_cli.codec.protocol import Codec
from joyflash_cli.encoders.front_end import FrontEnd
from joyflash_cli.errors import DataError
from joyflash_cli.media.sheet import tile, write_picture
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.studio.heads.face_state import MOUTH_TRACKS
from joyflash_cli.studio.training.batches import RolloutBatch, rollout_batch
from joyflash_cli.studio.training.latent_reader import LatentReader
from joyflash_cli.studio.training.latents import LatentClips, audio_tokens, latent_clips
from joyflash_cli.studio.training.ode import teacher_states
from joyflash_cli.studio.training.scores import Guidance, start_segment
from joyflash_cli.studio.training.tensors import to_device
from joyflash_cli.types import to_levels, to_signed

MAX_LAG_FRAMES = 6


@dataclass(frozen=True)
class ValidationConfig:
    """What is sampled and shown.

    Attributes:
        every: Steps between two sheets; 0 for none.
        num_clips: Held-out clips, one pair of rows each.
        num_blocks: Longest stretch of a clip.
        columns: Moments shown, evenly spaced.
        teacher_steps: Euler steps of a bidirectional teacher, a multiple of 8.
        guidance: Of a bidirectional teacher.
        seed: Of the noise.
    """

    every: int = 0
    num_clips: int = 3
    num_blocks: int = 4
    columns: int = 8
    teacher_steps: int = 24
    guidance: Guidance = field(default_factory=lambda: Guidance(2.0, 2.0))
    seed: int = 0


@torch.no_grad()
def rendered_clips(
    store: ClipStore, codec: Codec, front_end: FrontEnd, *, num_clips: int
) -> tuple[Tensor, LatentClips]:
    """The first clips of a rendered held-out store, which start at their reference.

    Returns:
        Pictures ``(N, 3, H, W)`` in -1..1, and the clips.
    """
    rows: list[tuple[Tensor, ...]] = []
    for index in range(min(num_clips, len(store))):
        clip = to_signed(store.frames(index))
        latents = codec.encode(clip[None], clip[:1])[0].float()
        audio = audio_tokens(front_end, store.waveform(index), len(latents))
        rows.append((clip[0], latents, codec.reference_latents(clip[:1])[0].float(), audio))
    pictures, latents, references, audio = (torch.stack(x) for x in zip(*rows, strict=True))
    ones = torch.ones(len(rows), 1)
    return pictures, LatentClips(latents, references, audio, ones, ones[:, 0].bool(), ones[:, 0])


def cached_clips(directory: Path, *, num_clips: int) -> tuple[Tensor, LatentClips]:
    """The first held-out clips of an encoded data set, in the same form.

    Raises:
        DataError: If there is none.
    """
    from safetensors.torch import load_file

    for path in sorted(directory.glob("latents-*.safetensors")):
        shard = load_file(path)
        chosen = shard["is_start"].nonzero().flatten()[:num_clips]
        return shard["picture"][chosen].float() / 127.5 - 1, latent_clips(shard).chosen(chosen)
    raise DataError(
        f"{directory} holds no held-out clip to validate with",
        hint="set held_out_every so that a clip is kept, or validation.every = 0",
    )


Sampler = Callable[[CausalTransformer, LatentClips], Tensor]
"""From network and clips to latents ``(N, T, C, h, w)``."""


@dataclass(frozen=True)
class Validation:
    """Samples clips, writes a sheet and returns figures, as ``Session.validation`` wants it."""

    clips: LatentClips
    pictures: Tensor
    codec: Codec
    sample: Sampler
    columns: int = 8
    is_first: bool = True

    @torch.no_grad()
    def __call__(self, network: nn.Module, directory: Path, step: int) -> dict[str, float]:
        """Write ``validation/step-N.png`` and return likeness and liveliness to the truth.

        Returns:
            ``validation_psnr_db``: of the frames against the codec's reconstruction of the truth;
            the free pose counts as error. ``validation_motion``: mean change between frames over
            that of the truth, 1 is as lively.
        """
        was_training = network.training
        network.eval()
        latents = self.sample(network, self.clips)  # type: ignore[arg-type]
        network.train(was_training)
        made = self._decoded(latents)
        true = self._decoded(self.clips.latents[:, : latents.shape[1]].float())
        if self.is_first:
            sheet = comparison_sheet(made, true, columns=self.columns)
            write_picture(directory / "validation" / f"step-{step:07d}.png", sheet)
        error = float(np.square(made.astype(np.float32) - true).mean())
        changes = [
            float(np.abs(np.diff(x.astype(np.float32), axis=1)).mean()) for x in (made, true)
        ]
        return {
            "validation_psnr_db": float(10 * np.log10(255**2 / max(error, 1e-9))),
            "validation_motion": changes[0] / max(changes[1], 1e-9),
        }

    def _decoded(self, latents: Tensor) -> np.ndarray:
        """Frames ``(N, F, H, W, 3)`` uint8."""
        rows = []
        for picture, row in zip(self.pictures, latents, strict=True):
            state = self.codec.start_decoding(picture[None])
            frames, _ = self.codec.decode(row[None].float().cpu(), state)
            rows.append(to_levels(frames[0]))
        return np.stack(rows)


def comparison_sheet(made: np.ndarray, true: np.ndarray, *, columns: int) -> np.ndarray:
    """A picture of two rows per clip: sampled frames, and the true ones below.

    Args:
        made: ``(N, F, H, W, 3)`` uint8.
        true: The same shape.
        columns: Moments shown, evenly spaced.
    """
    moments = np.linspace(0, made.shape[1] - 1, min(columns, made.shape[1])).round().astype(int)
    rows = [
        [clip[moment] for moment in moments]
        for pair in zip(made, true, strict=True)
        for clip in pair
    ]
    return tile(rows)


def stream_sampler(profile: SamplerSettings, config: ValidationConfig) -> Sampler:
    """Samples as the product does: block by block through the rolling window."""

    def sample(network: CausalTransformer, clips: LatentClips) -> Tensor:
        batch = _batch(network, clips, profile, config)
        stream = batch.stream(network, profile, seed=config.seed, streams=range(len(batch)))
        # Not in inference mode: sharded parameters gathered there could never be trained again.
        blocks = [block.latents for block in stream.iterate() if block is not None]
        front = [batch.reference_latent[:, None]] if profile.first_block_frame else []
        return torch.cat([*front, *blocks], dim=1)

    return sample


def teacher_sampler(profile: SamplerSettings, config: ValidationConfig) -> Sampler:
    """Samples whole clips bidirectionally along the guided ODE."""

    def sample(network: CausalTransformer, clips: LatentClips) -> Tensor:
        batch = _batch(network, clips, profile, config)
        num_frames = profile.block_start(batch.num_blocks)
        noise = batch.noise(config.seed, range(len(batch))).initial(0, num_frames)
        return teacher_states(
            network, start_segment(batch, profile, num_frames), noise, profile=profile,
            num_steps=config.teacher_steps, guidance=config.guidance,
        )[:, -1]  # fmt: skip

    return sample


def _batch(
    network: CausalTransformer,
    clips: LatentClips,
    profile: SamplerSettings,
    config: ValidationConfig,
) -> RolloutBatch:
    """All clips as streams on the network's device, as many blocks as they have and are wanted."""
    has_blocks = (clips.latents.shape[1] - profile.first_block_frame) // profile.block_frames
    num_blocks = min(config.num_blocks, has_blocks)
    audio = clips.audio[:, : profile.block_start(num_blocks)]
    batch = rollout_batch(clips, np.arange(len(clips)), audio, num_blocks)
    return to_device(batch, next(network.parameters()).device)


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
    config = ValidationConfig(num_blocks=clips.latents.shape[1] // profile.block_frames)
    with torch.autocast("cpu", torch.bfloat16):
        latents = stream_sampler(profile, config)(model, clips.chosen(chosen))
    patch = model.config.patch_size[1:]
    read = reader.read(latents[:, 1:], clips.references[chosen], patch)
    made = (read * reader.track_std + reader.track_mean).flatten(1, 2)[..., columns].numpy()
    true = truth[chosen][:, 1 : latents.shape[1]].flatten(1, 2).numpy()
    figures: dict[str, float] = {}
    for i, name in enumerate(tracks):
        pairs = list(zip(made[..., i], true[..., i], strict=True))
        figures[f"{name}_r"] = float(np.mean([np.corrcoef(m, t)[0, 1] for m, t in pairs]))
        figures[f"{name}_lag"] = float(np.mean([best_lag(m, t) for m, t in pairs]))
        figures[f"{name}_amplitude"] = float(np.mean([m.std() / t.std() for m, t in pairs]))
    return figures
