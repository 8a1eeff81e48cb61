"""How many bytes pictures take on their way: of the codec, and of frames until they are written."""

from dataclasses import dataclass

from joyflash_cli.codec.config import WanCodecConfig
from joyflash_cli.media.inputs.framing import FramingRule
from joyflash_cli.render.memory import FLOAT32_BYTES, CodecCost, CodecMemory
from joyflash_cli.render.placement import FAST_CODEC, Placement, fast_decoder_dtype
from joyflash_cli.streaming import QUEUE_CAPACITY
from joyflash_cli.types import FRAMES_PER_LATENT
from joyflash_cli.weights.store import CheckpointFiles
from joyflash_cli.weights.tensors import num_parameters

WAN_DECODING = CodecCost(state=2364.5, work=4513.6)
"""The Wan 2.1 VAE, in numbers per pixel."""

WAN_PICTURE_WORK = 984.3
"""Its encoder on one picture."""

WAN_CLIP_WORK = 3557.6
"""Its encoder on the padded clip of image-to-video, four frames at once."""

TAEHV_DECODING = CodecCost(state=84.0, work=660.0)
"""The tiny decoder."""

TINY_DECODING = CodecCost(state=19.0, work=160.0)
"""The embedded model's codec, on the square that it sees."""

RGB_BYTES = 3
ENCODER_FRAMES = 16
"""Frames that x264 keeps, half the bytes each, and what is converted for it."""


@dataclass(frozen=True)
class PlannedRun:
    """What is to be run, as far as memory cares.

    Attributes:
        files: The checkpoint; only descriptions and headers are read.
        size_px: ``(width, height)`` of the video.
        prompt: Text, empty for the checkpoint's default; a new one needs the text encoder.
    """

    files: CheckpointFiles
    size_px: tuple[int, int]
    prompt: str = ""

    @property
    def seen_px(self) -> tuple[int, int]:
        """``(width, height)`` of what the model sees: the framed square, or all of the video."""
        rule = self.files.description.framing
        return (rule.size_px, rule.size_px) if isinstance(rule, FramingRule) else self.size_px

    @property
    def num_pixels(self) -> int:
        """Pixels of what the model sees."""
        return self.seen_px[0] * self.seen_px[1]


def latent_grid(run: PlannedRun) -> tuple[int, int]:
    """Rows and columns of a latent frame."""
    stride = run.files.description.codec.spatial_stride
    return run.seen_px[1] // stride, run.seen_px[0] // stride


def codec_memory(run: PlannedRun, placement: Placement) -> CodecMemory:
    """What encoding the picture and decoding frames takes."""
    from joyflash_cli.codec.composition import canvas_bytes

    weights = num_parameters(run.files.shards("codec")) * FLOAT32_BYTES
    per_pixel = run.num_pixels * FLOAT32_BYTES
    canvas = 0
    codec = run.files.description.codec
    if not isinstance(codec, WanCodecConfig):
        cost, encoding = TINY_DECODING, TINY_DECODING.work
        canvas = canvas_bytes(run.size_px)
    else:
        width = codec.width_share
        is_clip = run.files.description.conditioning.image_convention == "wan-i2v"
        cost = WAN_DECODING.times(width)
        encoding = (WAN_CLIP_WORK if is_clip else WAN_PICTURE_WORK) * width
    state, work = cost.state * per_pixel, cost.work * per_pixel
    if placement.options.fast_decode:
        number_bytes = fast_decoder_dtype(placement.codec_device).itemsize
        weights += num_parameters(run.files.shards(FAST_CODEC)) * number_bytes
        state = TAEHV_DECODING.state * run.num_pixels * number_bytes
        work = TAEHV_DECODING.work * run.num_pixels * number_bytes
    return CodecMemory(weights, int(state) + canvas, int(work), int(encoding * per_pixel))


def frames_bytes(run: PlannedRun) -> int:
    """Frames of the blocks between decoder and file: one made, some ready, one written."""
    width, height = run.size_px
    per_block = FRAMES_PER_LATENT * run.files.description.sampler.block_frames
    num_frames = (QUEUE_CAPACITY + 2) * per_block + ENCODER_FRAMES
    return num_frames * RGB_BYTES * width * height
