"""Teacher, real score and fake score: passes over a clip at one noise level, and their losses.

x_t = (1 - sigma) x_0 + sigma eps and the flow is eps - x_0, as in ``sampler.solver``. All losses
are written in latents and flows, so a model that predicts the clean latent trains by the same
formulas as one that predicts the flow: ``predict`` brings either kind here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from joyflash_cli.codec.protocol import Codec
from joyflash_cli.conditioning.frames import assemble_image_channels
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.solver import (
    NUM_TRAIN_TIMESTEPS,
    add_noise,
    clean_from_flow,
    flow_from_clean,
)
from joyflash_cli.studio.training.batches import RolloutBatch
from joyflash_cli.studio.training.latents import IMAGE_CONVENTIONS
from joyflash_cli.types import Conditioning, finest_dtype


def flow_matching_loss(
    flow: Float[Tensor, "B *rest"],
    clean: Float[Tensor, "B *rest"],
    noise: Float[Tensor, "B *rest"],
    mask: Bool[Tensor, "B *rest"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error of the flow against ``noise - clean``.

    The teacher's loss on data; on generated latents the loss of the critic, the fake score.

    Args:
        flow: What the network says.
        clean: Latents that were noised; no gradient reaches them.
        noise: Noise that was mixed in.
        mask: Where the error counts; everywhere if ``None``.
    """
    error = (flow - (noise - clean.detach())).square()
    return error.mean() if mask is None else masked_mean(error, mask)


def masked_mean(values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Tensor:
    """Mean over the places where ``mask`` is true; 0 where there is none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def dmd_gradient(
    generated: Float[Tensor, "B *rest"],
    fake_clean: Float[Tensor, "B *rest"],
    real_clean: Float[Tensor, "B *rest"],
) -> Float[Tensor, "B *rest"]:
    """Direction in which the generated latents differ from data (paper Eq. 3).

    At one noise level the difference of two scores is proportional to the difference of the two
    clean predictions. Each sample is divided by the mean of ``|generated - real_clean|``, so that
    all noise levels pull alike (DMD; Self-Forcing uses no epsilon, and neither do we).

    Args:
        generated: Latents of the rollout.
        fake_clean: What the fake score makes of their noised version.
        real_clean: What the guided real score makes of the same noised version.
    """
    axes = tuple(range(1, generated.ndim))
    scale = (generated - real_clean).abs().mean(dim=axes, keepdim=True)
    return torch.nan_to_num((fake_clean - real_clean) / scale).detach()


def dmd_loss(
    generated: Float[Tensor, "B *rest"],
    gradient: Float[Tensor, "B *rest"],
    mask: Bool[Tensor, "B *rest"] | None = None,
) -> Float[Tensor, ""]:
    """A loss whose derivative by ``generated`` is ``gradient / numel``, in float64 if there is.

    1/2 mean((x - sg(x - gradient))^2); with a mask the mean and ``numel`` are over its true
    places, and the derivative is zero elsewhere.
    """
    fine = finest_dtype(generated.device)
    wanted = (generated.to(fine) - gradient.to(fine)).detach()
    error = (generated.to(fine) - wanted).square()
    return 0.5 * (error.mean() if mask is None else masked_mean(error, mask))


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance of the teacher and of the real score.

    The numbers are *effective* weights: 1 is the plain conditional prediction, 0 the
    unconditional one. Self-Forcing's ``guidance_scale`` adds to the conditional prediction,
    ``cond + w (cond - uncond)``, so its 3.0 is 4 here; FantasyTalking's 5 / 5 is 5 / 5.

    Attributes:
        text: Weight of the step from nothing to the text.
        audio: Weight of the step from the text alone to text and audio.
    """

    text: float = 5.0
    audio: float = 5.0


def guided(
    nothing: Float[Tensor, "*shape"],
    text: Float[Tensor, "*shape"],
    full: Float[Tensor, "*shape"],
    guidance: Guidance,
) -> Float[Tensor, "*shape"]:
    """``nothing + w_text (text - nothing) + w_audio (full - text)`` (FantasyTalking).

    Flows or clean predictions alike: at one noise level each is linear in the other.
    """
    return nothing + guidance.text * (text - nothing) + guidance.audio * (full - text)


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


def draw_noise(
    segment: Segment, streams: Sequence[int], *, seed: int, batch: int, shift: float,
    limits: tuple[float, float],
) -> tuple[Float[Tensor, " B"], Float[Tensor, "B T C H W"]]:  # fmt: skip
    """Noise level of each sample and noise, the same for a sample on whatever process."""
    levels = torch.Generator().manual_seed(seed)
    sigmas = draw_sigmas(batch, levels, shift=shift, limits=limits)[list(streams)]
    device = segment.latents.device
    num_frames, channels, height, width = segment.latents.shape[1:]
    noise = SeededNoise(seed, (channels, height, width), streams=streams, device=device)
    return sigmas.to(device), noise.initial(0, num_frames)


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
    """The conditioning with these kinds at zero, as dropout leaves them in training.

    Of a teacher that has a negative prompt, that stands for no text.
    """
    dropped = {}
    for kind in kinds:
        value = getattr(conditioning, kind)
        dropped[kind] = None if value is None else torch.zeros_like(value)
    if "text" in kinds and conditioning.negative_text is not None:
        dropped["text"] = conditioning.negative_text
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
    text_weight = guidance.audio if segment.conditioning.text is None else guidance.text
    if guidance.audio == text_weight == 1:
        return full
    nothing = passed("audio", "text")
    text = nothing if text_weight == guidance.audio else passed("audio")
    guidance = Guidance(text_weight, guidance.audio)
    return Prediction(
        clean=guided(nothing.clean, text.clean, full.clean, guidance),
        flow=guided(nothing.flow, text.flow, full.flow, guidance),
    )


def given_frames(profile: SamplerSettings, num_frames: int, start: int = 0) -> Tensor:
    """Which of the latent frames from ``start`` on are known: frame 0, if the profile gives it."""
    is_first = torch.arange(start, start + num_frames) == 0
    return is_first & (profile.first_frame_rule != "none")


def start_segment(batch: RolloutBatch, profile: SamplerSettings, num_frames: int) -> Segment:
    """Clips from their beginning, of which no more is known than the profile gives."""
    device = batch.reference_latent.device
    return Segment(
        latents=batch.reference_latent[:, None].expand(-1, num_frames, -1, -1, -1),
        conditioning=batch.conditioning,
        positions=torch.arange(num_frames, device=device),
        given=given_frames(profile, num_frames).to(device),
    )


def score_segment(
    latents: Tensor,
    batch: RolloutBatch,
    profile: SamplerSettings,
    *,
    max_frames: int,
    codec: Codec | None = None,
) -> tuple[Segment, Tensor]:
    """What of a rollout the scores see, and where its gradient counts.

    Of a long rollout they see the end. A score network whose latent 0 is always a single picture
    (Wan) needs a ``codec`` on the latents' device whose decoder needs no reference picture: the
    slice then begins with the picture encoded anew, and its first block gets no gradient
    (Rolling-Forcing). Without it the slice is taken as it is.

    Returns:
        The segment, and a mask of the shape of its latents.
    """
    if profile.first_frame_rule == "prefix":
        latents = torch.cat([batch.reference_latent[:, None], latents], dim=1)
    total = latents.shape[1]
    start = max(0, total - max_frames)
    conditioning, seen = batch.frames(start, total), latents[:, start:]
    counts = torch.ones_like(seen, dtype=torch.bool)
    if start and codec is not None:
        first, references = _begun_anew(latents[:, : start + 1], codec)
        image = assemble_image_channels(
            references, 0, total - start, convention=IMAGE_CONVENTIONS[batch.place]
        )
        seen = torch.cat([first, seen[:, 1:]], dim=1)
        conditioning = conditioning.with_frames(image=image)
        counts[:, : profile.block_frames] = False
    segment = Segment(
        latents=seen,
        conditioning=conditioning,
        positions=torch.arange(start, total, device=seen.device),
        given=given_frames(profile, total - start, start).to(seen.device),
    )
    return segment, counts & segment.learnt


@torch.no_grad()
def _begun_anew(latents: Tensor, codec: Codec) -> tuple[Tensor, Tensor]:
    """The last picture of latents as the first latent of a clip, and as its reference latents."""
    batch, _, _, height, width = latents.shape
    stride = codec.spatial_stride
    blank = torch.zeros(batch, 3, height * stride, width * stride, device=latents.device)
    frames, _ = codec.decode(latents.float(), codec.start_decoding(blank))
    picture = frames[:, -1].clamp(-1, 1)
    return codec.encode(picture[:, None], picture)[:, :1], codec.reference_latents(picture)
