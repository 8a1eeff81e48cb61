"""Validation by eye: held-out clips sampled on the way, as picture sheets beside the truth."""

from collections.abc import Callable
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
from joyflash_cli.sampler.loop import iterate, start_stream
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.passes import StreamSetup
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.studio.training.batches import (
    ClipSource,
    ReferencePlace,
    image_channels,
    map_conditioning,
)
from joyflash_cli.studio.training.codec import to_signed
from joyflash_cli.studio.training.latents import audio_tokens
from joyflash_cli.studio.training.losses import Guidance
from joyflash_cli.studio.training.ode_pairs import given_frames, teacher_states
from joyflash_cli.studio.training.scores import Segment
from joyflash_cli.types import Conditioning


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


@dataclass(frozen=True)
class ValidationClips:
    """Held-out clips that start at their reference.

    Attributes:
        pictures: Reference pictures ``(N, 3, H, W)`` in -1..1.
        references: Conditioning latents ``(N, C, h, w)``.
        latents: True latents ``(N, T, C, h, w)``.
        audio: ``(N, T, A, D)``.
        fixed: Text, CLIP tokens and face embeddings where the model has them.
    """

    pictures: Tensor
    references: Tensor
    latents: Tensor
    audio: Tensor
    fixed: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def rendered_clips(
    store: ClipStore, codec: Codec, front_end: FrontEnd, *, num_clips: int
) -> ValidationClips:
    """The first clips of a rendered held-out store."""
    rows: list[tuple[Tensor, ...]] = []
    for index in range(min(num_clips, len(store))):
        clip = to_signed(store.frames(index))
        picture = clip[:1]
        latents = codec.encode(clip[None], picture)[0].float()
        audio = audio_tokens(front_end, store.waveform(index), len(latents))
        rows.append((picture[0], codec.reference_latents(picture)[0].float(), latents, audio))
    pictures, references, truth, sound = (torch.stack(x) for x in zip(*rows, strict=True))
    return ValidationClips(pictures, references, truth, sound)


def cached_clips(directory: Path, *, num_clips: int) -> ValidationClips:
    """The first held-out clips of an encoded data set.

    Raises:
        DataError: If there is none.
    """
    from safetensors.torch import load_file

    for path in sorted(directory.glob("latents-*.safetensors")):
        shard = load_file(path)
        chosen = shard["is_start"].nonzero().flatten()[:num_clips]
        kinds = ("text", "image_tokens", "face")
        return ValidationClips(
            pictures=shard["picture"][chosen].float() / 127.5 - 1,
            references=shard["reference"][chosen].float(),
            latents=shard["latents"][chosen].float(),
            audio=shard["audio"][chosen].float(),
            fixed={kind: shard[kind][chosen].float() for kind in kinds if kind in shard},
        )
    raise DataError(
        f"{directory} holds no held-out clip to validate with",
        hint="set held_out_every so that a clip is kept, or validation.every = 0",
    )


Sampler = Callable[[CausalTransformer, ValidationClips], Tensor]
"""From network and clips to latents ``(N, T, C, h, w)``."""


@dataclass(frozen=True)
class Validation:
    """Samples clips, writes a sheet and returns figures, as ``Session.validation`` wants it.

    Attributes:
        clips: Held-out clips.
        codec: Latents to frames.
        sample: How the network is sampled.
        columns: Moments shown.
        is_first: Whether this process writes.
    """

    clips: ValidationClips
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
        true = self._decoded(self.clips.latents[:, : latents.shape[1]])
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
        for picture, row in zip(self.clips.pictures, latents, strict=True):
            state = self.codec.start_decoding(picture[None])
            frames, _ = self.codec.decode(row[None].float().cpu(), state)
            levels = (frames[0].float().clamp(-1, 1) + 1) * 127.5
            rows.append(levels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
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


def stream_sampler(
    profile: SamplerSettings, config: ValidationConfig, place: ReferencePlace
) -> Sampler:
    """Samples as the product does: block by block through the rolling window."""

    def sample(network: CausalTransformer, clips: ValidationClips) -> Tensor:
        device = next(network.parameters()).device
        prefix = profile.first_block_frame
        num_blocks = min(
            config.num_blocks, (clips.latents.shape[1] - prefix) // profile.block_frames
        )
        num_frames = profile.block_start(num_blocks)
        batch, channels, height, width = clips.references.shape
        reference = clips.latents[:, 0].to(device)
        setup = StreamSetup.build(
            network,
            profile,
            source=ClipSource(_conditioning(clips, num_frames, place, device), num_blocks),
            noise=SeededNoise(
                config.seed, (channels, height, width), streams=range(batch), device=device
            ),
            reference_latent=reference,
        )
        # Not in inference mode: sharded parameters gathered there could never be trained again.
        state = start_stream(setup, latent_shape=(channels, height, width), batch_size=batch)
        blocks = [x.emitted.latents for x in iterate(setup, state) if x.emitted is not None]
        return torch.cat([*([reference[:, None]] if prefix else []), *blocks], dim=1)

    return sample


def teacher_sampler(
    profile: SamplerSettings, config: ValidationConfig, place: ReferencePlace
) -> Sampler:
    """Samples whole clips bidirectionally along the guided ODE."""

    def sample(network: CausalTransformer, clips: ValidationClips) -> Tensor:
        device = next(network.parameters()).device
        num_frames = min(clips.latents.shape[1], profile.block_start(config.num_blocks))
        batch, channels, height, width = clips.references.shape
        segment = Segment(
            latents=clips.latents[:, :num_frames],
            conditioning=_conditioning(clips, num_frames, place, torch.device("cpu")),
            positions=torch.arange(num_frames),
            given=given_frames(profile, num_frames),
        ).to(device)
        noise = SeededNoise(
            config.seed, (channels, height, width), streams=range(batch), device=device
        )
        return teacher_states(
            network, segment, noise.initial(0, num_frames), profile=profile,
            num_steps=config.teacher_steps, guidance=config.guidance,
        )[:, -1]  # fmt: skip

    return sample


def _conditioning(
    clips: ValidationClips, num_frames: int, place: ReferencePlace, device: torch.device
) -> Conditioning:
    image = image_channels(clips.references, 0, num_frames, place, from_start=True)
    conditioning = Conditioning(image=image, audio=clips.audio[:, :num_frames], **clips.fixed)
    return map_conditioning(conditioning, lambda x: x.to(device))
