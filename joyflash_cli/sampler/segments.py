"""The stream of a model without a cache: segments that attend both ways and overlap as pictures.

    prefix = the reference's first latent
    for every segment of the sound
        denoise it; its first frames are the prefix before every step and at the end
        decode it, match its colours to the reference's
        prefix = what its last frames encode to, as a clip of their own
        hand out its frames, without those under the overlap

Frames come from the sampler itself here, because the next segment needs them.
"""

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.colour import ColourMatch
from joyflash_cli.sampler.finite import FiniteCheck
from joyflash_cli.sampler.noise import NoiseSource
from joyflash_cli.sampler.segment_settings import SegmentSettings
from joyflash_cli.sampler.solver import (
    BRIDGE_END,
    NUM_TRAIN_TIMESTEPS,
    add_noise,
    bridge_weights,
    clean_from_flow,
    euler_step,
    flow_match_table,
    warped_timesteps,
)
from joyflash_cli.types import Conditioning, ConditioningSource, LatentBlock, on_device

if TYPE_CHECKING:
    from joyflash_cli.codec.protocol import Codec
    from joyflash_cli.model.transformer import CausalTransformer


@dataclass
class SegmentStream:
    """One stream, or a batch of them, on its way.

    Attributes:
        transformer: The model.
        settings: How its checkpoint is to be sampled.
        source: Conditioning by latent frame; its ``has_block`` ends the stream.
        noise: All randomness.
        codec: Decodes segments and encodes their ends; ``None`` where only latents are wanted.
        reference: The picture, ``(B, 3, H, W)`` in -1..1: whose colours are kept.
        reference_latents: Of the picture repeated over a segment, ``(B, T, C, h, w)``.
        timesteps: Of the steps.
        tail: Frames that the next prefix is encoded from, ``None`` before the first segment.
        finite: Of the newest segment.
    """

    transformer: "CausalTransformer"
    settings: SegmentSettings
    source: ConditioningSource
    noise: NoiseSource
    codec: "Codec | None"
    reference: Tensor
    reference_latents: Tensor
    timesteps: tuple[float, ...] = ()
    tail: Tensor | None = None
    finite: FiniteCheck | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what does not fit the transformer."""
        settings = self.settings
        frames, channels = self.reference_latents.shape[1:3]
        if channels != self.transformer.config.out_channels or frames != settings.segment_frames:
            raise ConfigError(
                f"The reference has {frames} latents of {channels} channels; segments have "
                f"{settings.segment_frames}, of {self.transformer.config.out_channels}"
            )
        if self.transformer.config.prediction != "flow":
            raise ConfigError("Segments need a transformer that predicts the flow")
        if not self.timesteps:
            self.timesteps = tuple(segment_timesteps(settings).tolist())

    @functools.cached_property
    def match_colours(self) -> ColourMatch:
        """Towards the reference."""
        return ColourMatch(self.reference, self.settings.colour_match)

    @torch.inference_mode()
    def blocks(self) -> Iterator[LatentBlock]:
        """Segments in order, with the frames of them that are shown and the seconds they took.

        Raises:
            DeviceError: If latents stop being finite; on a GPU one segment late.
        """
        index, settings = 0, self.settings
        while True:
            started = time.perf_counter()
            if not self.source.has_block(index):
                break
            latents = self.denoised(index, self.prefix())
            self.check_finite(index, latents)
            frames = self.decoded(latents)
            # A copy: the segment's other frames need not stay.
            self.tail = frames[:, -settings.overlap_video_frames :].clone()
            yield LatentBlock(
                index,
                latents,
                num_steps=len(settings.steps),
                iteration=index + 1,
                wall_s=time.perf_counter() - started,
                frames=truncated_levels(frames[:, settings.first_shown(index) :]),
            )
            index += 1
        if self.finite is not None:
            self.finite.confirm()

    def prefix(self) -> Float[Tensor, "B T C H W"]:
        """The known latents that the next segment begins with."""
        if self.tail is None:
            return self.reference_latents[:, :1]
        assert self.codec is not None
        return self.codec.encode(self.tail, self.reference).to(self.reference_latents)

    def denoised(
        self, index: int, prefix: Float[Tensor, "B T2 C H W"]
    ) -> Float[Tensor, "B T C H W"]:
        """The latents of a segment that begins with ``prefix``."""
        settings, length = self.settings, self.settings.segment_frames
        start = settings.block_start(index)
        conditioning = self.source.frames(start, start + length)
        if settings.solver == "bridge":
            latents = self.reference_latents
        else:
            latents = self.noise.initial(index, length)
        for step, timestep in enumerate(self.timesteps):
            latents = _begun_with(prefix, latents)
            flow = self.flow(latents, timestep, conditioning)
            latents = self._moved(index, step, latents, flow)
        return _begun_with(prefix, latents)

    def flow(
        self, latents: Float[Tensor, "B T C H W"], timestep: float, conditioning: Conditioning
    ) -> Float[Tensor, "B T C H W"]:
        """What the network predicts for a segment, guided where settings say so.

        Without audio and with the negative prompt, then towards the prompt, then towards the audio:
        equal weights need no pass with the prompt alone.

        Raises:
            ConfigError: If there is no negative prompt to guide away from.
        """
        settings = self.settings
        fed = torch.tensor(timestep).to(getattr(torch, settings.timestep_dtype)).float()
        predict = functools.partial(
            self.transformer,
            latents,
            on_device(fed, latents.device).expand(latents.shape[:2]),
            positions=torch.arange(latents.shape[1]),
            keep_keys_values=False,
        )

        def passed(given: Conditioning) -> Tensor:
            return predict(given).prediction.to(latents.dtype)

        full = passed(conditioning)
        if settings.passes_per_step == 1 or conditioning.audio is None:
            return full
        silent = conditioning.with_frames(audio=torch.zeros_like(conditioning.audio))
        if settings.text_guidance is None:
            deaf = passed(silent)
            return deaf + settings.audio_guidance * (full - deaf)
        if conditioning.negative_text is None:
            raise ConfigError("Guidance by text needs a negative prompt")
        nothing = passed(silent.with_frames(text=conditioning.negative_text))
        if settings.passes_per_step == 2:
            return nothing + settings.text_guidance * (full - nothing)
        text = passed(silent)
        return (
            nothing
            + settings.text_guidance * (text - nothing)
            + settings.audio_guidance * (full - text)
        )

    def decoded(self, latents: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B F 3 H W"]:
        """Frames of a segment in -1..1, in the colours of the reference."""
        assert self.codec is not None
        frames, _ = self.codec.decode(latents, self.codec.start_decoding(self.reference))
        return self.match_colours(frames)

    def check_finite(self, index: int, latents: Float[Tensor, "B T C H W"]) -> None:
        """Test a segment, and hear of the one before."""
        if self.finite is not None:
            self.finite.confirm()
        self.finite = FiniteCheck(latents, [index])
        if not latents.is_cuda:  # nothing to wait for
            self.finite.confirm()

    def _moved(self, index: int, step: int, latents: Tensor, flow: Tensor) -> Tensor:
        """The segment after a step."""
        is_last = step + 1 == len(self.timesteps)
        if self.settings.solver == "bridge":
            following = BRIDGE_END if is_last else self.timesteps[step + 1]
            change, spread = bridge_weights(self.timesteps[step], following)
            latents = latents + change * flow
            if is_last:
                return latents
            return latents + spread * self.noise.renoise(index, step, latents.shape[1])
        if self.settings.solver == "euler":
            return euler_step(
                latents, flow, self._sigma(step), 0.0 if is_last else self._sigma(step + 1)
            )
        clean = clean_from_flow(latents, flow, self._sigma(step))
        if is_last:
            return clean
        noise = self.noise.renoise(index, step, latents.shape[1])
        return add_noise(clean, noise, self._sigma(step + 1))

    def _sigma(self, step: int) -> float:
        sigma = self.timesteps[step] / NUM_TRAIN_TIMESTEPS
        if self.settings.sigma_dtype == "float32":
            return sigma
        return float(torch.tensor(sigma).to(getattr(torch, self.settings.sigma_dtype)))


def segment_timesteps(settings: SegmentSettings) -> Float[Tensor, " n"]:
    """Timesteps of the steps, float32, to the last bit those of the references."""
    if settings.solver == "euler":
        return flow_match_table(settings.shift, num_steps=len(settings.steps)).timesteps
    return warped_timesteps(settings.steps, settings.shift)


def truncated_levels(frames: Float[Tensor, "B F 3 H W"]) -> UInt8[Tensor, "B F 3 H W"]:
    """Frames in -1..1 as whole levels 0..255, cut off as the references do."""
    return (((frames.float() + 1) / 2).clamp(0, 1) * 255).to(torch.uint8)


def _begun_with(prefix: Tensor, latents: Tensor) -> Tensor:
    """``latents`` whose first frames are the prefix."""
    return torch.cat((prefix.to(latents), latents[:, prefix.shape[1] :]), dim=1)
