"""The stage that samples blocks: behind a cache in a rolling window, or segment by segment.

It is a generator for a thread of its own, which it leaves in inference mode between its items.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from joyflash_cli.render.job import StreamJob, device_errors, static_conditioning
from joyflash_cli.render.sound_feed import SoundFeed
from joyflash_cli.render.stream import SampledBlock
from joyflash_cli.types import LatentBlock
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    import torch

    from joyflash_cli.conditioning.stream import StaticConditioning
    from joyflash_cli.sampler.segment_settings import SegmentSettings
    from joyflash_cli.sampler.settings import SamplerSettings


def with_sampler_options(
    files: CheckpointFiles, names: Iterable[str]
) -> tuple[CheckpointFiles, tuple[str, ...]]:
    """The checkpoint with its sampler settings changed, and a sentence for each untrained change.

    Args:
        files: The checkpoint; not changed on disk.
        names: Of ``sampler.options.SAMPLER_OPTIONS``.

    Raises:
        UsageError: For a name that does not exist.
        ConfigError: When the options contradict each other.
    """
    from joyflash_cli.sampler.options import untrained_options, with_options

    chosen = tuple(dict.fromkeys(names))
    own = files.description.sampler
    changed = with_options(own, chosen)
    description = files.description.with_sampler(changed)
    return replace(files, description=description), untrained_options(own, chosen)


def sample_stage(
    job: StreamJob, feed: SoundFeed, static: "StaticConditioning | None" = None
) -> Iterator[SampledBlock]:
    """Blocks as they become clean, until the sound has ended and they cover it.

    Args:
        job: The stream.
        feed: The sound, nothing of it heard yet.
        static: Of ``static_conditioning``, where another process has encoded it.

    Raises:
        AudioError: When the sound cannot be used.
        DeviceError: When a block has numbers that are not finite, or memory runs out.
    """
    import torch

    from joyflash_cli.sampler.segment_settings import SegmentSettings

    request, settings = job.request, job.settings
    device = job.placement.device
    with torch.inference_mode(), device_errors(job.planned, job.placement):
        static = static or static_conditioning(job)
        if isinstance(settings, SegmentSettings):
            blocks = _segments(job, settings, feed, static)
        else:
            blocks = _rolling(job, settings, feed, static)
        for block in blocks:
            start = settings.video_start(block.index)
            stop = settings.video_start(block.index + 1)
            while not feed.covers_frame(stop - 1) and not feed.ended:
                feed.pull()
            total = (
                feed.num_frames if feed.num_frames is not None else request.num_frames(settings.fps)
            )
            if total is not None:
                stop = min(stop, total)
            if stop <= start:
                return  # sampled ahead of a sound that has ended
            yield SampledBlock(
                block=block,
                first_frame=start,
                num_frames=stop - start,
                num_blocks=None if total is None else settings.num_blocks(total),
                sound=feed.take(stop),
                event=_recorded_event(device),
            )


def _rolling(
    job: StreamJob, settings: "SamplerSettings", feed: SoundFeed, static: "StaticConditioning"
) -> Iterator[LatentBlock]:
    """Blocks of a rolling window behind a cache."""
    from joyflash_cli.conditioning.stream import StreamConditioning
    from joyflash_cli.render.file_rows import encoder_for
    from joyflash_cli.sampler.stream import Stream

    rule = job.files.description.conditioning.audio_windows
    return Stream.start(
        job.parts.transformer,
        settings,
        source=StreamConditioning(
            feed,
            encoder_for(job.request, job.parts.front_end, rule, settings),
            rule,
            static=static,
            settings=settings,
            look_ahead_blocks=job.request.look_ahead_blocks,
            device=job.placement.device,
            dtype=job.placement.dtype,
        ),
        noise=job.noise,
        latent_shape=job.noise.shape,
        reference_latent=job.reference_latent,
    ).blocks()


def _segments(
    job: StreamJob, settings: "SegmentSettings", feed: SoundFeed, static: "StaticConditioning"
) -> Iterator[LatentBlock]:
    """Segments that attend both ways, which hold the frames that they show."""
    from joyflash_cli.conditioning.segments import SegmentConditioning
    from joyflash_cli.render.file_rows import encoder_for
    from joyflash_cli.sampler.segments import SegmentStream

    rule = job.files.description.conditioning.audio_windows
    num_frames = job.request.num_frames(settings.fps)
    source = SegmentConditioning(
        feed,
        encoder_for(job.request, job.parts.front_end, rule, settings),
        rule,
        static=static,
        settings=settings,
        num_blocks=None if num_frames is None else settings.num_blocks(num_frames),
        device=job.placement.device,
        dtype=job.placement.dtype,
    )
    return SegmentStream(
        job.parts.transformer,
        settings,
        source,
        job.noise,
        job.parts.codec,
        job.reference,
        _of_a_segment(job.seen_latents.float(), settings.segment_frames),
    ).blocks()


def _of_a_segment(latents: "torch.Tensor", num_frames: int) -> "torch.Tensor":
    """The reference's latents of a whole segment; a single one is that of every frame."""
    if latents.ndim == 5:
        return latents
    return latents[:, None].expand(-1, num_frames, -1, -1, -1)


def _recorded_event(device: "torch.device") -> Any:
    import torch

    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event
