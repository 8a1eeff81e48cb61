"""What a distillation step costs, from shapes alone: nothing is allocated or computed.

Networks are built on the meta device. Operations are counted by torch's own counter in one pass of
each shape that a rollout takes, and the schedule says how often each shape comes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.render.memory import CLIP_TOKENS
from joyflash_cli.render.operations import PassShape, meta_pass, meta_transformer, pass_operations
from joyflash_cli.sampler.psb import noise_levels, scheduled_iterations
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.urcr import PassKind
from joyflash_cli.studio.training.dmd import DmdConfig, student_profile
from joyflash_cli.studio.training.generator_batches import seen_frames
from joyflash_cli.studio.training.rollout import gradient_iterations
from joyflash_cli.studio.training.run_config import RunConfig
from joyflash_cli.studio.training.run_parts import read_geometry

TRAINED_BYTES = 20
"""Per parameter: weight, gradient, two moments of AdamW and the average, float32 each."""

GATHERED_LAYERS = 2
"""The layer in use and the one fetched ahead."""


@dataclass(frozen=True)
class Costs:
    """Costs of one distillation.

    Attributes:
        parameters: By network.
        gpus: That share them.
        memory_bytes: Per GPU, by what takes it; activations and cache are estimates.
        flops: Of one average step on one GPU, by what needs them.
        steps: Of the run.
        samples_per_gpu: Clips a GPU rolls out per update.
    """

    parameters: dict[str, int]
    gpus: int
    memory_bytes: dict[str, float]
    flops: dict[str, float]
    steps: int
    samples_per_gpu: float

    @property
    def total_flops(self) -> float:
        """Per step and GPU."""
        return sum(self.flops.values())


class RolloutShapes(NamedTuple):
    """How often each pass shape comes in an average rollout, with and without gradients."""

    quiet: Counter[PassShape]
    learning: Counter[PassShape]


def estimate_costs(run: RunConfig) -> Costs:
    """Parameters, memory and operations of the stage dmd of a run."""
    geometry, config = read_geometry(run), run.dmd
    profile = config.ablation.profile(student_profile(geometry.sampler))
    student = _Measured(geometry.student, run.latent_size)
    real = _Measured(geometry.teacher, run.latent_size)
    share = config.batch / run.gpus
    shapes = average_rollout(config, profile)
    return Costs(
        parameters={
            "generator": student.num_parameters,
            "fake score": student.num_parameters,
            "real score": real.num_parameters,
        },
        gpus=run.gpus,
        memory_bytes=_memory(run, profile, student, real, shapes),
        flops={name: share * x for name, x in _flops(run, profile, student, real, shapes).items()},
        steps=config.steps,
        samples_per_gpu=share,
    )


def average_rollout(config: DmdConfig, profile: SamplerSettings) -> RolloutShapes:
    """Pass shapes of a rollout, averaged over lengths, branches, phases and exits."""
    rollout = config.ablation.rollout(config.rollout)
    shapes = RolloutShapes(Counter(), Counter())
    least, greatest = rollout.num_blocks
    passes = [_main_passes(profile, n) for n in range(least, greatest + 1) if rollout.main_branch]
    if rollout.auxiliary_branch:
        passes += [
            _auxiliary_passes(profile, n, rollout.sub_step_share)
            for n in range(least, greatest + 1)
        ]
    for shape, times, learns in (one for of_rollout in passes for one in of_rollout):
        shapes.learning[shape] += learns * times / len(passes)  # type: ignore[assignment]
        shapes.quiet[shape] += (1 - learns) * times / len(passes)  # type: ignore[assignment]
    return shapes


def _main_passes(
    profile: SamplerSettings, num_blocks: int
) -> Iterator[tuple[PassShape, float, float]]:
    """Shape, how often, and the share that carries gradients, of each pass of the main branch."""
    learning = [
        gradient_iterations(profile, num_blocks, phase, late=late)
        for phase in range(len(profile.main_steps))
        for late in (False, True)
    ]
    emitted = 0
    for iteration in scheduled_iterations(num_blocks, profile):
        # A rollout ends with the last pass that carries gradients.
        runs = sum(max(chosen) >= iteration.index for chosen in learning) / len(learning)
        learns = sum(iteration.index in chosen for chosen in learning) / len(learning)
        if not runs:
            return
        yield _shape(profile, "window", len(iteration.levels), emitted), runs, learns / runs
        if iteration.emitted is not None:
            yield _shape(profile, "clean", 1, emitted), runs, 0.0
            emitted += 1


def _auxiliary_passes(
    profile: SamplerSettings, num_blocks: int, sub_step_share: float
) -> Iterator[tuple[PassShape, float, float]]:
    levels = [level for level in sorted(noise_levels(profile)) if level < profile.clean_level]
    before = [
        sum(1.0 if level % 2 == 0 else sub_step_share for level in levels[:exit_index])
        for exit_index in range(len(levels))
    ]
    passes = 1 + sum(before) / len(before)
    for block in range(num_blocks):
        yield _shape(profile, "window", 1, block), passes, 1 / passes
        if block + 1 < num_blocks:
            yield _shape(profile, "clean", 1, block), 1.0, 0.0


def _shape(profile: SamplerSettings, kind: PassKind, blocks: int, emitted: int) -> PassShape:
    """Of a pass over some blocks when ``emitted`` blocks have become clean before."""
    frames = blocks * profile.block_frames
    sink, context = seen_frames(profile, kind, emitted * profile.block_frames, num_own=frames)
    has_front = kind == "window" and profile.mci and emitted > 0
    return PassShape(frames + has_front, len(sink) + len(context))


class _Measured:
    """A network on the meta device, and what its passes take."""

    def __init__(self, config: TransformerConfig, latent_size: tuple[int, int]) -> None:
        self.config = config
        self.latent_size = latent_size
        self.network = meta_transformer(config)
        self.num_parameters = sum(p.numel() for p in self.network.parameters())
        layers = [sum(p.numel() for p in layer.parameters()) for layer in self.network.layers]
        self.layer_parameters = max(layers)
        self.root_parameters = self.num_parameters - sum(layers)
        self.tokens_per_frame = config.tokens_per_frame(*latent_size)

    def flops(self, shape: PassShape) -> float:
        """Multiplications and additions of one forward pass."""
        return pass_operations(self.config, shape, self.latent_size)

    def saved_bytes_per_layer(self, shape: PassShape) -> float:
        """What a layer of one pass keeps for its backward pass, in bfloat16.

        All layers cost the same: what two keep over what one keeps. On the meta device attention is
        written out; its weights are left out here, because the fused kernels of a GPU never keep
        them.
        """
        one, two = (meta_transformer(replace(self.config, num_layers=count)) for count in (1, 2))
        return self._saved_bytes(two, shape) - self._saved_bytes(one, shape)

    def _saved_bytes(self, network: CausalTransformer, shape: PassShape) -> float:
        # Storages are kept alive, so that no identity comes twice.
        weights = [parameter.untyped_storage() for parameter in network.parameters()]
        sizes, kept = dict.fromkeys(map(id, weights), 0), []

        def remember(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if id(storage) not in sizes and not self._is_attention(tensor, shape):
                sizes[id(storage)] = tensor.numel() * tensor.element_size()
                kept.append(storage)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            meta_pass(network, shape, self.latent_size)
        return float(sum(sizes.values()))

    def _is_attention(self, tensor: Tensor, shape: PassShape) -> bool:
        """Whether a tensor has a row per query and a column per key."""
        config, per_frame = self.config, self.tokens_per_frame
        keys = {
            (shape.frames + shape.context) * per_frame,
            config.text_len if config.text_dim is not None else 0,
            CLIP_TOKENS if config.image_token_dim is not None else 0,
            config.audio_attention.tokens_per_latent if config.audio_attention is not None else 0,
            config.face_attention.num_tokens if config.face_attention is not None else 0,
        }
        queries = {shape.frames * per_frame, per_frame}
        rows, columns = tensor.shape[-2:] if tensor.ndim >= 3 else (0, 0)
        return (rows in queries and columns in keys) or (rows in keys and columns in queries)


def _flops(
    run: RunConfig,
    profile: SamplerSettings,
    student: _Measured,
    real: _Measured,
    shapes: RolloutShapes,
) -> dict[str, float]:
    """Of one sample in an average step."""
    config, longest = run.dmd, run.dmd.rollout.num_blocks[1] * profile.block_frames
    scored = PassShape(min(longest, config.score_frames), 0)
    backward = 3 if run.recompute_layers else 2
    quiet = sum(times * student.flops(shape) for shape, times in shapes.quiet.items())
    learning = sum(times * student.flops(shape) for shape, times in shapes.learning.items())
    has_text = student.config.text_dim is not None
    equal = not has_text or config.guidance.text == config.guidance.audio
    guided_passes = (1 if config.guidance.audio == 1 else 2) if equal else 3
    per_generator, per_critic = 1 / config.generator_every, 1 / config.critic_every
    return {
        "rollouts": (per_generator + per_critic) * (quiet + learning),
        "generator backward": per_generator * backward * learning,
        "real score": per_generator * guided_passes * real.flops(scored),
        "fake score": (per_generator + per_critic * (1 + backward)) * student.flops(scored),
    }


def _memory(
    run: RunConfig,
    profile: SamplerSettings,
    student: _Measured,
    real: _Measured,
    shapes: RolloutShapes,
) -> dict[str, float]:
    """Bytes per GPU."""
    frozen_bytes = 2 if run.gpus > 1 and run.dmd.bf16 else 4
    samples = run.dmd.batch / run.gpus / run.dmd.accumulate
    trained = TRAINED_BYTES * student.num_parameters / run.gpus
    taken = {
        "generator": trained,
        "fake score": trained,
        "real score": frozen_bytes * real.num_parameters / run.gpus,
    }
    if run.gpus > 1:
        gathered, frozen = (
            size * (network.root_parameters + GATHERED_LAYERS * network.layer_parameters)
            for size, network in ((4, student), (frozen_bytes, real))
        )
        taken["gathered layers"] = float(max(gathered, frozen))
    learning = {shape: times for shape, times in shapes.learning.items() if times}
    largest = max(learning, key=lambda shape: shape.frames)
    per_layer = student.saved_bytes_per_layer(largest)
    frames = sum(times * shape.frames for shape, times in learning.items())
    kept = per_layer * student.config.num_layers * frames / largest.frames
    width = student.config.dim * student.tokens_per_frame
    if run.recompute_layers:
        # Of every layer its float32 input, and of one layer everything.
        kept = frames * width * 4 * student.config.num_layers + per_layer
    taken["activations"] = samples * kept
    cached = profile.sink_frames + profile.context_frames
    numbers = 2 * student.config.num_layers * width
    # Every pass with gradients keeps the cache as it saw it.
    passes = 1 + sum(learning.values())
    taken["cache"] = samples * passes * cached * numbers * (2 if run.dmd.bf16 else 4)
    return taken


def describe_costs(costs: Costs) -> str:
    """The costs as lines of text."""
    lines = ["parameters"]
    lines += [f"  {name:<20}{count / 1e9:10.3f} B" for name, count in costs.parameters.items()]
    lines.append(f"memory per GPU of {costs.gpus}, GiB (activations and cache are estimates)")
    memory = costs.memory_bytes | {"total": sum(costs.memory_bytes.values())}
    lines += [f"  {name:<20}{x / 2**30:10.2f}" for name, x in memory.items()]
    lines.append(
        f"operations per step and GPU, TFLOP ({costs.samples_per_gpu:g} clips, average rollout)"
    )
    flops = costs.flops | {"total": costs.total_flops}
    lines += [f"  {name:<20}{x / 1e12:10.1f}" for name, x in flops.items()]
    whole = costs.total_flops * costs.gpus * costs.steps
    lines.append(f"operations of all {costs.steps} steps: {whole / 1e18:.1f} EFLOP")
    return "\n".join(lines)
