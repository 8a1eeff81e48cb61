"""The two kinds of transformer passes of a stream: the joint window pass and the clean pass.

Both only read the state. Gradients flow through them where the caller allows it, so that training
rolls out with the same code.
"""

import functools
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.attention import KeysValues, StaticKeysValues
from joyflash_cli.model.transformer import CausalTransformer, Context
from joyflash_cli.sampler.cache import KeyValueCache
from joyflash_cli.sampler.mci import condition_frame
from joyflash_cli.sampler.noise import NoiseSource
from joyflash_cli.sampler.psb import CLEAN, NoiseLevel, noise_levels
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.solver import clean_from_flow
from joyflash_cli.sampler.urcr import (
    PassKind,
    PassPositions,
    attended_frames,
    pass_positions,
)
from joyflash_cli.sampler.window import WindowBlock, window_latents, window_noise
from joyflash_cli.types import Conditioning, ConditioningSource


@dataclass(frozen=True)
class StreamSetup:
    """What stays the same along a stream.

    Attributes:
        transformer: The model.
        profile: How to sample.
        source: Conditioning by latent frame.
        noise: All randomness.
        levels: Fine level to noise, from the profile.
        reference_latent: ``(B, C, H, W)``; needed by the first-frame rules.
        keep_window_keys: Whether results of window passes hold keys and values that the profile
            does not need. They are as large as the cache; only a look inside wants them.
    """

    transformer: CausalTransformer
    profile: SamplerSettings
    source: ConditioningSource
    noise: NoiseSource
    levels: dict[int, NoiseLevel]
    reference_latent: Tensor | None = None
    keep_window_keys: bool = True

    @classmethod
    def build(
        cls,
        transformer: CausalTransformer,
        profile: SamplerSettings,
        *,
        source: ConditioningSource,
        noise: NoiseSource,
        reference_latent: Tensor | None = None,
    ) -> "StreamSetup":
        """The setup with the profile's own noise levels.

        Raises:
            ConfigError: If the first-frame rule needs a reference latent and there is none.
        """
        if profile.first_frame_rule != "none" and reference_latent is None:
            raise ConfigError(
                f"The first-frame rule {profile.first_frame_rule!r} needs a reference latent"
            )
        return cls(transformer, profile, source, noise, noise_levels(profile), reference_latent)


@dataclass
class StreamState:
    """What moves along a stream.

    Attributes:
        cache: Sink and recent clean frames.
        static: Keys and values of text, CLIP and face, projected once.
        window: Blocks being denoised, oldest first.
        clean_block: The newest clean block, ``None`` until there is one.
        base: Index base of the newest window pass (URCR).
        num_emitted: Clean blocks so far.
        next_block: Index of the next block to enter.
        iteration: Iterations so far.
    """

    cache: KeyValueCache
    static: tuple[StaticKeysValues, ...] | None = None
    window: list[WindowBlock] = field(default_factory=list)
    clean_block: Tensor | None = None
    base: int = 0
    num_emitted: int = 0
    next_block: int = 0
    iteration: int = 0


@dataclass(frozen=True)
class PassResult:
    """What a pass gives for the frames of the window or block, the condition frame left out.

    Attributes:
        clean: Clean latents the model expects, ``(B, T, C, H, W)`` float32.
        prediction: What the head gave, flow or clean, same shape.
        keys_values: Per layer, keys before rotation and values, ``(B, T * P, N, K)``; empty
            where the setup does not keep them.
        positions: The indices that were used.
    """

    clean: Tensor
    prediction: Tensor
    keys_values: tuple[KeysValues, ...]
    positions: PassPositions


def window_pass(setup: StreamSetup, state: StreamState) -> PassResult:
    """One joint pass over the window, with the condition frame where the profile has one."""
    profile = setup.profile
    window = state.window
    start = profile.block_start(window[0].index)
    latents = with_first_frame(setup, start, window_latents(window))
    noise_of_frames = window_noise(window, setup.levels, profile.block_frames)
    num_condition = 0
    if profile.mci and state.clean_block is not None:
        first = window[0]
        noise = setup.noise.condition(first.index, first.level) if profile.mci_noise else None
        front = condition_frame(state.clean_block, setup.levels[first.level], noise)
        latents = torch.cat((front.latents, latents), dim=1)
        noise_of_frames = [front.noise_level, *noise_of_frames]
        num_condition = 1
    return run_pass(
        setup,
        state,
        latents,
        noise_of_frames,
        kind="window",
        start=start,
        num_condition=num_condition,
    )


def clean_pass(
    setup: StreamSetup, state: StreamState, latents: Float[Tensor, "B T C H W"], start: int
) -> tuple[KeysValues, ...]:
    """Keys and values of finished latents that begin at latent frame ``start`` (K1, D3).

    Timestep 0, no added noise, no condition frame.
    """
    return run_pass(
        setup,
        state,
        latents,
        [CLEAN] * latents.shape[1],
        kind="clean",
        start=start,
        num_condition=0,
    ).keys_values


def run_pass(
    setup: StreamSetup,
    state: StreamState,
    latents: Float[Tensor, "B T C H W"],
    noise_of_frames: list[NoiseLevel],
    *,
    kind: PassKind,
    start: int,
    num_condition: int,
) -> PassResult:
    """One pass over ``latents`` with the newest frames of the cache in front.

    The latents begin at latent frame ``start - num_condition``.
    """
    cache = state.cache
    num_sink, num_context = attended_frames(
        setup.profile,
        kind,
        num_own=latents.shape[1] - num_condition,
        num_sink=len(cache.sink),
        num_context=len(cache.context),
    )
    stop = start + latents.shape[1] - num_condition
    positions = pass_positions(
        setup.profile,
        kind,
        sink=cache.sink[len(cache.sink) - num_sink :],
        context=cache.context[len(cache.context) - num_context :],
        own=range(start - num_condition, stop),
        start=start,
        base=state.base,
    )
    context = None
    if num_sink + num_context:
        context = Context(
            cache.read(num_sink=num_sink, num_context=num_context),
            torch.tensor(positions.context, device=latents.device),
        )
    conditioning = setup.source.frames(start - num_condition, stop)
    forward = functools.partial(
        setup.transformer,
        latents,
        _per_frame(noise_of_frames, "timestep", latents),
        positions=torch.tensor(positions.own, device=latents.device),
        context=context,
        static=static_keys_values(setup, state, conditioning),
    )
    needs_keys = kind == "clean" or setup.profile.clean_kv == "last-pass"
    if not needs_keys and not setup.keep_window_keys:
        forward = functools.partial(forward, keep_keys_values=False)
    output = forward(conditioning)
    prediction = output.prediction.to(latents.dtype)
    guidance, rest = setup.profile.audio_guidance, setup.profile.audio_free_weight
    if kind == "window" and setup.profile.needs_audio_free_pass and conditioning.audio is not None:
        silent = conditioning.with_frames(audio=torch.zeros_like(conditioning.audio))
        deaf = forward(silent).prediction.to(latents.dtype)
        prediction = rest * deaf + guidance * (prediction - deaf)
    if setup.transformer.config.prediction == "clean":
        clean = prediction
    else:
        sigmas = _per_frame(noise_of_frames, "sigma", latents)[..., None, None, None]
        clean = clean_from_flow(latents, prediction, sigmas)
    dropped = num_condition * cache.tokens_per_frame
    keys_values = tuple((k[:, dropped:], v[:, dropped:]) for k, v in output.keys_values)
    return PassResult(
        clean[:, num_condition:], prediction[:, num_condition:], keys_values, positions
    )


def with_first_frame(
    setup: StreamSetup, start: int, latents: Float[Tensor, "B T C H W"]
) -> Float[Tensor, "B T C H W"]:
    """``latents`` from frame ``start`` on, with frame 0 replaced where the profile says so."""
    reference = setup.reference_latent
    if setup.profile.first_frame_rule != "replace" or reference is None or start != 0:
        return latents
    return torch.cat((reference[:, None].to(latents), latents[:, 1:]), dim=1)


def static_keys_values(
    setup: StreamSetup, state: StreamState, conditioning: Conditioning
) -> tuple[StaticKeysValues, ...]:
    """Keys and values of what does not change along the stream, computed at the first pass."""
    if torch.is_grad_enabled():
        # A rollout with gradients must not share one graph between its passes.
        return setup.transformer.project_static(conditioning)
    if state.static is None:
        state.static = setup.transformer.project_static(conditioning)
    return state.static


def _per_frame(levels: list[NoiseLevel], name: str, latents: Tensor) -> Float[Tensor, "B T"]:
    values = torch.tensor([getattr(level, name) for level in levels], dtype=torch.float32)
    return values.to(latents.device).expand(latents.shape[0], -1)
