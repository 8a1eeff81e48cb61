"""Everything about sampling that a checkpoint decides, as one frozen value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from joyflash_cli import config as strict
from joyflash_cli.errors import ConfigError
from joyflash_cli.types import FRAMES_PER_LATENT


@dataclass(frozen=True)
class SamplerSettings:
    """How a stream is sampled; travels with the checkpoint.

    Lengths are in latent frames. The defaults are the paper's.

    Attributes:
        block_frames: Length of a block.
        window_blocks: Blocks denoised together; ``None`` for as many as there are main steps, of
            which it must be a divisor.
        main_steps: Nominal steps 1..1000 that every block takes, noisiest first (before warping).
        sub_steps: One nominal step after each main step, taken while the stream warms up (PSB).
        psb: Whether sub-steps are taken until the first block is clean (§3.3).
        shift: Warp of the noise levels. The paper gives no value; Wan2.1 uses 5.0.
        mci: Whether a condition frame stands in front of the window (§3.4).
        mci_noise: Whether the condition frame is noised to the level of the first block.
        sink_frames: First frames of the stream, kept in the cache for ever.
        context_frames: Capacity of the cache for recent clean frames besides the sink. A pass sees
            as many of them as fit into the attention span.
        attention_span_frames: Most key frames of one pass, the condition frame not counted (D4);
            sink and window must fit.
        position_policy: Where the sink is seen from. ``relative``: directly in front of the
            context in every pass. ``absolute-update``: at its own index in the clean pass only.
            ``absolute``: at its own index in every pass.
        reset_threshold: Indices stay below it (the paper's N, §3.5); ``None`` to start every pass
            at index 0. With ``relative`` positions the value cannot change the result (D5).
        reset_rule: After the first reset, ``periodic`` counts on until the next one, ``pinned``
            resets in every pass.
        first_frame_rule: ``replace``: latent frame 0 is the reference in every input and in the
            result (LiveTalk). ``prefix``: the reference is frame 0, before the first block
            (AvatarForcing).
        clean_kv: Keys and values of a clean block: from an ``extra-pass`` at timestep 0 (K1, D3),
            from its ``last-pass`` in the window (K2), or from the ``next-pass``, which has the
            block in front and attends it: what the extra pass gives, by one pass (K3). Where a
            window pass would not see all of the block, it takes an extra pass after all.
        timestep_dtype: Precision of the timesteps the network is fed. LiveTalk was sampled with
            bfloat16-rounded timesteps and exact sigmas.
        audio_guidance: Weight of the audio in window passes; 1 is none. A distilled generator
            needs none (the paper); another value costs a second pass without the audio.
        audio_free_weight: Weight of what the prediction without audio says. Where latents are the
            change against the reference, less than 1 calms the motion that no sound explains.
        fps: Video frames per second (D8).
    """

    block_frames: int = 3
    window_blocks: int | None = None
    main_steps: tuple[int, ...] = (1000, 750, 500, 250)
    sub_steps: tuple[int, ...] = (875, 625, 375, 125)
    psb: bool = True
    shift: float = 5.0
    mci: bool = True
    mci_noise: bool = True
    sink_frames: int = 3
    context_frames: int = 6
    attention_span_frames: int = 21
    position_policy: Literal["relative", "absolute-update", "absolute"] = "relative"
    reset_threshold: int | None = None
    reset_rule: Literal["pinned", "periodic"] = "pinned"
    first_frame_rule: Literal["none", "replace", "prefix"] = "none"
    clean_kv: Literal["extra-pass", "last-pass", "next-pass"] = "extra-pass"
    timestep_dtype: Literal["float32", "bfloat16"] = "float32"
    audio_guidance: float = 1.0
    audio_free_weight: float = 1.0
    fps: int = 16

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        frames = (-math.inf, 4096)  # what is too small is told below
        strict.check_ranges(
            self,
            {
                **dict.fromkeys(("block_frames", "window_blocks"), (-math.inf, 256)),
                **dict.fromkeys(("sink_frames", "context_frames"), frames),
                "attention_span_frames": (-math.inf, 1 << 20),
                "reset_threshold": (-math.inf, 1 << 24),
                "shift": (-math.inf, 1000.0),
                "fps": (-math.inf, 240),
                **dict.fromkeys(("audio_guidance", "audio_free_weight"), (-1000.0, 1000.0)),
            },
        )
        self._check_steps()
        minimum = {"block_frames": 1, "sink_frames": 0, "context_frames": 0, "fps": 1}
        for name, least in minimum.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least {least} is needed")
        self._check_window()
        if self.shift <= 0:
            raise ConfigError(f"shift is {self.shift}; a positive number is needed")
        if self.reset_rule == "periodic" and self.reset_threshold is None:
            raise ConfigError("reset_rule 'periodic' needs a reset_threshold")
        if self.reset_threshold is not None:
            if self.position_policy != "relative":
                raise ConfigError("reset_threshold needs the position policy 'relative'")
            if self.reset_threshold < self.layout_frames:
                raise ConfigError(
                    f"reset_threshold is {self.reset_threshold}; sink, context and window need "
                    f"{self.layout_frames} indices"
                )

    def _check_window(self) -> None:
        """Refuse a window that is never full, and spans that a pass would exceed or never use."""
        num_steps = len(self.main_steps)
        if self.num_window_blocks < 1:
            raise ConfigError(f"window_blocks is {self.window_blocks}; at least 1 is needed")
        if num_steps % self.num_window_blocks:
            possible = [str(n) for n in range(1, num_steps + 1) if num_steps % n == 0]
            raise ConfigError(
                f"window_blocks is {self.window_blocks}; with {num_steps} main steps, windows of "
                f"{', '.join(possible)} blocks can be filled"
            )
        span = self.attention_span_frames
        least = self.sink_frames + self.window_frames
        if span < least:
            raise ConfigError(
                f"attention_span_frames is {span}; at least {least} is needed for the sink "
                f"({self.sink_frames}) and the window ({self.window_frames})"
            )
        # The passes over one block see most: the clean one may leave out the sink.
        most = span - self.block_frames
        if self.clean_kv == "last-pass":
            most -= self.sink_frames
        if self.context_frames > most:
            raise ConfigError(
                f"context_frames is {self.context_frames}; with attention_span_frames {span} no "
                f"pass sees more than {most}"
            )

    def _check_steps(self) -> None:
        steps = self.main_steps
        if not steps or any(not 1 <= step <= 1000 for step in steps + self.sub_steps):
            raise ConfigError(f"main_steps {steps} and sub_steps must lie in 1..1000")
        if any(a <= b for a, b in zip(steps, steps[1:], strict=False)):
            raise ConfigError(f"main_steps {steps} must strictly decrease")
        if self.sub_steps:
            lower = (*steps[1:], 0)
            if len(self.sub_steps) != len(steps) or any(
                not low < sub < main
                for main, sub, low in zip(steps, self.sub_steps, lower, strict=False)
            ):
                raise ConfigError(
                    f"sub_steps {self.sub_steps} must lie between the main steps {steps}, one "
                    "after each"
                )
        elif self.psb:
            raise ConfigError("psb needs sub_steps", hint="give sub_steps or set psb to false")

    def for_size(self, width: int, height: int) -> "SamplerSettings":
        """The settings for pictures of this size, in pixels: the same ones."""
        return self

    @property
    def needs_audio_free_pass(self) -> bool:
        """Whether window passes run a second time without audio."""
        return (self.audio_guidance, self.audio_free_weight) != (1.0, 1.0)

    @property
    def leads_next_pass(self) -> bool:
        """Whether a clean block is computed along with the next window pass."""
        in_window = self.attention_span_frames - self.window_frames - self.sink_frames
        is_seen = min(self.context_frames, in_window) >= self.block_frames
        return self.clean_kv == "next-pass" and is_seen

    @property
    def passes_per_block(self) -> int:
        """Window passes that a block takes in the steady state, both with and without audio."""
        passes = len(self.main_steps) // self.num_window_blocks
        return passes * (2 if self.needs_audio_free_pass else 1)

    @property
    def num_window_blocks(self) -> int:
        """Blocks of a full window."""
        return len(self.main_steps) if self.window_blocks is None else self.window_blocks

    @property
    def window_frames(self) -> int:
        """Latent frames of a full window."""
        return self.num_window_blocks * self.block_frames

    @property
    def cached_frames(self) -> int:
        """Latent frames of a full cache."""
        return self.sink_frames + self.context_frames

    @property
    def clean_level(self) -> int:
        """Fine level of a clean block; main step i starts at level 2i."""
        return 2 * len(self.main_steps)

    @property
    def entry_level(self) -> int:
        """Fine level the newest block must have reached before the next one enters."""
        return 2 * (len(self.main_steps) // self.num_window_blocks)

    @property
    def first_block_frame(self) -> int:
        """Latent frame at which block 0 begins."""
        return 1 if self.first_frame_rule == "prefix" else 0

    @property
    def layout_frames(self) -> int:
        """Indices that the longest pass needs: sink, context and window, within the span."""
        in_window = min(
            self.context_frames, self.attention_span_frames - self.window_frames - self.sink_frames
        )
        window = self.sink_frames + max(in_window, 0) + self.window_frames
        clean = self.sink_frames + self.context_frames + self.block_frames
        return max(window, min(clean, self.attention_span_frames))

    def block_start(self, block_index: int) -> int:
        """First latent frame of a block."""
        return self.first_block_frame + block_index * self.block_frames

    def num_latents(self, num_blocks: int) -> int:
        """Latent frames that this many blocks cover, those given before block 0 included."""
        return self.block_start(num_blocks)

    def block_of(self, latent: int) -> int:
        """Block that a latent frame lies in; those given before block 0 count as its own."""
        return max(0, (latent - self.first_block_frame) // self.block_frames)

    def oldest_block(self, start: int) -> int:
        """Block at or after latent frame ``start``: a condition frame belongs to what follows."""
        return max(0, -(-(start - self.first_block_frame) // self.block_frames))

    def video_start(self, block_index: int) -> int:
        """First video frame that leaves with a block; given frames leave with block 0."""
        if block_index == 0:
            return 0
        return FRAMES_PER_LATENT * (self.block_start(block_index) - 1) + 1

    def num_blocks(self, num_video_frames: int) -> int:
        """Blocks to sample for this many video frames, at least one; the surplus is dropped.

        Raises:
            ConfigError: If the number is not positive.
        """
        if num_video_frames < 1:
            raise ConfigError(f"A stream of {num_video_frames} video frames has no latents.")
        num_latents = 1 + -(-(num_video_frames - 1) // FRAMES_PER_LATENT)
        return -(-max(1, num_latents - self.first_block_frame) // self.block_frames)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return strict.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SamplerSettings":
        """The profile of ``to_dict``; unknown keys raise ``ConfigError``."""
        return strict.from_dict(cls, values)


PAPER = SamplerSettings(clean_kv="next-pass")
"""JoyAvatar-Flash as read from the paper; the next pass gives what an extra one would."""

TINY = SamplerSettings(fps=25, first_frame_rule="replace", audio_guidance=2.0)
"""The embedded model: the paper's sampler at 25 frames per second, from the picture itself.

It is not distilled yet, so the audio is guided; the weight was chosen by the held-out lip
correlation and by looking at frames.
"""
