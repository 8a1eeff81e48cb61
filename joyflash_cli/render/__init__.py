"""The whole way: one picture and one voice to a stream of frames, and to a file.

    picture --frame_face--> reference latents --+
                                                +--> conditioning --> blocks --> frames --> MP4
    sound --to_model_waveform--> audio rows ----+

``JoyFlash.load("tiny").render(read_request(...), output)`` is all of it. Every stage is an
iterator that hears, samples, decodes and writes side by side; memory does not depend on the length
of the sound. Heavy imports happen inside functions, so that wrong inputs are told before torch is
loaded.
"""

from joyflash_cli.render.frame import FrameOptions
from joyflash_cli.render.joyflash import JoyFlash
from joyflash_cli.render.latency import Latency, compute_latency
from joyflash_cli.render.load import DTYPES, choose_device, choose_dtype
from joyflash_cli.render.request import (
    RenderPlan,
    RenderRequest,
    count_frames,
    plan_render,
    read_request,
)
from joyflash_cli.render.writer import RenderResult

__all__ = [
    "DTYPES",
    "FrameOptions",
    "JoyFlash",
    "Latency",
    "RenderPlan",
    "RenderRequest",
    "RenderResult",
    "choose_device",
    "choose_dtype",
    "compute_latency",
    "count_frames",
    "plan_render",
    "read_request",
]
