"""The whole way: one picture and one voice to a stream of frames, and to a file.

    picture --framing----> reference latents --+
                                                +--> conditioning --> blocks --> frames --> MP4
    sound --to_model_waveform--> audio rows ----+

``JoyFlash.load("tiny").render(read_request(...), output)`` is all of it. Every stage is an
iterator that hears, samples, decodes and writes side by side; memory does not depend on the length
of the sound. Heavy imports happen inside functions, so that wrong inputs are told before torch is
loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from joyflash_cli.media.scene import FrameOptions
from joyflash_cli.render.device import DTYPES, choose_device, choose_dtype
from joyflash_cli.render.joyflash import JoyFlash
from joyflash_cli.render.record import RunRecord
from joyflash_cli.render.request import (
    RenderPlan,
    RenderRequest,
    plan_render,
    read_request,
)

if TYPE_CHECKING:
    from joyflash_cli.render.latency import Latency, compute_latency
    from joyflash_cli.render.live_film import LiveFrame
    from joyflash_cli.render.session import Session

__all__ = [
    "DTYPES",
    "FrameOptions",
    "JoyFlash",
    "Latency",
    "LiveFrame",
    "RenderPlan",
    "RenderRequest",
    "RunRecord",
    "Session",
    "choose_device",
    "choose_dtype",
    "compute_latency",
    "plan_render",
    "read_request",
]

_LIVE = {
    "Latency": "latency",
    "LiveFrame": "live_film",
    "Session": "session",
    "compute_latency": "latency",
}


def __getattr__(name: str) -> Any:
    """What only live videos need, loaded when it is asked for."""
    if name not in _LIVE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LIVE[name]}"), name)
