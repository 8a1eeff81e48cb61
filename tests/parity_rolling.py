"""Cases that record a complete sampling: rolling windows, and block by block."""

import dataclasses
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

from joyflash_cli.sampler.loop import Iteration, iterate, sample_blocks, start_stream
from joyflash_cli.sampler.passes import StreamSetup, clean_pass, with_first_frame
from joyflash_cli.sampler.psb import CLEAN, NoiseLevel, noise_levels
from joyflash_cli.sampler.settings import SamplerSettings


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
    setup, state, frames = _start(directory, case, report)
    profile = setup.profile
    report.use("noise", "prompt_embeds", "renoise", "renoise_block", "renoise_next_timestep")
    report.ignore("renoise_window", "audio_emb", "y", "initial_latent")
    prefix = profile.first_block_frame
    outputs = []
    if prefix:
        outputs.append(report.io["initial_latent"])
        kv = state.cache.read(num_sink=len(state.cache.sink), num_context=len(state.cache.context))
        frames.write(kv, 0)
        _compare_cache(report, "prefill", frames, prefix - 1)
    for iteration in iterate(setup, state):
        name = f"window{iteration.index - 1:02d}"
        report.compare(f"{name}.x0", iteration.result.clean)
        start = profile.block_start(iteration.inputs[0].index)
        keys_values = iteration.emitted_keys_values
        if iteration.emitted is not None:
            outputs.append(iteration.emitted.latents)
        else:
            # While nothing is clean the references run this pass too and overwrite it later.
            first = iteration.result.clean[:, : profile.block_frames]
            keys_values = clean_pass(setup, state, first, start)
        frames.write(keys_values, start)
        _compare_cache(report, name, frames, start + profile.block_frames - 1)
    report.compare("output_final", torch.cat(outputs, dim=1))
    _compare_stream(setup, case, report, torch.cat(outputs[1:] if prefix else outputs, dim=1))


@torch.inference_mode()
def run_blockwise(directory: Path, case: dict, report: Report) -> None:
    """Block-wise inference (``livetalk_blockwise``)."""
    setup, state, frames = _start(directory, case, report)
    profile = setup.profile
    report.use("noise", "prompt_embeds", "renoise", "renoise_block", "renoise_next_timestep")
    report.ignore("audio_rows", "y", "ref_latent")
    compare_audio_tokens(setup.transformer, report)
    outputs = []
    for iteration in iterate(setup, state):
        _compare_step(setup, iteration, report)
        if iteration.emitted is None:
            continue
        block = iteration.emitted
        report.compare(f"block{block.index}.output", block.latents)
        outputs.append(block.latents)
        start = profile.block_start(block.index)
        frames.write(iteration.emitted_keys_values, start)
        _compare_cache(report, f"block{block.index}", frames, start + profile.block_frames - 1)
    report.compare("output_final", torch.cat(outputs, dim=1))
    _compare_stream(setup, case, report, torch.cat(outputs, dim=1))


def _start(directory: Path, case: dict, report: Report):
    """Setup, fresh state and an empty record of clean frames."""
    model = load_transformer(directory, case)
    profile = sampler_profile(case)
    reference = report.io.get("initial_latent", report.io.get("ref_latent"))
    setup = StreamSetup.build(
        model,
        profile,
        source=RecordedConditioning(report.io, case["num_blocks"]),
        noise=RecordedNoise(report.io, profile),
        reference_latent=None if reference is None else reference[:, 0],
    )
    levels = exact_levels(case)
    if levels is not None:
        setup = dataclasses.replace(setup, levels=levels)
    steps = [setup.levels[level].timestep for level in sorted(setup.levels)][:-1]
    report.compare("denoise_steps", torch.tensor(steps))
    state = start_stream(setup, latent_shape=_latent_shape(case), batch_size=case["batch"])
    return setup, state, RecordedFrames(model, case)


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


def _compare_step(setup: StreamSetup, iteration: Iteration, report: Report) -> None:
    block = iteration.inputs[0]
    name = f"block{block.index}.step{block.num_steps}"
    start = setup.profile.block_start(block.index)
    report.compare(f"{name}.input", with_first_frame(setup, start, block.latents))
    report.compare(f"{name}.flow", iteration.result.prediction)
    report.compare(f"{name}.x0", iteration.result.clean)


def _compare_cache(report: Report, name: str, frames: RecordedFrames, last_frame: int) -> None:
    if f"{name}.cache_k" in report.io:
        keys, values = frames.cache(last_frame)
        report.compare_part(f"{name}.cache_k", keys, dim=2)
        report.compare_part(f"{name}.cache_v", values, dim=2)


def _compare_stream(setup: StreamSetup, case: dict, report: Report, latents: Tensor) -> None:
    """The public generator gives the very same latents as the loop that was looked into."""
    blocks = sample_blocks(
        setup.transformer,
        setup.source,
        setup.profile,
        latent_shape=_latent_shape(case),
        noise=setup.noise,
        reference_latent=setup.reference_latent,
        batch_size=case["batch"],
    )
    streamed = torch.cat([block.latents for block in blocks], dim=1)
    report.add_difference("sample_blocks", streamed, latents)
