"""What a run needs of memory against what is free, told before anything large is read.

Weights are counted from the headers of their files and the cache from its sizes, exactly. What a
pass of the transformer or a step of the codec has alive was measured and scales with tokens and
pixels. Nothing is tried out. An allowance for workspaces and fragmentation is added: on a CPU from
measurements with benchmarks/full_size_step.py, on a GPU a guess.
"""

import math
from collections import Counter
from dataclasses import dataclass, replace

from joyflash_cli.codec.config import TILE_PX, WanCodecConfig
from joyflash_cli.errors import DeviceError
from joyflash_cli.media.inputs.framing import FramingRule
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.render.device import FreeMemory, free_memory, has_bfloat16
from joyflash_cli.render.placement import FAST_CODEC, Placement, fast_decoder_dtype
from joyflash_cli.sampler.segment_settings import AnySettings, SegmentSettings
from joyflash_cli.streaming import QUEUE_CAPACITY
from joyflash_cli.types import FRAMES_PER_LATENT
from joyflash_cli.weights.store import CheckpointFiles
from joyflash_cli.weights.tensors import num_parameters, tensor_shapes

FEED_FORWARD_NUMBERS = 19.0
ATTENTION_NUMBERS = 6.2
"""Alive in the largest layer of a pass, in multiples of the width: per token that is computed while
the feed-forward part runs, and per token that is attended while attention runs. Measured on the
1.3B geometry at 256 x 256 and 832 x 480 px; the 14B one takes up to a third less."""

CLIP_TOKENS = 257
"""Tokens of the CLIP picture encoder (16 x 16 patches and one for all)."""

WAN_DECODING, WAN_PICTURE, WAN_CLIP = 6878.1, 984.3, 3557.6
"""Numbers per pixel of a frame that the Wan 2.1 VAE holds at most: decoding, with its state;
encoding a picture; and encoding the padded clip of image-to-video, four frames at once."""

TAEHV_DECODING, TAEHV_ENCODING = 744.0, 1250.0
TINY_DECODING, TINY_PICTURE = 179.0, 160.0
"""The same of the tiny decoder, and of the embedded model's codec on the square that it sees."""

SEGMENT_COPIES = 3
"""Of the decoded frames of a segment in float32, while their colours are matched."""

RGB_BYTES = 3
ENCODER_FRAMES = 16
"""Frames that x264 keeps, half the bytes each, and what is converted for it."""

FLOAT32_BYTES = 4
ENCODER_BYTES = 2
"""Text and picture encoder are loaded in half precision."""

GPU_ALLOWANCE_BYTES, GPU_ALLOWANCE = 256 << 20, 0.05
"""Workspaces of libraries and holes between tensors on a GPU, fixed and as a share: a guess."""

HEAP_HOLES, HEAP_HOLES_BYTES = 2.0, 480 << 20
"""On a CPU: what the C library's heap keeps of freed activations, and where that ends, because
larger tensors are given back at once. The same run keeps 0.3 GB once and 0.7 GB another time."""

GIGABYTE = 1e9


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
    def settings(self) -> AnySettings:
        """How the checkpoint is sampled at this size."""
        return self.files.description.sampler.for_size(*self.size_px)

    @property
    def seen_px(self) -> tuple[int, int]:
        """``(width, height)`` of what the model sees: the framed square, or all of the video."""
        rule = self.files.description.framing
        return (rule.size_px, rule.size_px) if isinstance(rule, FramingRule) else self.size_px


@dataclass(frozen=True)
class MemoryNeed:
    """What a run takes of one device.

    Attributes:
        device: Its name.
        parts: What is alive together when most is, by name, in bytes.
        free: What the device has now; ``None`` where it does not say.
    """

    device: str
    parts: dict[str, int]
    free: FreeMemory | None

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether that is free; unknown counts as yes."""
        return self.free is None or self.total <= self.free.free

    def describe(self) -> str:
        """``needs 9.1 of 23.4 GB free on cuda:0``."""
        if self.free is None:
            return f"needs {_gigabytes(self.total)} on {self.device}"
        free = _gigabytes(self.free.free)
        return f"needs {self.total / GIGABYTE:.1f} of {free} free on {self.device}"


def memory_needs(run: PlannedRun, placement: Placement) -> list[MemoryNeed]:
    """What the run takes of every device it uses, the transformer's first.

    Raises:
        CheckpointError: When a header cannot be read.
        ConfigError: When the description has a wrong entry, or the size does not fit it.
    """
    import torch

    device, codec_device, host = placement.device, placement.codec_device, torch.device("cpu")
    places = (device, codec_device, host)
    sampling: dict[torch.device, Counter[str]] = {place: Counter() for place in places}
    encoding: dict[torch.device, Counter[str]] = {place: Counter() for place in places}
    resident, unplaced = _transformer_bytes(run.files, placement)
    audio_encoder = num_parameters(run.files.shards("front_end")) * FLOAT32_BYTES
    loaded = {"transformer": resident, "audio encoder": audio_encoder}
    for rank in range(placement.num_samplers):
        place = placement.of_rank(rank).device if rank else device
        # Several processes of one CPU add up.
        sampling.setdefault(place, Counter()).update(loaded | _stream_bytes(run, placement))
        encoding.setdefault(place, Counter()).update(loaded)
    if device.type != "cpu":
        # Weights pass through the CPU's memory on their way; offloaded ones stay there.
        encoding[host]["transformer"] = unplaced
        if placement.offloads_layers:
            sampling[host]["transformer"] = unplaced
    home = device if placement.options.gpus == 1 else codec_device
    encoder = "text or picture encoder" if placement.text_device == home else "text encoder"
    encoding[placement.text_device][encoder] = _encoder_bytes(run)
    weights, decoding, picture = _codec_bytes(run, placement)
    sampling[codec_device]["codec"] = weights + decoding
    encoding[codec_device]["codec"] = weights + picture
    if device == codec_device and isinstance(run.settings, SegmentSettings):
        # A segment is denoised first and decoded then: the more of the two counts.
        rest = sampling[device]["activations"] - decoding
        sampling[device]["activations"] = max(rest, 0)
    # Of the blocks between decoder and file: one made, some ready, one written.
    num_frames = (QUEUE_CAPACITY + 2) * FRAMES_PER_LATENT * run.settings.block_frames
    num_pixels = (num_frames + ENCODER_FRAMES) * math.prod(run.size_px)
    sampling[host]["frames"] = RGB_BYTES * num_pixels
    needs = []
    for place, parts in sampling.items():
        # Frames are made when the conditioning is there: one moment or the other takes more.
        most = max(parts, encoding[place], key=lambda moment: sum(moment.values()))
        if place.type == "cpu":
            allowance = heap_holes_bytes(parts.get("activations", 0))
        else:
            allowance = GPU_ALLOWANCE_BYTES + int(sum(most.values()) * GPU_ALLOWANCE)
        needs.append(MemoryNeed(str(place), {**most, "allowance": allowance}, free_memory(place)))
    return needs


def heap_holes_bytes(activations: int) -> int:
    """What a process on a CPU takes beyond the tensors that are alive."""
    return min(int(activations * HEAP_HOLES), HEAP_HOLES_BYTES)


def keys_values_bytes(config: TransformerConfig, num_tokens: int, element_bytes: int) -> int:
    """Keys and values of some tokens in every layer."""
    return 2 * config.num_layers * num_tokens * config.dim * element_bytes


def static_bytes(config: TransformerConfig, element_bytes: int) -> int:
    """States of what does not change along the stream, and their keys and values."""
    states = num_tokens = 0
    if config.text_dim is not None:
        states += config.text_len * config.text_dim
        num_tokens += config.text_len
    if config.image_token_dim is not None:
        states += CLIP_TOKENS * config.image_token_dim
        num_tokens += CLIP_TOKENS
    if config.face_attention is not None:
        num_tokens += config.face_attention.num_tokens
    return states * element_bytes + keys_values_bytes(config, num_tokens, element_bytes)


def activation_bytes(
    config: TransformerConfig,
    settings: AnySettings,
    tokens_per_frame: int,
    element_bytes: int,
) -> int:
    """What the larger of the two passes has alive behind a full cache, beside cache and weights.

    In the last layer all keys and values that a pass hands out are there, too: those of a finished
    block, or of the whole window where the last pass over a block gives them.
    """
    freed = 0
    if isinstance(settings, SegmentSettings):
        passes = [(settings.segment_frames, 0)]
    else:
        window, block = settings.window_frames + int(settings.mci), settings.block_frames
        if settings.leads_next_pass:
            # A layer gives up the window's keys and values before its feed-forward part runs; less
            # is seen of it in small models.
            passes, freed = [(block + window, block)], window
        elif settings.clean_kv == "last-pass":
            passes = [(window, window)]
        else:
            passes = [(window, 0), (block, block)]
    alive = max(
        max(
            FEED_FORWARD_NUMBERS * own - freed,
            ATTENTION_NUMBERS * (own + settings.cached_frames),
        )
        + 2 * config.num_layers * handed_out
        for own, handed_out in passes
    )
    return int(alive * tokens_per_frame * config.dim * element_bytes)


def _stream_bytes(run: PlannedRun, placement: Placement) -> dict[str, int]:
    """What sampling takes besides the weights, once window and cache are full."""
    description = run.files.description
    config, settings = description.transformer, run.settings
    width, height = run.seen_px
    stride, element_bytes = description.codec.spatial_stride, placement.dtype.itemsize
    tokens = config.tokens_per_frame(height // stride, width // stride)
    # Of several GPUs each has its share of the heads.
    per_frame = keys_values_bytes(config, tokens, element_bytes) // placement.num_samplers
    cache = {
        f"cache ({_gigabytes(per_frame)} per latent frame)": settings.cached_frames * per_frame
    }
    activations = activation_bytes(config, settings, tokens, element_bytes)
    return {
        **(cache if settings.cached_frames else {}),
        "text and picture states": static_bytes(config, element_bytes),
        "activations": activations // placement.num_samplers,
    }


def _transformer_bytes(files: CheckpointFiles, placement: Placement) -> tuple[int, int]:
    """The transformer's weights on its device, and as they are in the CPU's memory before."""
    shapes = tensor_shapes(files.shards("transformer"))
    element_bytes = placement.dtype.itemsize
    total = sum(map(math.prod, shapes.values())) * element_bytes
    # What is quantized and offloaded: the weights of the layers' linear maps.
    linear = [
        shape
        for name, shape in shapes.items()
        if name.startswith("layers.") and name.endswith(".weight") and len(shape) == 2
    ]
    in_linear_maps = sum(map(math.prod, linear))
    if placement.offloads_layers:
        visiting = max(map(math.prod, linear), default=0)
        return total - (in_linear_maps - visiting) * element_bytes, total
    if placement.options.quantize != "none":
        scales = sum(shape[0] for shape in linear) * element_bytes
        return total - in_linear_maps * (element_bytes - 1) + scales, total
    return total, total


def _codec_bytes(run: PlannedRun, placement: Placement) -> tuple[int, int, int]:
    """The codec: its weights, what decoding takes, and before that, encoding the picture."""
    from joyflash_cli.codec.composition import canvas_bytes

    num_pixels = math.prod(run.seen_px)
    weights = num_parameters(run.files.shards("codec")) * FLOAT32_BYTES
    codec, canvas, encoded = run.files.description.codec, 0, num_pixels
    if isinstance(codec, WanCodecConfig):
        encoded = min(num_pixels, TILE_PX) if codec.tiled else num_pixels
        convention = run.files.description.conditioning.image_convention
        is_clip = convention in ("wan-i2v", "clip")
        decoding = WAN_DECODING * codec.width_share
        picture = (WAN_CLIP if is_clip else WAN_PICTURE) * codec.width_share
    else:
        decoding, picture = TINY_DECODING, TINY_PICTURE
        canvas = canvas_bytes(run.size_px)
    number_bytes = FLOAT32_BYTES
    if placement.options.fast_decode:
        number_bytes = fast_decoder_dtype(placement.codec_device).itemsize
        if run.files.description.fast_codec_encodes:  # then the large one is not loaded
            weights, picture = 0, TAEHV_ENCODING
        weights += num_parameters(run.files.shards(FAST_CODEC)) * number_bytes
        decoding = TAEHV_DECODING
    decoded = num_pixels if placement.options.fast_decode else encoded
    working = canvas + int(decoding * decoded * number_bytes)
    settings = run.settings
    if isinstance(settings, SegmentSettings):
        frames = SEGMENT_COPIES * RGB_BYTES * settings.segment_video_frames
        working += frames * num_pixels * FLOAT32_BYTES
    return weights, working, int(picture * encoded * FLOAT32_BYTES)


def _encoder_bytes(run: PlannedRun) -> int:
    """The larger of text and picture encoder: each is freed before the next is loaded."""
    parts = ["image_encoder"]
    if run.files.has("text_encoder"):
        from joyflash_cli.encoders.text import clean_prompt
        from joyflash_cli.weights.prompt_cache import has_prompt, prompt_key

        config = run.files.description.conditioning
        keys = (
            prompt_key(config.text_encoder, clean_prompt(p)) for p in config.prompts(run.prompt)
        )
        if not all(has_prompt(run.files.directory, key) for key in keys):
            parts.append("text_encoder")
    return max(num_parameters(run.files.shards(part)) * ENCODER_BYTES for part in parts)


def check_memory(run: PlannedRun, placement: Placement) -> list[MemoryNeed]:
    """The needs of the run, when they are free.

    Raises:
        DeviceError: ``E-DEVICE-MEMORY`` when they are not; the hint is the next smaller setting.
    """
    needs = memory_needs(run, placement)
    too_large = next((need for need in needs if not need.fits), None)
    if too_large is None:
        return needs
    largest = sorted(too_large.parts.items(), key=lambda part: -part[1])[:3]
    listed = ", ".join(f"{name} {_gigabytes(size)}" for name, size in largest)
    width, height = run.size_px
    raise DeviceError(
        f"{run.files.name} at {width} x {height} px {too_large.describe()} ({listed})",
        hint=_smaller_setting(run, placement),
        code="E-DEVICE-MEMORY",
    )


def memory_ran_out(run: PlannedRun, placement: Placement) -> DeviceError:
    """What to tell when memory ran out although the needs were free."""
    need = memory_needs(run, placement)[0]
    return DeviceError(
        f"{placement.device} is out of memory: by estimate the run {need.describe()}",
        hint=_smaller_setting(run, placement),
        code="E-DEVICE-MEMORY",
    )


def _smaller_setting(run: PlannedRun, placement: Placement) -> str:
    """The least change of options with which the run fits, in words.

    Options are tried in turn, each alone and then with those before that helped.
    """
    before = smallest = memory_needs(run, placement)[0].total
    together = placement
    flags: list[str] = []
    for flag, alone in _smaller(placement, run.files).items():
        added = _smaller(together, run.files).get(flag)
        if added is None or memory_needs(run, added)[0].total >= smallest:
            continue
        if flag == "--offload all":  # replaces what it cannot be combined with
            flags = [kept for kept in flags if not kept.startswith(("--offload", "--quantize"))]
        together, flags = added, [*flags, flag]
        for given, changed in ((flag, alone), (" ".join(flags), together)):
            needs = memory_needs(run, changed)
            if needs[0].total < before and all(need.fits for need in needs):
                return f"{given} needs {_gigabytes(needs[0].total)}"
        smallest = memory_needs(run, together)[0].total
    return (
        f"the least possible here is {_gigabytes(smallest)}; free some memory, give another "
        "--device, or --profile tiny"
    )


def _smaller(placement: Placement, files: CheckpointFiles) -> dict[str, Placement]:
    """The placement under each option that would make the run smaller, the least loss first."""
    import torch

    options, cpu = placement.options, torch.device("cpu")
    on_cpu = placement.device.type == "cpu"
    found = {}
    if placement.dtype == torch.float32 and has_bfloat16(placement.device):
        found["--dtype bf16"] = replace(placement, dtype=torch.bfloat16)
    if not on_cpu and options.offload == "none":
        found["--offload text"] = placement.under(offload="text")
    if files.has(FAST_CODEC) and not options.fast_decode:
        found["--fast-decode"] = placement.under(fast_decode=True)
    if options.quantize == "none" and not placement.offloads_layers:
        found["--quantize int8"] = placement.under(quantize="int8")
    if placement.codec_device != cpu and options.gpus == 1:
        found["--vae-device cpu"] = replace(placement, codec_device=cpu)
    if not on_cpu and options.offload != "all":
        found["--offload all"] = placement.under(offload="all", quantize="none", compile=False)
    return found


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / GIGABYTE:.1f} GB"
