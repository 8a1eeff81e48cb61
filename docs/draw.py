"""Draws the figures of the documentation from the sampler's own code.

    python docs/draw.py            writes docs/figures/*.svg

Nothing in them is typed in: schedules, noise levels and positions are those of the functions that
render. A test draws them again and compares.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

from joyflash_cli.sampler.psb import noise_levels, scheduled_iterations
from joyflash_cli.sampler.settings import PAPER, SamplerSettings
from joyflash_cli.sampler.solver import flow_match_table
from joyflash_cli.sampler.urcr import pass_positions

FIGURES = Path(__file__).resolve().parent / "figures"
INK, SOFT, LINE = "#1b2130", "#5d6779", "#d9dee7"
BLUE, ORANGE, GREEN, GREY = "#2557d6", "#d9730d", "#1a7f4b", "#98a2b5"
STYLE = (
    "text{font:13px system-ui,'Segoe UI',Roboto,sans-serif;fill:#1b2130}"
    ".s{fill:#5d6779;font-size:12px}.e{text-anchor:end}.m{text-anchor:middle}"
)


def svg(width: float, height: float, parts: Iterable[str], title: str) -> str:
    """One drawing on a white card, so that it reads in light and dark pages."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n"
        f'<rect width="{width:g}" height="{height:g}" rx="10" fill="#fff"/>\n{body}\n</svg>\n'
    )


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Words at a place; ``kind`` is s (small), e (ends here), m (middle here)."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, *, line: str = "none") -> str:
    """A rectangle with soft corners."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" '
        f'fill="{fill}" stroke="{line}"/>'
    )


def stroke(points: Iterable[tuple[float, float]], colour: str, *, dash: str = "") -> str:
    """A line through points; grid lines are thin."""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    width = 1 if colour == LINE else 2
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed}/>'


def noisy(sigma: float) -> str:
    """Blue for clean, paler towards pure noise."""
    clean, noise = (37, 87, 214), (232, 236, 244)
    return "#" + "".join(
        f"{round(c + (n - c) * sigma):02x}" for c, n in zip(clean, noise, strict=True)
    )


def draw_schedule(profile: SamplerSettings = PAPER, *, num_blocks: int = 9) -> str:
    """Which block is in the window at which iteration, and how noisy it is there."""
    levels = noise_levels(profile)
    iterations = [it for it in scheduled_iterations(num_blocks, profile)]
    shown = [it for it in iterations if it.index <= num_blocks + 7]
    left, top, size = 78, 56, 44
    parts = [
        text(20, 28, "Noise of each block before every iteration; framed: the block that leaves")
    ]
    for it in shown:
        x = left + (it.index - 1) * size
        parts.append(text(x + size / 2, top - 6, str(it.index), "s m"))
        for block, (before, _) in it.levels.items():
            if block >= num_blocks:
                continue
            sigma = levels[before].sigma
            y = top + block * (size - 14)
            line = ORANGE if it.emitted == block else "none"
            parts.append(box(x + 2, y + 2, size - 4, size - 18, noisy(sigma), line=line))
            colour = "#fff" if sigma < 0.5 else INK
            parts.append(
                f'<text x="{x + size / 2:g}" y="{y + 19:g}" class="m" style="font-size:11px;'
                f'fill:{colour}">{sigma:.2f}</text>'
            )
    for block in range(num_blocks):
        steps = sum(block in it.levels for it in iterations)
        y = top + block * (size - 14) + 19
        parts.append(text(left - 8, y, f"block {block}", "s e"))
        parts.append(text(left + len(shown) * size + 8, y, f"{steps} steps", "s"))
    width = left + len(shown) * size + 70
    height = top + num_blocks * (size - 14) + 16
    return svg(width, height, parts, "Schedule of progressive step bootstrapping")


def draw_motion(profile: SamplerSettings = PAPER) -> str:
    """What one pass over the window sees: sink, context, condition frame, window."""
    levels = noise_levels(profile)
    steady = list(scheduled_iterations(14, profile))[12]
    blocks = sorted(steady.levels)
    first = blocks[0]
    size, frames = 30, profile.block_frames
    span = profile.attention_span_frames - profile.window_frames - profile.sink_frames
    context = list(range(first * frames - min(profile.context_frames, span), first * frames))
    rows = [("sink", GREEN, list(range(profile.sink_frames)), 0.0), ("context", GREY, context, 0.0)]
    head = levels[steady.levels[first][0]]
    parts, x, y = (
        [text(20, 28, f"One pass over the window: blocks {first} to {blocks[-1]}")],
        20.0,
        74,
    )
    for name, colour, group, _ in rows:
        parts.append(text(x, y - 10, name, "s"))
        for frame in group:
            parts += [box(x, y, size - 3, 46, colour), _frame_number(x, y, size, frame, "#fff")]
            x += size
        x += 16
    parts.append(text(x - 4, y - 10, "condition", "s"))
    parts += [
        box(x + 8, y, size - 3, 46, noisy(head.sigma), line=ORANGE),
        _frame_number(x + 8, y, size, first * frames - 1, INK),
        text(x - 4, y + 66, f"σ {head.sigma:.2f}", "s"),
    ]
    x += size + 40
    for block in blocks:
        sigma = levels[steady.levels[block][0]].sigma
        parts.append(text(x, y - 10, f"block {block}", "s"))
        parts.append(text(x, y + 66, f"σ {sigma:.2f}", "s"))
        for offset in range(frames):
            parts += [
                box(x, y, size - 3, 46, noisy(sigma)),
                _frame_number(x, y, size, block * frames + offset, "#fff" if sigma < 0.5 else INK),
            ]
            x += size
        x += 8
    below = (
        "Numbers are latent frames. The condition frame is the last clean frame, noised as the "
        "first block of the window is."
    )
    parts.append(text(20, y + 92, below, "s"))
    return svg(x + 12, y + 110, parts, "Motion condition injection")


def _frame_number(x: float, y: float, size: float, frame: int, colour: str) -> str:
    return (
        f'<text x="{x + (size - 3) / 2:g}" y="{y + 28:g}" class="m" '
        f'style="font-size:11px;fill:{colour}">{frame}</text>'
    )


def draw_positions(*, num_blocks: int = 60) -> str:
    """The largest rotary index that a pass uses, block after block."""
    cases = (
        ("counting on for ever", replace(PAPER, position_policy="absolute"), GREY, "5 5"),
        ("reset at 48, then pinned", replace(PAPER, reset_threshold=48), ORANGE, ""),
        ("every pass from 0", PAPER, BLUE, ""),
    )
    left, top, width, height = 58, 50, 620, 200
    most = max(max(largest_indices(profile, num_blocks)) for _, profile, _, _ in cases)
    parts = [text(20, 28, "Largest temporal index in the pass over each block's window")]
    for mark in range(0, most + 1, 60):
        y = top + height * (1 - mark / most)
        parts += [
            stroke([(left, y), (left + width, y)], LINE),
            text(left - 8, y + 4, str(mark), "s e"),
        ]
    for row, (name, profile, colour, dash) in enumerate(cases):
        indices = largest_indices(profile, num_blocks)
        points = [
            (left + width * i / (num_blocks - 1), top + height * (1 - index / most))
            for i, index in enumerate(indices)
        ]
        parts.append(stroke(points, colour, dash=dash))
        y = top + 14 + row * 20
        parts += [stroke([(left + 14, y - 4), (left + 40, y - 4)], colour, dash=dash),
                  text(left + 48, y, name, "s")]  # fmt: skip
    parts.append(text(left + width, top + height + 22, f"block {num_blocks - 1}", "s e"))
    parts.append(text(left, top + height + 22, "block 0", "s"))
    return svg(left + width + 24, top + height + 40, parts, "Rotary positions with a cache reset")


def largest_indices(profile: SamplerSettings, num_blocks: int) -> list[int]:
    """Of the joint pass over the window that starts at each block."""
    found, base, size = [], 0, profile.block_frames
    for block in range(num_blocks):
        start = block * size
        sink = range(min(profile.sink_frames, start))
        context = range(max(len(sink), start - profile.context_frames), start)
        own = range(start, start + profile.window_frames)
        layout = pass_positions(
            profile, "window", sink=sink, context=context, own=own, start=start, base=base
        )
        base = layout.base
        found.append(max((*layout.context, *layout.own)))
    return found


def draw_shift() -> str:
    """Share of noise by nominal step, for the shift of this family and for none."""
    left, top, width, height = 58, 50, 420, 220
    parts = [text(20, 28, "Share of noise σ at each nominal step")]
    for mark in (0.0, 0.5, 1.0):
        y = top + height * (1 - mark)
        parts += [
            stroke([(left, y), (left + width, y)], LINE),
            text(left - 8, y + 4, f"{mark:g}", "s e"),
        ]
    for shift, colour in ((1.0, GREY), (PAPER.shift, BLUE)):
        table = flow_match_table(shift)
        points = [
            (left + width * (1 - step / 1000),
             top + height * (1 - float(table.sigmas[table.step_index(step)])))
            for step in range(1000, 0, -20)
        ]  # fmt: skip
        parts.append(stroke(points, colour))
    levels = noise_levels(PAPER)
    for index, step in enumerate(PAPER.main_steps):
        x = left + width * (1 - step / 1000)
        y = top + height * (1 - levels[2 * index].sigma)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{BLUE}"/>')
    for index, step in enumerate(PAPER.sub_steps):
        x = left + width * (1 - step / 1000)
        y = top + height * (1 - levels[2 * index + 1].sigma)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#fff" stroke="{ORANGE}" '
            'stroke-width="2"/>'
        )
    parts += [
        text(left, top + height + 22, "1000", "s"),
        text(left + width, top + height + 22, "0", "s e"),
        text(left + 12, top + height - 44, f"blue: shift {PAPER.shift:g}, grey: none", "s"),
        text(left + 12, top + height - 24, "dots: main steps, rings: sub-steps", "s"),
    ]
    return svg(left + width + 24, top + height + 40, parts, "Noise levels")


FIGURE_OF: dict[str, Callable[[], str]] = {
    "schedule.svg": draw_schedule,
    "motion.svg": draw_motion,
    "positions.svg": draw_positions,
    "noise.svg": draw_shift,
}


def main() -> None:
    """Writes every figure."""
    FIGURES.mkdir(exist_ok=True)
    for name, draw in FIGURE_OF.items():
        (FIGURES / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
