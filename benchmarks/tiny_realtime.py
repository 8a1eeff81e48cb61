"""Speed and memory of the embedded model: `python benchmarks/tiny_realtime.py --json`.

Renders examples/talk.wav, repeated to several lengths, each in a process of its own, so that peak
memory is that of one render. What is shown is chosen as for `joyflash render`; `--enlarge 1080x1350
--max-size 1350` first makes the picture as large as a photograph. Figures are measured after
loading and include decoding and writing the MP4.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LENGTHS_S = (10.0, 60.0, 600.0)


def main() -> None:
    """Measure every length and print the figures."""
    options = read_options()
    if options.child is not None:
        print(json.dumps(render_once(options)))
        return
    figures = [measure(length_s, options) for length_s in options.lengths]
    report = {
        "threads": figures[0]["threads"],
        "realtime_factor": by_length(figures, "realtime_factor"),
        "first_frame_s": by_length(figures, "first_frame_s"),
        "peak_rss_mb": by_length(figures, "peak_rss_mb"),
        "load_s": by_length(figures, "load_s"),
        "cpu_ms_per_frame": by_length(figures, "cpu_ms_per_frame"),
        "size_px": figures[0]["size_px"],
        "video_s": by_length(figures, "video_s"),
        "dtype": figures[0]["dtype"],
        "profile": figures[0]["profile"],
        "version": figures[0]["version"],
    }
    print(json.dumps(report) if options.json else as_table(figures))


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--lengths",
        type=lambda text: [float(part) for part in text.split(",")],
        default=list(LENGTHS_S),
        metavar="S,S",
        help="seconds of audio, 10,60,600 by default",
    )
    parser.add_argument("--image", type=Path, default=REPOSITORY / "examples" / "face.png")
    parser.add_argument("--audio", type=Path, default=REPOSITORY / "examples" / "talk.wav")
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument(
        "--threads", type=int, default=None, help="CPU threads, default as for render"
    )
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--frame", default=None, help="picture or face, as for render")
    parser.add_argument("--size", type=int, default=None, help="as for render")
    parser.add_argument("--max-size", type=int, default=None, help="as for render")
    parser.add_argument(
        "--enlarge", default=None, metavar="WxH", help="cover so many pixels with the picture first"
    )
    parser.add_argument("--child", type=float, default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(length_s: float, options: argparse.Namespace) -> dict:
    """Figures of one length, measured in a fresh process."""
    command = [sys.executable, __file__, "--child", str(length_s), "--dtype", options.dtype]
    command += ["--image", str(options.image), "--audio", str(options.audio)]
    for name in ("checkpoint", "threads", "frame", "size", "max_size", "enlarge"):
        value = getattr(options, name)
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def render_once(options: argparse.Namespace) -> dict:
    """Render in this process, the device and checkpoint as asked."""
    import torch

    from joyflash_cli import __version__
    from joyflash_cli.render import FrameOptions, JoyFlash, read_request
    from joyflash_cli.render.device import use_threads
    from joyflash_cli.weights.store import resolve_checkpoint

    use_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        voice = write_repeated(options.audio, Path(folder) / "long.wav", options.child)
        files = resolve_checkpoint("tiny", options.checkpoint)
        joyflash = JoyFlash.load(files, device="cpu", dtype=options.dtype)
        frame = FrameOptions(options.frame, options.size, options.max_size)
        image = options.image
        if options.enlarge is not None:
            image = write_enlarged(image, Path(folder) / "photo.png", options.enlarge)
        request = read_request(files, image, voice, frame=frame)
        cpu_before_s = sum(os.times()[:2])
        result = joyflash.render(request, Path(folder) / "out.mp4")
        cpu_s = sum(os.times()[:2]) - cpu_before_s
    return {
        "audio_s": options.child,
        "video_s": round(result.video_s, 3),
        "realtime_factor": round(result.realtime_factor, 3),
        "first_frame_s": round(result.first_frame_s, 3),
        "load_s": round(result.load_s, 3),
        # Of all threads: what a busy machine hides in the realtime factor.
        "cpu_ms_per_frame": round(1000 * cpu_s / result.video_frames, 1),
        "size_px": "x".join(map(str, result.size_px)),
        # Linux counts kilobytes.
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "threads": torch.get_num_threads(),
        "dtype": str(joyflash.placement.dtype).removeprefix("torch."),
        "profile": result.profile,
        "version": __version__,
    }


def write_enlarged(source: Path, target: Path, size: str) -> Path:
    """The picture scaled until it covers ``WxH`` pixels, its middle kept."""
    from PIL import Image, ImageOps

    width, height = map(int, size.split("x"))
    with Image.open(source) as picture:
        large = ImageOps.fit(picture.convert("RGB"), (width, height), Image.Resampling.BICUBIC)
    large.save(target)
    return target


def write_repeated(source: Path, target: Path, length_s: float) -> Path:
    """The sound repeated to a length, as 16-bit WAV, written piece by piece."""
    import wave

    import numpy as np

    from joyflash_cli.media.inputs.audio import read_audio

    clip = read_audio(source)
    levels = (np.clip(clip.samples, -1, 1) * 32767).astype("<i2")
    left = round(length_s * clip.sample_rate_hz)
    with wave.open(str(target), "wb") as file:
        file.setnchannels(levels.shape[1])
        file.setsampwidth(2)
        file.setframerate(clip.sample_rate_hz)
        while left > 0:
            file.writeframes(levels[:left].tobytes())
            left -= len(levels[:left])
    return target


def by_length(figures: list[dict], name: str) -> dict[str, float]:
    """One figure by seconds of audio."""
    return {f"{figure['audio_s']:g}": figure[name] for figure in figures}


def as_table(figures: list[dict]) -> str:
    """One line per length."""
    lines = ["audio s   realtime   first frame s   peak MB"]
    lines += [
        f"{f['audio_s']:7g}   {f['realtime_factor']:8.2f}   {f['first_frame_s']:13.2f}"
        f"   {f['peak_rss_mb']:7.0f}"
        for f in figures
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
