"""Teacher, real score and fake score: bidirectional passes over a clip at one noise level."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.solver import (
    NUM_TRAIN_TIMESTEPS,
    add_noise,
    clean_from_flow,
    flow_from_clean,
)
from joyflash_cli.studio.training.batches import map_conditioning
from joyflash_cli.studio.training.losses import Guidance, guided
from joyflash_cli.types import Conditioning


@dataclass(frozen=True)
class Segment:
    """Consecutive latent frames of a clip with everything a score network needs.

    Attributes:
        latents: ``(B, T, C, H, W)``, clean or generated.
        conditioning: Of exactly these frames.
        positions: Temporal index of each frame, ``(T,)``.
        given: Frames that are known, ``(T,)``: they stay clean and nothing is learnt there.
    """

    latents: Float[Tensor, "B T C H W"]
    conditioning: Conditioning
    positions: Num[Tensor, " T"]
    given: Bool[Tensor, " T"]

    @property
    def learnt(self) -> Bool[Tensor, "B T C H W"]:
        """Where a loss counts: every number of the frames that are not given."""
        return (~self.given)[:, None, None, None].expand(self.latents.shape)

    def to(self, device: torch.device | str) -> "Segment":
        """The segment on a device."""
        return Segment(
            latents=self.latents.to(device),
            conditioning=map_conditioning(self.conditioning, lambda x: x.to(device)),
            positions=self.positions.to(device),
            given=self.given.to(device),
        )


@dataclass(frozen=True)
class Prediction:
    """What a network says about a noised segment, in both forms, ``(B, T, C, H, W)`` each."""

    clean: Tensor
    flow: Tensor


def draw_sigmas(
    num: int, generator: torch.Generator, *, shift: float, limits: tuple[float, float]
) -> Float[Tensor, " num"]:
    """One noise level per sample: a uniform step of 0..999, warped, kept within ``limits``.

    Args:
        num: Samples.
        generator: Source of the steps.
        shift: Warp, as of the sampler (Self-Forcing uses 5 for both).
        limits: Least and greatest timestep, 0..1000; Self-Forcing scores in 20..980.
    """
    steps = torch.randint(NUM_TRAIN_TIMESTEPS, (num,), generator=generator)
    linear = steps.to(torch.float32) / NUM_TRAIN_TIMESTEPS
    timesteps = NUM_TRAIN_TIMESTEPS * shift * linear / (1 + (shift - 1) * linear)
    return timesteps.clamp(*limits) / NUM_TRAIN_TIMESTEPS


def noised(
    segment: Segment, noise: Float[Tensor, "B T C H W"], sigmas: Float[Tensor, " B"]
) -> Float[Tensor, "B T C H W"]:
    """The segment's latents at one level per sample; given frames stay as they are."""
    noisy = add_noise(segment.latents, noise, sigmas[:, None, None, None, None])
    return torch.where(segment.given[:, None, None, None], segment.latents, noisy)


def predict(
    network: CausalTransformer,
    segment: Segment,
    noisy: Float[Tensor, "B T C H W"],
    sigmas: Float[Tensor, " B"],
    *,
    conditioning: Conditioning | None = None,
) -> Prediction:
    """Bidirectional prediction; given frames carry the timestep of all others.

    Args:
        network: Of either prediction form.
        segment: Positions, given frames and conditioning.
        noisy: From ``noised``.
        sigmas: Noise level of each sample, above 0.
        conditioning: Instead of the segment's own.
    """
    timesteps = (NUM_TRAIN_TIMESTEPS * sigmas)[:, None].expand(noisy.shape[:2])
    output = network(
        noisy,
        timesteps,
        segment.conditioning if conditioning is None else conditioning,
        positions=segment.positions,
    ).prediction.to(noisy.dtype)
    sigma = sigmas[:, None, None, None, None]
    if network.config.prediction == "clean":
        return Prediction(clean=output, flow=flow_from_clean(noisy, output, sigma))
    return Prediction(clean=clean_from_flow(noisy, output, sigma), flow=output)


def known_kept(segment: Segment, clean: Tensor) -> Float[Tensor, "B T C H W"]:
    """A clean prediction with the given frames as they are known, so that no score acts there."""
    return torch.where(segment.given[:, None, None, None], segment.latents, clean)


def without(conditioning: Conditioning, kinds: Sequence[str]) -> Conditioning:
    """The conditioning with these kinds at zero, as dropout leaves them in training."""
    dropped = {}
    for kind in kinds:
        value = getattr(conditioning, kind)
        dropped[kind] = None if value is None else torch.zeros_like(value)
    return replace(conditioning, **dropped)


def guided_prediction(
    network: CausalTransformer,
    segment: Segment,
    noisy: Float[Tensor, "B T C H W"],
    sigmas: Float[Tensor, " B"],
    guidance: Guidance,
) -> Prediction:
    """The teacher's prediction with text and audio guidance.

    Picture, CLIP tokens and face stay in all passes. Passes that cannot change the result are not
    run: equal weights need no pass with text alone, weights of 1 no guidance at all.
    """

    def passed(*dropped: str) -> Prediction:
        conditioning = without(segment.conditioning, dropped)
        return predict(network, segment, noisy, sigmas, conditioning=conditioning)

    full = passed()
    has_text = segment.conditioning.text is not None
    weights_differ = has_text and guidance.text != guidance.audio
    if guidance.audio == 1 and not weights_differ:
        return full
    nothing = passed("audio", "text")
    text = passed("audio") if weights_differ else nothing
    if not weights_differ:
        guidance = Guidance(text=guidance.audio, audio=guidance.audio)
    return Prediction(
        clean=guided(nothing.clean, text.clean, full.clean, guidance),
        flow=guided(nothing.flow, text.flow, full.flow, guidance),
    )
