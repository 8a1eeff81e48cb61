"""The sampling loop: an endless stream of clean blocks out of noise and conditioning.

Paper §3.2 to §3.5, algorithm in one place: admit a block (PSB), one joint pass over the window
behind its condition frame (MCI), bring every block to its next level, store the block that is
clean in the cache (URCR reads it at new indices) and hand it out.
"""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from joyflash_cli.errors import ConfigError, DeviceError
from joyflash_cli.model.attention import KeysValues
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.cache import KeyValueCache
from joyflash_cli.sampler.noise import LatentShape, NoiseSource
from joyflash_cli.sampler.passes import (
    PassResult,
    StreamSetup,
    StreamState,
    clean_pass,
    window_pass,
    with_first_frame,
)
from joyflash_cli.sampler.psb import admits_block, level_stride
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.solver import add_noise
from joyflash_cli.sampler.window import WindowBlock, split_blocks
from joyflash_cli.types import ConditioningSource, LatentBlock


@dataclass(frozen=True)
class Iteration:
    """One iteration of the loop, for whoever wants to look inside.

    Attributes:
        index: From 1.
        inputs: The window before the pass.
        result: What the joint pass gave.
        emitted: The block that became clean, if any.
        emitted_keys_values: What was stored for it in the cache.
    """

    index: int
    inputs: tuple[WindowBlock, ...]
    result: PassResult
    emitted: LatentBlock | None
    emitted_keys_values: tuple[KeysValues, ...] | None


@torch.inference_mode()
def sample_blocks(
    transformer: CausalTransformer,
    source: ConditioningSource,
    profile: SamplerSettings,
    *,
    latent_shape: LatentShape,
    noise: NoiseSource,
    reference_latent: Tensor | None = None,
    batch_size: int = 1,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[LatentBlock]:
    """Clean blocks in order, each as soon as it is clean; memory does not depend on the length.

    Args:
        transformer: The model, on ``device``.
        source: Conditioning; its ``has_block`` ends the stream.
        profile: How the checkpoint is to be sampled.
        latent_shape: Channels, rows and columns of a latent frame.
        noise: All randomness.
        reference_latent: ``(B, C, H, W)``, where the profile's first-frame rule needs it.
        batch_size: Streams sampled together.
        device: Of the latents; by default the transformer's.
        dtype: Of the cached keys and values; by default the transformer's.

    Yields:
        One ``LatentBlock`` per block; its latents are the clean prediction of the last step.

    Raises:
        ConfigError: If sizes or conditioning do not fit the transformer.
        DeviceError: If latents stop being finite.
    """
    setup = StreamSetup.build(
        transformer, profile, source=source, noise=noise, reference_latent=reference_latent
    )
    setup = dataclasses.replace(setup, keep_window_keys=False)
    state = start_stream(
        setup, latent_shape=latent_shape, batch_size=batch_size, device=device, dtype=dtype
    )
    started = time.perf_counter()
    for iteration in iterate(setup, state):
        block = iteration.emitted
        # What the pass computed must not wait in memory for the next one.
        del iteration
        if block is not None:
            now = time.perf_counter()
            yield LatentBlock(
                index=block.index,
                latents=block.latents,
                num_steps=block.num_steps,
                iteration=block.iteration,
                wall_s=now - started,
            )
            # The consumer's own time between two blocks is not the sampler's.
            started = time.perf_counter()


def start_stream(
    setup: StreamSetup,
    *,
    latent_shape: LatentShape,
    batch_size: int = 1,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> StreamState:
    """The state before the first iteration; with the ``prefix`` rule frame 0 is already cached.

    Raises:
        ConfigError: If the latent shape does not fit the transformer.
    """
    config, profile = setup.transformer.config, setup.profile
    channels, height, width = latent_shape
    if channels != config.out_channels:
        raise ConfigError(
            f"Latents have {channels} channels; the transformer predicts {config.out_channels}"
        )
    weight = setup.transformer.patch_embedding.weight
    cache = KeyValueCache(
        num_layers=config.num_layers,
        batch_size=batch_size,
        tokens_per_frame=config.tokens_per_frame(height, width),
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        sink_frames=profile.sink_frames,
        context_frames=profile.context_frames,
        dtype=dtype or weight.dtype,
        device=device or weight.device,
    )
    state = StreamState(cache)
    if profile.first_frame_rule == "prefix" and setup.reference_latent is not None:
        reference = setup.reference_latent[:, None].to(device or weight.device)
        cache.append(clean_pass(setup, state, reference, 0), 0)
    return state


def iterate(setup: StreamSetup, state: StreamState) -> Iterator[Iteration]:
    """Run the stream to its end, one iteration at a time, changing ``state``."""
    while True:
        admit_block(setup, state)
        if not state.window:
            return
        yield run_iteration(setup, state)


def admit_block(setup: StreamSetup, state: StreamState) -> None:
    """Let the next block of noise enter the window if there is room and the stream has one."""
    profile = setup.profile
    if not admits_block([block.level for block in state.window], profile):
        return
    if setup.source.has_block(state.next_block):
        latents = setup.noise.initial(state.next_block, profile.block_frames)
        state.window.append(WindowBlock(state.next_block, latents, level=0))
        state.next_block += 1


def run_iteration(setup: StreamSetup, state: StreamState) -> Iteration:
    """One joint pass, every block moved to its next level, the clean one stored and taken out."""
    return finish_iteration(setup, state, window_pass(setup, state))


def finish_iteration(setup: StreamSetup, state: StreamState, result: PassResult) -> Iteration:
    """What follows the joint pass of an iteration; training runs that pass itself."""
    state.iteration += 1
    inputs = tuple(state.window)
    check_finite(result.clean, inputs)
    state.base = result.positions.base
    advance_window(setup, state, result.clean)
    emitted, keys_values = None, None
    if state.window[0].level >= setup.profile.clean_level:
        block = state.window.pop(0)
        keys_values = store_clean_block(setup, state, block, result)
        emitted = LatentBlock(block.index, block.latents, block.num_steps, state.iteration)
    return Iteration(state.iteration, inputs, result, emitted, keys_values)


def store_clean_block(
    setup: StreamSetup, state: StreamState, block: WindowBlock, result: PassResult
) -> tuple[KeysValues, ...]:
    """Write a finished block to the cache and make it the one that motion is taken from.

    Args:
        setup: Of the stream.
        state: Of the stream; the block has left its window.
        block: The finished block.
        result: Of the block's last pass, in which it stood first.
    """
    start = setup.profile.block_start(block.index)
    if setup.profile.clean_kv == "extra-pass":
        keys_values = clean_pass(setup, state, block.latents, start)
    else:
        num_tokens = block.latents.shape[1] * state.cache.tokens_per_frame
        keys_values = tuple((k[:, :num_tokens], v[:, :num_tokens]) for k, v in result.keys_values)
    state.cache.append(keys_values, start)
    state.clean_block = block.latents
    state.num_emitted += 1
    return keys_values


def advance_window(setup: StreamSetup, state: StreamState, clean: Tensor) -> None:
    """Bring every block from its clean prediction to its next level, with fresh noise."""
    stride = level_stride(state.num_emitted, setup.profile)
    predictions = split_blocks(clean, len(state.window))
    state.window = [
        move_block(setup, block, x0, block.level + stride)
        for block, x0 in zip(state.window, predictions, strict=True)
    ]


def move_block(setup: StreamSetup, block: WindowBlock, clean: Tensor, level: int) -> WindowBlock:
    """The block at ``level``, made from its clean prediction; finished from the clean level on."""
    profile = setup.profile
    if level >= profile.clean_level:
        latents = with_first_frame(setup, profile.block_start(block.index), clean)
    else:
        noise = setup.noise.renoise(block.index, level, profile.block_frames)
        latents = add_noise(clean, noise, setup.levels[level].sigma)
    return block.moved_to(level, latents)


def check_finite(clean: Tensor, window: tuple[WindowBlock, ...]) -> None:
    """Refuse to go on with numbers that are not finite.

    Raises:
        DeviceError: With the first block that has any.
    """
    if torch.isfinite(clean).all():
        return
    parts = zip(window, split_blocks(clean, len(window)), strict=True)
    index = next(block.index for block, x0 in parts if not torch.isfinite(x0).all())
    raise DeviceError(
        f"Block {index} has latents that are not finite",
        hint="try --dtype float32, or check the weights",
        code="E-DEVICE-NONFINITE",
    )
