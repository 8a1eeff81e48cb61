"""The stream: an endless run of clean blocks out of noise and conditioning (paper §3.2 to §3.5).

    repeat
        let a block of noise enter the window where the schedule says so        PSB, §3.3
        one joint pass over the window behind its condition frame               MCI, §3.4
            the cache in front, everything at the pass's own indices            URCR, §3.5
        bring every block from its clean prediction to its next noise level
        if the first block is clean
            one pass over it alone, whose keys and values enter the cache       K1
                or the next joint pass has it in front and computes the same    K3
            hand it out

Training rolls out with the same methods; gradients flow through a pass where the caller allows it.
"""

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.attention import KeysValues, StaticKeysValues
from joyflash_cli.model.transformer import CausalTransformer, Context, Lead
from joyflash_cli.sampler.cache import KeyValueCache
from joyflash_cli.sampler.finite import FiniteCheck
from joyflash_cli.sampler.mci import condition_frame
from joyflash_cli.sampler.noise import LatentShape, NoiseSource
from joyflash_cli.sampler.psb import CLEAN, NoiseLevel, admits_block, level_stride, noise_levels
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.solver import add_noise, clean_from_flow
from joyflash_cli.sampler.urcr import PassKind, PassPositions, attended_frames, pass_positions
from joyflash_cli.sampler.window import WindowBlock, split_blocks, window_latents, window_noise
from joyflash_cli.types import Conditioning, ConditioningSource, LatentBlock, on_device

Layers = tuple[KeysValues, ...]
"""Of every layer, keys before rotation and values, ``(B, T * P, N, K)``."""


@dataclass(frozen=True)
class PassResult:
    """What a pass gives for its frames, the condition frame left out.

    Attributes:
        clean: Clean latents the model expects, ``(B, T, C, H, W)`` float32.
        prediction: What the head gave, flow or clean, same shape.
        keys_values: Of the same frames, or of the clean block in front of them (K3); empty where
            nobody keeps them.
        positions: The indices that were used.
    """

    clean: Tensor
    prediction: Tensor
    keys_values: Layers
    positions: PassPositions


@dataclass
class Stream:
    """One stream, or a batch of them, on its way.

    Attributes:
        transformer: The model.
        settings: How its checkpoint is to be sampled.
        source: Conditioning by latent frame; its ``has_block`` ends the stream.
        noise: All randomness.
        cache: Sink and recent clean frames.
        levels: Fine level to noise.
        reference_latent: ``(B, C, H, W)``; needed by the first-frame rules.
        static: Keys and values of text, CLIP and face, projected once.
        window: Blocks being denoised, oldest first.
        clean_block: The newest clean block, ``None`` until there is one.
        base: Index base of the newest window pass (URCR).
        unstored: The newest clean block while its keys and values are left to the next pass (K3).
        num_emitted: Clean blocks so far.
        next_block: Index of the next block to enter.
        iteration: Iterations so far.
        finite: Of the newest window pass.
    """

    transformer: CausalTransformer
    settings: SamplerSettings
    source: ConditioningSource
    noise: NoiseSource
    cache: KeyValueCache
    levels: dict[int, NoiseLevel]
    reference_latent: Tensor | None = None
    static: tuple[StaticKeysValues, ...] | None = None
    window: list[WindowBlock] = field(default_factory=list)
    clean_block: Tensor | None = None
    unstored: WindowBlock | None = None
    base: int = 0
    num_emitted: int = 0
    next_block: int = 0
    iteration: int = 0
    finite: FiniteCheck | None = None

    @classmethod
    def start(
        cls,
        transformer: CausalTransformer,
        settings: SamplerSettings,
        *,
        source: ConditioningSource,
        noise: NoiseSource,
        latent_shape: LatentShape,
        reference_latent: Tensor | None = None,
        batch_size: int = 1,
        dtype: torch.dtype | None = None,
    ) -> "Stream":
        """The stream before its first iteration; with the ``prefix`` rule frame 0 is cached.

        Args as the attributes; ``dtype`` is that of the cache, by default the transformer's.

        Raises:
            ConfigError: If the latents do not fit the transformer, or a reference is missing.
        """
        config, (channels, *size) = transformer.config, latent_shape
        if channels != config.out_channels:
            raise ConfigError(
                f"Latents have {channels} channels; the transformer predicts {config.out_channels}"
            )
        if settings.first_frame_rule != "none" and reference_latent is None:
            raise ConfigError(
                f"The first-frame rule {settings.first_frame_rule!r} needs a reference latent"
            )
        weight = transformer.patch_embedding.weight
        cache = KeyValueCache(
            num_layers=config.num_layers,
            batch_size=batch_size,
            tokens_per_frame=config.tokens_per_frame(*size),
            num_heads=transformer.num_own_heads,
            head_dim=config.head_dim,
            sink_frames=settings.sink_frames,
            context_frames=settings.context_frames,
            dtype=dtype or weight.dtype,
            device=weight.device,
        )
        levels = noise_levels(settings)
        stream = cls(transformer, settings, source, noise, cache, levels, reference_latent)
        if settings.first_frame_rule == "prefix" and reference_latent is not None:
            with torch.no_grad():
                first = stream.clean_pass(reference_latent[:, None].to(weight.device), 0)
            cache.append(first, 0)
        return stream

    @torch.inference_mode()
    def blocks(self) -> Iterator[LatentBlock]:
        """Clean blocks in order, each as soon as it is clean, with the seconds it took.

        Raises:
            DeviceError: If latents stop being finite.
        """
        started = time.perf_counter()
        for block in self.iterate():
            if block is not None:
                yield replace(block, wall_s=time.perf_counter() - started)
                # The consumer's own time between two blocks is not the sampler's.
                started = time.perf_counter()

    def iterate(self) -> Iterator[LatentBlock | None]:
        """Run to the end, one iteration at a time: the block that became clean, if any."""
        while True:
            self.admit_block()
            if not self.window:
                break
            yield self.finish_iteration(self.window_pass())
        if self.finite is not None:
            self.finite.confirm()

    def admit_block(self) -> None:
        """Let the next block of noise enter if there is room and the stream has one (PSB)."""
        levels = [block.level for block in self.window]
        if admits_block(levels, self.settings) and self.source.has_block(self.next_block):
            latents = self.noise.initial(self.next_block, self.settings.block_frames)
            self.window.append(WindowBlock(self.next_block, latents, level=0))
            self.next_block += 1

    def window_pass(
        self, *, mci_noise: bool | None = None, cache: KeyValueCache | None = None
    ) -> PassResult:
        """The joint pass, which changes nothing; training gives the coin and a cache of its own."""
        settings, first = self.settings, self.window[0]
        start = settings.block_start(first.index)
        latents = self.with_first_frame(start, window_latents(self.window))
        noise_of_frames = window_noise(self.window, self.levels, settings.block_frames)
        num_condition = 0
        if settings.mci and self.clean_block is not None:
            is_noised = settings.mci_noise if mci_noise is None else mci_noise
            noise = self.noise.condition(first.index, first.level) if is_noised else None
            front, level = condition_frame(self.clean_block, self.levels[first.level], noise)
            latents = torch.cat((front, latents), dim=1)
            noise_of_frames = [level, *noise_of_frames]
            num_condition = 1
        return self._run_pass(
            latents, noise_of_frames, "window", start, num_condition, cache or self.cache
        )

    def clean_pass(self, latents: Float[Tensor, "B T C H W"], start: int) -> Layers:
        """Keys and values of finished latents that begin at latent frame ``start`` (K1, D3).

        Timestep 0, no noise, no condition frame; changes nothing.
        """
        levels = [CLEAN] * latents.shape[1]
        return self._run_pass(latents, levels, "clean", start, 0, self.cache).keys_values

    def finish_iteration(self, result: PassResult) -> LatentBlock | None:
        """What follows the joint pass; the block that is clean now, if any.

        Raises:
            DeviceError: If latents are not finite; on a GPU one iteration late.
        """
        self.iteration += 1
        self.check_finite(result.clean)
        if self.unstored is not None:
            first_frame = self.settings.block_start(self.unstored.index)
            self.cache.append(result.keys_values, first_frame)
            self.unstored = None
        self.base = result.positions.base
        self._advance_window(result.clean)
        if self.window[0].level < self.settings.clean_level:
            return None
        block = self.window.pop(0)
        self.store_clean_block(block, result)
        return LatentBlock(block.index, block.latents, block.num_steps, self.iteration)

    def check_finite(self, clean: Float[Tensor, "B T C H W"]) -> None:
        """Test what a pass over the window gave, and hear of the pass before."""
        if self.finite is not None:
            self.finite.confirm()
        self.finite = FiniteCheck(clean, [block.index for block in self.window])
        if not clean.is_cuda:  # nothing to wait for
            self.finite.confirm()

    def store_clean_block(self, block: WindowBlock, result: PassResult) -> None:
        """Write a block that has left the window to the cache; ``result`` is of its last pass."""
        start = self.settings.block_start(block.index)
        if self.settings.leads_next_pass:
            self.unstored = block
        elif self.settings.clean_kv == "last-pass":
            num_tokens = block.latents.shape[1] * self.cache.tokens_per_frame
            kept = tuple((k[:, :num_tokens], v[:, :num_tokens]) for k, v in result.keys_values)
            self.cache.append(kept, start)
        else:
            self.cache.append(self.clean_pass(block.latents, start), start)
        self.clean_block = block.latents
        self.num_emitted += 1

    def _advance_window(self, clean: Float[Tensor, "B T C H W"]) -> None:
        """Bring every block from its clean prediction to its next level, with fresh noise."""
        stride = level_stride(self.num_emitted, self.settings)
        predictions = split_blocks(clean, len(self.window))
        self.window = [
            self.moved(block, x0, block.level + stride)
            for block, x0 in zip(self.window, predictions, strict=True)
        ]

    def moved(
        self, block: WindowBlock, clean: Float[Tensor, "B T C H W"], level: int
    ) -> WindowBlock:
        """The block at ``level``, made from its clean prediction; finished from clean on."""
        settings = self.settings
        if level >= settings.clean_level:
            latents = self.with_first_frame(settings.block_start(block.index), clean)
        else:
            noise = self.noise.renoise(block.index, level, settings.block_frames)
            latents = add_noise(clean, noise, self.levels[level].sigma)
        return block.moved_to(level, latents)

    def with_first_frame(
        self, start: int, latents: Float[Tensor, "B T C H W"]
    ) -> Float[Tensor, "B T C H W"]:
        """``latents`` from frame ``start`` on, frame 0 replaced where the settings say so."""
        reference = self.reference_latent
        if self.settings.first_frame_rule != "replace" or reference is None or start != 0:
            return latents
        return torch.cat((reference[:, None].to(latents), latents[:, 1:]), dim=1)

    def _run_pass(
        self,
        latents: Float[Tensor, "B T C H W"],
        noise_of_frames: list[NoiseLevel],
        kind: PassKind,
        start: int,
        num_condition: int,
        cache: KeyValueCache,
    ) -> PassResult:
        """One pass over ``latents``, which begin at ``start - num_condition``, behind the cache."""
        frames = range(start - num_condition, start - num_condition + latents.shape[1])
        unstored = self.unstored if kind == "window" else None
        lead = None if unstored is None else self._lead(unstored, cache)
        context, positions = self._context(frames, start, kind, cache, unstored)
        conditioning = self.source.frames(frames.start, frames.stop)
        predict = functools.partial(
            self.transformer,
            latents,
            _per_frame([level.timestep for level in noise_of_frames], latents),
            positions=positions.own,
            static=self._static_keys_values(conditioning),
        )
        is_kept = kind == "clean" or lead is not None or self.settings.clean_kv == "last-pass"
        output = predict(conditioning, context=context, lead=lead, keep_keys_values=is_kept)
        prediction = output.prediction.to(latents.dtype)
        is_guided = kind == "window" and self.settings.needs_audio_free_pass
        if is_guided and conditioning.audio is not None:
            silent = conditioning.with_frames(audio=torch.zeros_like(conditioning.audio))
            if lead is not None and context is not None:
                context = context.followed_by(output.keys_values)
            deaf = predict(silent, context=context, keep_keys_values=False)
            deaf_prediction = deaf.prediction.to(latents.dtype)
            guidance, rest = self.settings.audio_guidance, self.settings.audio_free_weight
            prediction = rest * deaf_prediction + guidance * (prediction - deaf_prediction)
        clean = prediction
        if self.transformer.config.prediction == "flow":
            sigmas = _per_frame([level.sigma for level in noise_of_frames], latents)
            clean = clean_from_flow(latents, prediction, sigmas[..., None, None, None])
        dropped = num_condition * cache.tokens_per_frame if lead is None else 0
        keys_values = tuple((k[:, dropped:], v[:, dropped:]) for k, v in output.keys_values)
        clean, prediction = clean[:, num_condition:], prediction[:, num_condition:]
        return PassResult(clean, prediction, keys_values, positions)

    def _lead(self, block: WindowBlock, cache: KeyValueCache) -> Lead:
        """A clean block as the pass behind it computes it: as :meth:`clean_pass` does (K3)."""
        start = self.settings.block_start(block.index)
        frames = range(start, start + block.latents.shape[1])
        context, positions = self._context(frames, start, "clean", cache)
        timesteps = _per_frame([CLEAN.timestep] * len(frames), block.latents)
        conditioning = self.source.frames(frames.start, frames.stop)
        return Lead(block.latents, timesteps, conditioning, positions.own, context)

    def _context(
        self,
        frames: range,
        start: int,
        kind: PassKind,
        cache: KeyValueCache,
        unstored: WindowBlock | None = None,
    ) -> tuple[Context | None, PassPositions]:
        """What a pass over ``frames`` attends of the cache, and at which indices (URCR).

        With a block that is not stored yet, both are as if it were, but for its keys and values.
        """
        newest = range(0)
        if unstored is not None:
            first = self.settings.block_start(unstored.index)
            newest = range(first, first + unstored.latents.shape[1])
        sink, recent = cache.frames_with(newest)
        num_sink, num_context = attended_frames(
            self.settings,
            kind,
            num_own=frames.stop - start,
            num_sink=len(sink),
            num_context=len(recent),
        )
        positions = pass_positions(
            self.settings,
            kind,
            sink=sink[len(sink) - num_sink :],
            context=recent[len(recent) - num_context :],
            own=frames,
            start=start,
            base=self.base,
        )
        if not num_sink + num_context:
            return None, positions
        keys_values = cache.read(
            num_sink=num_sink - sum(frame in newest for frame in sink),
            num_context=num_context - sum(frame in newest for frame in recent),
        )
        return Context(keys_values, positions.context), positions

    def _static_keys_values(self, conditioning: Conditioning) -> tuple[StaticKeysValues, ...]:
        """Keys and values of what does not change along the stream, from the first pass on."""
        if torch.is_grad_enabled():
            # A rollout with gradients must not share one graph between its passes.
            return self.transformer.project_static(conditioning)
        if self.static is None:
            self.static = self.transformer.project_static(conditioning)
        return self.static


def _per_frame(values: list[float], latents: Tensor) -> Float[Tensor, "B T"]:
    frames = torch.tensor(values, dtype=torch.float32)
    return on_device(frames, latents.device).expand(latents.shape[0], -1)
