"""Latency of a live picture: `python benchmarks/latency.py --json`.

Sound is fed through a pipe as fast as somebody speaks it, and every picture is timed when it leaves
as fragmented MP4. Each look-ahead is measured in turn and printed beside what the profile computes.
`--lips` measures what a shorter look-ahead costs: the lip correlation of the recorded test clips.
"""

import argparse
import json
import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
FEED_EVERY_S = 0.02


def main() -> None:
    """Measure every look-ahead and print the figures."""
    options = read_options()
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    figures = [
        measure_lips(look_ahead, options) if options.lips else measure_delay(look_ahead, options)
        for look_ahead in options.look_ahead
    ]
    print(json.dumps(figures) if options.json else as_table(figures))


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--lips", action="store_true", help="measure lip correlation instead")
    parser.add_argument(
        "--look-ahead",
        type=lambda text: [int(part) for part in text.split(",")],
        default=[3, 2, 1, 0],
        metavar="N,N",
        help="blocks, 3,2,1,0 by default",
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of sound, 20 by default")
    parser.add_argument("--clips", type=int, default=None, help="test clips for --lips, all")
    parser.add_argument("--image", type=Path, default=REPOSITORY / "examples" / "face.png")
    parser.add_argument("--audio", type=Path, default=REPOSITORY / "examples" / "talk.wav")
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads, default all cores")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    return parser.parse_args()


class Speaker:
    """Writes 16-bit samples into a pipe in real time and notes when it began.

    Args:
        samples: ``(n,)`` 16-bit.
        rate_hz: Samples per second.
    """

    def __init__(self, samples: Any, rate_hz: int) -> None:
        self._data = samples.astype("<i2").tobytes()
        self._bytes_per_s = 2 * rate_hz
        reader, self._writer = os.pipe()
        self.stream = os.fdopen(reader, "rb")
        self.began_s = 0.0
        self._thread = threading.Thread(target=self._speak, daemon=True)

    def start(self) -> None:
        """Begins to speak."""
        self.began_s = time.perf_counter()
        self._thread.start()

    def _speak(self) -> None:
        position = 0
        try:
            while position < len(self._data):
                spoken_s = time.perf_counter() - self.began_s
                until = min(int(spoken_s * self._bytes_per_s) // 2 * 2, len(self._data))
                os.write(self._writer, self._data[position:until])
                position = until
                time.sleep(FEED_EVERY_S)
        except BrokenPipeError:
            pass
        finally:
            os.close(self._writer)


def measure_delay(look_ahead: int, options: argparse.Namespace) -> dict[str, Any]:
    """Feed sound in real time; when did each picture leave, after its own sound began?"""
    from joyflash_cli.media.inputs.hearing import PcmFormat
    from joyflash_cli.media.inputs.sound import LiveSound
    from joyflash_cli.render import JoyFlash, read_request
    from joyflash_cli.weights.store import resolve_checkpoint

    files = resolve_checkpoint("tiny", options.checkpoint)
    joyflash = JoyFlash.load(files, device=options.device, dtype=options.dtype)
    samples, rate_hz = repeated_samples(options.audio, options.seconds)
    warm_up(joyflash, options.image, samples[: 2 * rate_hz], rate_hz)
    speaker = Speaker(samples, rate_hz)
    sound = LiveSound(speaker.stream, PcmFormat("s16le", rate_hz, 1))
    request = read_request(files, options.image, sound, look_ahead_blocks=look_ahead)
    delays: list[float] = []
    first: list[float] = []

    def note(chunk: Any) -> None:
        now_s = time.perf_counter() - speaker.began_s
        first.append(now_s)
        for index in range(len(chunk.frames)):
            # The sound of a frame begins at its own time; the frame left just now.
            delays.append(now_s - (chunk.first_frame + index) / joyflash.sampler.fps)

    speaker.start()
    with open(os.devnull, "wb") as nowhere:
        result = joyflash.render(request, nowhere, on_chunk=note)
    computed = joyflash.latency(look_ahead)
    steady = sorted(delays[len(delays) // 4 :])
    return {
        "look_ahead_blocks": look_ahead,
        "computed_first_sound_s": round(computed.first_sound_s, 3),
        "computed_look_ahead_s": round(computed.look_ahead_s, 3),
        "first_picture_s": round(first[0], 3),
        "delay_median_s": round(statistics.median(steady), 3),
        "delay_p95_s": round(steady[int(0.95 * len(steady))], 3),
        "delay_max_s": round(steady[-1], 3),
        "falls_behind": delays[-1] - delays[len(delays) // 2] > 1.0,
        "video_s": round(result.video_s, 2),
        "device": str(joyflash.placement.device),
        "dtype": str(joyflash.placement.dtype).removeprefix("torch."),
        "profile": files.name,
        "version": files.version,
    }


def measure_lips(look_ahead: int, options: argparse.Namespace) -> dict[str, Any]:
    """Lip correlation of the recorded test clips under a look-ahead."""
    import numpy as np

    from joyflash_cli.measures.reader import load_readers
    from joyflash_cli.studio.evaluation.generation import CheckpointRenderer
    from joyflash_cli.studio.evaluation.measure import read_clip, summarise
    from joyflash_cli.studio.evaluation.pack import load_pack

    pack, readers = load_pack(None), load_readers()
    clips = pack.clips[: options.clips]
    renderer = CheckpointRenderer(
        options.checkpoint,
        device=options.device,
        dtype=options.dtype,
        look_ahead_blocks=look_ahead,
    )
    readings = []
    for index, clip in enumerate(clips):
        frames = np.concatenate(list(renderer.stream(clip.reference, clip.waveform, seed=index)))
        readings.append(read_clip(frames, clip, readers))
    summary = summarise(readings, clips, readers)
    return {
        "look_ahead_blocks": look_ahead,
        "lip_correlation": round(float(summary["lip_correlation"]), 4),
        "lip_correlation_at_zero_lag": round(float(summary["lip_correlation_at_zero_lag"]), 4),
        "clips": len(clips),
        "profile": renderer.files.name,
        "version": renderer.files.version,
    }


def repeated_samples(source: Path, seconds: float) -> tuple[Any, int]:
    """Mono 16-bit samples of a sound repeated to a length, and their rate."""
    import numpy as np

    from joyflash_cli.media.inputs.audio import read_audio

    clip = read_audio(source)
    wanted = round(seconds * clip.sample_rate_hz)
    mono = np.resize(clip.samples.mean(axis=1), wanted)
    return np.clip(mono * 32767, -32768, 32767).astype(np.int16), clip.sample_rate_hz


def warm_up(joyflash: Any, image: Path, samples: Any, rate_hz: int) -> None:
    """One short render: first calls of kernels are slower than all later ones."""
    import numpy as np

    from joyflash_cli.render import read_request
    from joyflash_cli.types import AudioClip

    clip = AudioClip((samples.astype(np.float32) / 32768)[:, None], rate_hz)
    for _ in joyflash.stream(read_request(joyflash.files, image, clip)):
        pass


def as_table(figures: list[dict[str, Any]]) -> str:
    """One line per look-ahead."""
    names = [name for name in figures[0] if name not in ("profile", "version", "device", "dtype")]
    lines = ["  ".join(names)]
    lines += ["  ".join(f"{figure[name]!s:>{len(name)}}" for name in names) for figure in figures]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
