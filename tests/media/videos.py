"""Synthetic sound and frames, and decoding back."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from joyflash_cli.media.outputs.tracks import exact_fps, samples_until
from joyflash_cli.media.outputs.writer import open_muxer
from joyflash_cli.types import AudioClip


def tone(duration_s: float, rate_hz: int = 16_000, channels: int = 1) -> AudioClip:
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    wave = (0.5 * np.sin(2 * np.pi * 300 * time_s)).astype(np.float32)
    return AudioClip(np.repeat(wave[:, None], channels, axis=1), rate_hz)


def noise_frames(num_frames: int, width: int = 64, height: int = 48) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def decode_frames(path: Path, pixel_format: str = "rgb24") -> tuple[list[Fraction], np.ndarray]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    times = [frame.pts * frame.time_base for frame in frames]
    return times, np.stack([frame.to_ndarray(format=pixel_format) for frame in frames])


def decode_sound(path: Path) -> tuple[float, int, np.ndarray]:
    """Time of the first sample, rate, and ``(channels, n)`` float samples."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp")
        decoded = list(container.decode(audio=0))
        first_s = float(decoded[0].pts * decoded[0].time_base)
        parts = [out.to_ndarray() for frame in decoded for out in resampler.resample(frame)]
    return first_s, decoded[0].sample_rate, np.concatenate(parts, axis=1)


def check_flash_and_click(path: Path, fps: float, rate_hz: int, channels: int) -> None:
    exact = exact_fps(fps)
    flash, num_frames = 30, 50
    samples = np.zeros((samples_until(num_frames, rate_hz, exact), channels), np.float32)
    samples[samples_until(flash, rate_hz, exact)] = 0.9
    frames = np.zeros((num_frames, 48, 64, 3), np.uint8)
    frames[flash] = 255
    with open_muxer(path, size=(64, 48), fps=fps, audio=AudioClip(samples, rate_hz)) as muxer:
        for start in range(0, num_frames, 12):
            muxer.write(frames[start : start + 12])
        muxer.finish()
    times, pictures = decode_frames(path, "gray")
    brightness = pictures.mean(axis=(1, 2))
    assert int(brightness.argmax()) == flash
    assert brightness[flash] > 200
    assert brightness[flash - 1] < 30
    assert brightness[flash + 1] < 30
    # MKV and WebM keep time in milliseconds.
    slack_s = 0 if path.suffix in (".mp4", ".mov") else 0.0005
    for index, time in enumerate(times):
        assert abs(time - index / exact) <= slack_s
    first_s, found_hz, sound = decode_sound(path)
    click_s = first_s + np.abs(sound[0]).argmax() / found_hz
    # Within one sample of the coarser of both rates.
    expected_s = samples_until(flash, rate_hz, exact) / rate_hz
    assert abs(click_s - expected_s) <= 1 / min(rate_hz, found_hz) + slack_s
