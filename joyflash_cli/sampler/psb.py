"""Progressive step bootstrapping (PSB): who is in the window at which noise level.

Paper §3.3; decisions D1 and D2. Levels are integers g in 0..2K for K main steps: main step i
starts at level 2i, its sub-step at 2i + 1, and 2K is clean. The whole window moves in lock step,
by one level while nothing is clean yet and by two afterwards, and a block enters as soon as the
newest one has moved away far enough. For the paper's window of four this gives 8, 7, 6, 5 and then
4 steps, entries at iterations 1, 3, 5, 7, 9, 10, 11, ... and one clean block per iteration from
the eighth on. Without sub-steps it is Rolling Forcing, with a window of one block Self-Forcing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.solver import flow_match_table


@dataclass(frozen=True)
class NoiseLevel:
    """One level of the grid.

    Attributes:
        timestep: What the transformer is fed, 0..1000.
        sigma: Share of noise, 0..1.
    """

    timestep: float
    sigma: float


CLEAN = NoiseLevel(timestep=0.0, sigma=0.0)
"""The level of finished latents."""


def noise_levels(profile: SamplerSettings) -> dict[int, NoiseLevel]:
    """Fine level g to noise, nominal steps warped by the profile's shift (D2).

    Odd levels exist only where the profile has sub-steps; the last entry is clean.
    """
    table = flow_match_table(profile.shift)
    nominal = {2 * index: step for index, step in enumerate(profile.main_steps)}
    nominal |= {2 * index + 1: step for index, step in enumerate(profile.sub_steps)}
    levels = {}
    for level, step in sorted(nominal.items()):
        entry = table.step_index(step)
        timestep = table.timesteps[entry].to(getattr(torch, profile.timestep_dtype))
        levels[level] = NoiseLevel(float(timestep), float(table.sigmas[entry]))
    levels[profile.clean_level] = CLEAN
    return levels


def admits_block(levels: Sequence[int], profile: SamplerSettings) -> bool:
    """Whether a new block may enter a window whose blocks are at ``levels``, oldest first."""
    if not levels:
        return True
    return len(levels) < profile.num_window_blocks and levels[-1] >= profile.entry_level


def level_stride(num_emitted: int, profile: SamplerSettings) -> int:
    """Levels that every block of the window moves in this iteration."""
    return 1 if profile.psb and num_emitted == 0 else 2


@dataclass(frozen=True)
class ScheduledIteration:
    """One iteration of the table.

    Attributes:
        index: From 1.
        levels: Block index to its level before and after the iteration, oldest block first.
        emitted: The block that is clean afterwards, if any.
    """

    index: int
    levels: dict[int, tuple[int, int]]
    emitted: int | None


def scheduled_iterations(num_blocks: int, profile: SamplerSettings) -> Iterator[ScheduledIteration]:
    """The whole schedule of a stream of ``num_blocks`` blocks, without running a model."""
    window: dict[int, int] = {}
    entered = emitted = index = 0
    while entered < num_blocks or window:
        index += 1
        if entered < num_blocks and admits_block(list(window.values()), profile):
            window[entered] = 0
            entered += 1
        stride = level_stride(emitted, profile)
        moves = {block: (level, level + stride) for block, level in window.items()}
        window = {block: after for block, (_, after) in moves.items()}
        clean = next((b for b, level in window.items() if level >= profile.clean_level), None)
        if clean is not None:
            del window[clean]
            emitted += 1
        yield ScheduledIteration(index, moves, clean)
