"""What a stream works on from its first frame to its last: picture, text and face, encoded once.

The encoders are as large as the video model or larger and are needed once: each is loaded, used and
freed before the next one.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from joyflash_cli.errors import CheckpointError, DeviceError
from joyflash_cli.render.load import LoadedParts
from joyflash_cli.render.memory import PlannedRun, memory_ran_out
from joyflash_cli.render.placement import Placement
from joyflash_cli.render.request import RenderRequest
from joyflash_cli.types import to_signed
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    import numpy as np
    import torch

    from joyflash_cli.conditioning.config import ConditioningConfig
    from joyflash_cli.conditioning.stream import StaticConditioning
    from joyflash_cli.sampler.segment_settings import AnySettings


@dataclass(frozen=True)
class StreamJob:
    """What the stages of one stream share.

    Attributes:
        files: The checkpoint.
        parts: Its modules.
        request: What to render.
        placement: Where and how it computes.
        reference: The framed picture, ``(1, 3, H, W)`` in -1..1, on the device.
        reference_latent: Its latent, ``(1, C, h, w)``.
        seen_latents: What stands beside the noisy latents: that latent, what the codec makes of
            the picture for this end, or the latents of its padded clip, ``(1, T, C, h, w)``.
    """

    files: CheckpointFiles
    parts: LoadedParts
    request: RenderRequest
    placement: Placement
    reference: "torch.Tensor"
    reference_latent: "torch.Tensor"
    seen_latents: "torch.Tensor"

    @classmethod
    def prepare(
        cls,
        files: CheckpointFiles,
        parts: LoadedParts,
        request: RenderRequest,
        placement: Placement,
    ) -> "StreamJob":
        """The job with its picture encoded."""
        import torch

        from joyflash_cli.sampler.segment_settings import SegmentSettings

        description, codec = files.description, parts.codec
        run = PlannedRun(files, request.size_px, request.prompt)
        with torch.inference_mode(), device_errors(run, placement):
            picture = to_signed(request.face.pixels)[None].to(placement.device)
            conditioning, settings = description.conditioning, description.sampler
            convention = conditioning.image_convention
            if convention == "wan-i2v":
                pad: Any = codec
                seen = pad.padded_clip_latents(picture, conditioning.padded_clip_latents)
                latent = seen[:, 0]  # the codec is causal: the picture alone is encoded alike
            elif convention == "clip" and isinstance(settings, SegmentSettings):
                clip = picture[:, None].expand(-1, settings.segment_video_frames, -1, -1, -1)
                seen = codec.encode(clip, picture)
                latent = seen[:, 0]
            else:
                latent = seen = codec.encode(picture[:, None], picture)[:, 0]
                if not description.codec.reference_is_a_frame:
                    seen = codec.reference_latents(picture)
        return cls(files, parts, request, placement, picture, latent, seen)

    def to(self, device: "torch.device | str") -> "StreamJob":
        """The same with its tensors on another device."""
        names = ("reference", "reference_latent", "seen_latents")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    @property
    def settings(self) -> "AnySettings":
        """How the checkpoint is sampled for this sound and this size."""
        return self.request.settings_of(self.files.description.sampler)

    @property
    def planned(self) -> PlannedRun:
        """What memory cares about."""
        return PlannedRun(self.files, self.request.size_px, self.request.prompt)


def static_conditioning(job: StreamJob) -> "StaticConditioning":
    """All conditioning that does not change along the stream, on the transformer's device.

    Raises:
        CheckpointError: When an encoder that is needed is not there.
    """
    from joyflash_cli.conditioning.stream import StaticConditioning

    description, device = job.files.description, job.placement.device
    config, transformer = description.conditioning, description.transformer
    text = negative_text = image_tokens = face = None
    if transformer.text_dim is not None:
        from joyflash_cli.render.prompts import text_states

        text_device = job.placement.text_device
        text = text_states(job.files, job.request.prompt, device, text_device=text_device)
        if config.negative_prompt:
            negative_text = text_states(
                job.files, config.negative_prompt, device, text_device=text_device
            )
    if transformer.image_token_dim is not None:
        image_tokens = _image_tokens(job)
    if transformer.face_attention is not None:
        pixels, face_dim = job.request.face.pixels, transformer.face_attention.face_dim
        face = _face_embedding(config, pixels, face_dim).to(device)
    return StaticConditioning(
        reference_latents=job.seen_latents,
        convention=config.image_convention,
        text=text,
        negative_text=negative_text,
        image_tokens=image_tokens,
        face=face,
    )


def _image_tokens(job: StreamJob) -> "torch.Tensor":
    import torch

    from joyflash_cli.encoders.image import ImageEncoder, image_encoder_module
    from joyflash_cli.render.prompts import free_memory_of
    from joyflash_cli.weights.tensors import load_state_dict

    files, placement = job.files, job.placement
    if not files.has("image_encoder"):
        raise CheckpointError(
            f"{files.directory} lacks image_encoder.safetensors, which profile {files.name} needs",
            hint="convert the profile again with the picture encoder downloaded",
            code="E-CHECKPOINT-INCOMPLETE",
        )
    with torch.device("meta"):
        module = image_encoder_module(files.description.image_encoder)
    load_state_dict(module, files.shards("image_encoder"), dtype=placement.dtype)
    encoder = ImageEncoder(module)
    module.to(placement.device)
    tokens = encoder.encode(job.reference)
    del encoder, module
    free_memory_of(placement.device)
    return tokens


def _face_embedding(
    config: "ConditioningConfig", pixels: "np.ndarray", face_dim: int
) -> "torch.Tensor":
    """``(1, 512)``; zeros, which are no face, where models or a face are missing."""
    import torch

    from joyflash_cli.encoders.face import FaceEncoder, find_face_models, no_face

    models = find_face_models(config.face_models)
    if models.directory is None:
        embedding = no_face(face_dim)
    else:
        embedding = FaceEncoder(models.directory).encode(pixels)
    return torch.from_numpy(embedding)[None]


@contextlib.contextmanager
def device_errors(
    run: PlannedRun | None = None, placement: Placement | None = None
) -> Iterator[None]:
    """Turns a device that is out of memory into one line: need, free, and a smaller setting."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if run is not None and placement is not None:
            raise memory_ran_out(run, placement) from error
        raise DeviceError(
            f"the device is out of memory: {str(error).splitlines()[0]}",
            hint="close other programs, or give --dtype bf16, a smaller --profile or --device cpu",
            code="E-DEVICE-MEMORY",
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "DefaultCPUAllocator" in text
    )
