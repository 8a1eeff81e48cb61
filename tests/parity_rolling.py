"""Cases that record a complete sampling: rolling windows, and block by block."""

from collections.abc import Iterator
from pathlib import Path

import torch
from parity_model import (
    RecordedConditioning,
    RecordedFrames,
    compare_audio_tokens,
    load_transformer,
    sampler_profile,
)
from parity_report import Report
from torch import Tensor

from joyflash_cli.sampler.psb import CLEAN, NoiseLevel, noise_levels
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.stream import Layers, PassResult, Stream
from joyflash_cli.sampler.window import WindowBlock
from joyflash_cli.types import LatentBlock


class RecordedNoise:
    """The recorded draws behind the sampler's noise protocol."""

    def __init__(self, io: dict[str, Tensor], profile: SamplerSettings) -> None:
        self._initial = io["noise"]
        levels = noise_levels(profile)
        self._renoise = {}
        draws = zip(io["renoise"], io["renoise_block"], io["renoise_next_timestep"], strict=True)
        for draw, block, timestep in draws:
            level = min(levels, key=lambda g: abs(levels[g].timestep - float(timestep)))
            self._renoise[int(block), level] = draw

    def initial(self, block_index: int, num_frames: int) -> Tensor:
        """The recorded noise of the block."""
        return self._initial[:, block_index * num_frames : (block_index + 1) * num_frames]

    def renoise(self, block_index: int, level: int, num_frames: int) -> Tensor:
        """The recorded draw that brought the block to this level."""
        return self._renoise[block_index, level]

    def condition(self, block_index: int, level: int) -> Tensor:
        """No reference has a condition frame; a profile that asks for one is a mistake here."""
        raise LookupError(f"no condition frame was recorded for block {block_index}, level {level}")


@torch.inference_mode()
def run_rolling(directory: Path, case: dict, report: Report) -> None:
    """Rolling inference (``avatarforcing_rolling``, ``rollingforcing_rolling``)."""
    stream, frames = _start(directory, case, report)
    profile = stream.settings
    report.use("noise", "prompt_embeds", "renoise", "renoise_block", "renoise_next_timestep")
    report.ignore("renoise_window", "audio_emb", "y", "initial_latent")
    prefix = profile.first_block_frame
    outputs = []
    if prefix:
        outputs.append(report.io["initial_latent"])
        kv = stream.cache.read(num_sink=prefix, num_context=0)
        frames.write(kv, 0)
        _compare_cache(report, "prefill", frames, prefix - 1)
    stored = _Stored(stream)
    for window, result, block in _watched(stream):
        name = f"window{stream.iteration - 1:02d}"
        report.compare(f"{name}.x0", result.clean)
        start = profile.block_start(window[0].index)
        if block is not None:
            outputs.append(block.latents)
            keys_values = stored.newest
        else:
            # While nothing is clean the references run this pass too and overwrite it later.
            keys_values = stream.clean_pass(result.clean[:, : profile.block_frames], start)
        frames.write(keys_values, start)
        _compare_cache(report, name, frames, start + profile.block_frames - 1)
    report.compare("output_final", torch.cat(outputs, dim=1))
    _compare_stream(stream, case, report, torch.cat(outputs[1:] if prefix else outputs, dim=1))


@torch.inference_mode()
def run_blockwise(directory: Path, case: dict, report: Report) -> None:
    """Block-wise inference (``livetalk_blockwise``)."""
    stream, frames = _start(directory, case, report)
    profile = stream.settings
    report.use("noise", "prompt_embeds", "renoise", "renoise_block", "renoise_next_timestep")
    report.ignore("audio_rows", "y", "ref_latent")
    compare_audio_tokens(stream.transformer, report)
    outputs = []
    stored = _Stored(stream)
    for window, result, block in _watched(stream):
        _compare_step(stream, window[0], result, report)
        if block is None:
            continue
        report.compare(f"block{block.index}.output", block.latents)
        outputs.append(block.latents)
        start = profile.block_start(block.index)
        frames.write(stored.newest, start)
        _compare_cache(report, f"block{block.index}", frames, start + profile.block_frames - 1)
    report.compare("output_final", torch.cat(outputs, dim=1))
    _compare_stream(stream, case, report, torch.cat(outputs, dim=1))


def _start(directory: Path, case: dict, report: Report):
    """A fresh stream and an empty record of clean frames."""
    model = load_transformer(directory, case)
    profile = sampler_profile(case)
    reference = report.io.get("initial_latent", report.io.get("ref_latent"))
    stream = Stream.start(
        model,
        profile,
        source=RecordedConditioning(report.io, case["num_blocks"]),
        noise=RecordedNoise(report.io, profile),
        latent_shape=_latent_shape(case),
        reference_latent=None if reference is None else reference[:, 0],
        batch_size=case["batch"],
    )
    levels = exact_levels(case)
    if levels is not None:
        stream.levels = levels
    steps = [stream.levels[level].timestep for level in sorted(stream.levels)][:-1]
    report.compare("denoise_steps", torch.tensor(steps))
    return stream, RecordedFrames(model, case)


class _Stored:
    """Sees what a stream writes to its cache."""

    def __init__(self, stream: Stream) -> None:
        append = stream.cache.append

        def watched(keys_values: Layers, first_frame: int) -> None:
            self.newest = keys_values
            append(keys_values, first_frame)

        stream.cache.append = watched  # type: ignore[method-assign]


def _watched(stream: Stream) -> Iterator[tuple[list[WindowBlock], PassResult, LatentBlock | None]]:
    """The stream's iterations: the window before, what the joint pass gave, the clean block."""
    while True:
        stream.admit_block()
        if not stream.window:
            return
        window, result = list(stream.window), stream.window_pass()
        yield window, result, stream.finish_iteration(result)


def exact_levels(case: dict) -> dict[int, NoiseLevel] | None:
    """Noise levels of a case whose steps lie between the entries of the table of 1000.

    LiveTalk builds a table of as many entries as it has steps; thirds, say, are in no other.
    """
    shift = case["config"]["timestep_shift"]
    sigmas = case.get("sigmas", [])
    steps = [1000 * s / (shift - (shift - 1) * s) for s in sigmas]
    if all(abs(step - round(step)) < 1e-2 for step in steps):
        return None
    levels = {2 * i: NoiseLevel(1000 * sigma, sigma) for i, sigma in enumerate(sigmas)}
    return levels | {2 * len(sigmas): CLEAN}


def _latent_shape(case: dict) -> tuple[int, int, int]:
    return (case["config"]["out_dim"], *case["config"]["latent_hw"])


def _compare_step(stream: Stream, block: WindowBlock, result: PassResult, report: Report) -> None:
    name = f"block{block.index}.step{block.num_steps}"
    start = stream.settings.block_start(block.index)
    report.compare(f"{name}.input", stream.with_first_frame(start, block.latents))
    report.compare(f"{name}.flow", result.prediction)
    report.compare(f"{name}.x0", result.clean)


def _compare_cache(report: Report, name: str, frames: RecordedFrames, last_frame: int) -> None:
    if f"{name}.cache_k" in report.io:
        keys, values = frames.cache(last_frame)
        report.compare_part(f"{name}.cache_k", keys, dim=2)
        report.compare_part(f"{name}.cache_v", values, dim=2)


def _compare_stream(stream: Stream, case: dict, report: Report, latents: Tensor) -> None:
    """The public generator gives the very same latents as the loop that was looked into."""
    again = Stream.start(
        stream.transformer,
        stream.settings,
        source=stream.source,
        noise=stream.noise,
        latent_shape=_latent_shape(case),
        reference_latent=stream.reference_latent,
        batch_size=case["batch"],
    )
    streamed = torch.cat([block.latents for block in again.blocks()], dim=1)
    report.add_difference("sample_blocks", streamed, latents)
