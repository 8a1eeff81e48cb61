"""Memory and drift over hours of sound: `python benchmarks/long_stream.py --hours 2`.

By default only the reading side runs, faster than real time: WAV of unknown length on a pipe, the
resampler, the ring of feature rows, and the windows of every block, as the sampler asks for them.
At the end the last rows are compared with those of the same seconds encoded alone: any drift of
sound against video would show there. `--render` renders instead, to a pipe that is read and thrown
away; `--seconds` then says how much sound.
"""

import argparse
import json
import math
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLES = REPOSITORY / "examples"
RATE_HZ = 16_000
UNKNOWN = b"\xff" * 4
HEADER = b"".join(
    (
        *(b"RIFF", UNKNOWN, b"WAVE"),
        *(b"fmt ", struct.pack("<IHHIIHH", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)),
        *(b"data", UNKNOWN),
    )
)
TAIL_BLOCKS = 20


def main() -> None:
    """Measure, print one JSON object."""
    options = read_options()
    figures = measure_render(options) if options.render else measure_reading(options)
    print(json.dumps(figures))


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=2.0, help="of sound that is only heard")
    parser.add_argument("--render", action="store_true", help="render it, too")
    parser.add_argument("--seconds", type=float, default=600.0, help="of sound that is rendered")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two looks")
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--audio", type=Path, default=EXAMPLES / "talk.wav")
    return parser.parse_args()


def voice(path: Path) -> bytes:
    """The samples of a file, 16-bit mono at 16 kHz."""
    import numpy as np

    from joyflash_cli.media.inputs.audio import read_audio, to_model_waveform

    return (to_model_waveform(read_audio(path)) * 32_767).astype(np.int16).tobytes()


def write_endlessly(descriptor: int, data: bytes, num_bytes: int) -> None:
    """A header that lies, then the same samples again and again."""
    try:
        write_all(descriptor, HEADER)
        left = num_bytes
        while left > 0:
            write_all(descriptor, data[:left])
            left -= len(data)
    except BrokenPipeError:
        pass
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes until nothing is left."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def resident_bytes(process: int | str = "self") -> int:
    """Memory of a process that lies in RAM."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def measure_reading(options: argparse.Namespace) -> dict[str, Any]:
    """Hears hours of sound as a render would."""
    import torch

    from joyflash_cli.media.inputs.sound import LiveSound
    from joyflash_cli.render.load import load_parts
    from joyflash_cli.render.placement import Placement
    from joyflash_cli.render.sound_feed import SoundFeed
    from joyflash_cli.weights.store import resolve_checkpoint

    files, cpu = resolve_checkpoint("tiny", options.checkpoint), torch.device("cpu")
    parts = load_parts(files, Placement(cpu, torch.float32, cpu))
    described = files.description
    settings, rule = described.sampler, described.conditioning.audio_windows
    data = voice(options.audio)
    num_samples = round(options.hours * 3600 * RATE_HZ)
    reader, writer = os.pipe()
    thread = threading.Thread(
        target=write_endlessly, args=(writer, data, 2 * num_samples), daemon=True
    )
    thread.start()
    looks: list[tuple[float, int]] = []
    tail: list[torch.Tensor] = []
    started = time.process_time()
    with os.fdopen(reader, "rb", buffering=0) as stream, torch.inference_mode():
        feed = SoundFeed(LiveSound(stream).open(), settings.fps)  # type: ignore[arg-type]
        num_blocks = 0
        for index, windows in blocks_heard(feed, parts.front_end, rule, settings):
            num_blocks = index + 1
            tail = [*tail[-TAIL_BLOCKS + 1 :], windows]
            if index % 250 == 0:
                looks.append((index, resident_bytes()))
    frames = feed.num_frames or 0
    expected_frames = math.ceil(num_samples * settings.fps / RATE_HZ)
    settled = [size for index, size in looks if index >= 500] or [looks[-1][1]]
    return {
        "hours": options.hours,
        "processor_s": round(time.process_time() - started, 1),
        "samples_heard": feed.num_original,
        "samples_expected": num_samples,
        "model_samples": feed.num_samples,
        "frames": frames,
        "frames_expected": expected_frames,
        "blocks": num_blocks,
        "blocks_expected": settings.num_blocks(expected_frames),
        "rss_first_mb": round(settled[0] / 1e6, 1),
        "rss_last_mb": round(settled[-1] / 1e6, 1),
        "rss_most_mb": round(max(settled) / 1e6, 1),
        "tail_error": tail_error(
            tail, data, num_samples, num_blocks, parts.front_end, rule, settings
        ),
    }


def blocks_heard(feed: Any, encoder: Any, rule: Any, settings: Any) -> Iterator[tuple[int, Any]]:
    """The audio of each block's window pass, in the order in which sampling asks for it."""
    from joyflash_cli.conditioning.stream import StaticConditioning, StreamConditioning

    source = StreamConditioning(feed, encoder, rule, static=StaticConditioning(), settings=settings)
    index = 0
    while source.has_block(index):
        audio = source.frames(settings.block_start(index), settings.block_start(index + 1)).audio
        feed.take(settings.video_start(index))
        yield index, audio.clone()
        index += 1


def tail_error(
    tail: list[Any],
    data: bytes,
    num_samples: int,
    num_blocks: int,
    encoder: Any,
    rule: Any,
    settings: Any,
) -> float:
    """Largest difference between the stream's last windows and those of its last seconds alone."""
    import numpy as np
    import torch

    from joyflash_cli.conditioning.frames import audio_windows, row_indices

    first = num_blocks - len(tail)
    start, stop = settings.block_start(first), settings.block_start(num_blocks)
    low = int(row_indices(rule, start, start + 1).min())
    high = int(row_indices(rule, stop - 1, stop).max()) + 1
    begin, end = encoder.span(low, high)
    once = np.frombuffer(data, np.int16)
    wanted = np.arange(begin, min(end, num_samples)) % len(once)
    samples = torch.from_numpy(once[wanted].astype(np.float32) / 32_768)
    with torch.inference_mode():
        rows = encoder.encode_span(samples, low, high)
        alone = audio_windows(rows[None], rule, start, stop, lead_rows=-low)
    return float((torch.cat(tail, dim=1) - alone).abs().max())


def measure_render(options: argparse.Namespace) -> dict[str, Any]:
    """Renders from a pipe to a pipe, in a process of its own that is looked at from outside."""
    command = [sys.executable, "-c", "from joyflash_cli.cli.app import main; main()", "render"]
    command += ["--image", str(EXAMPLES / "face.png"), "--audio", "-", "-o", "-"]
    command += ["--device", "cpu", "--dtype", "float32", "--progress", "json"]
    command += [] if options.checkpoint is None else ["--checkpoint", str(options.checkpoint)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    data = voice(options.audio)
    num_bytes = 2 * round(options.seconds * RATE_HZ)
    seen = {"frames": 0, "bytes": 0}
    threads = [
        threading.Thread(
            target=write_endlessly, args=(os.dup(process.stdin.fileno()), data, num_bytes)
        ),
        threading.Thread(target=_drain, args=(process.stdout, seen)),
        threading.Thread(target=_listen, args=(process.stderr, seen)),
    ]
    process.stdin.close()
    for thread in threads:
        thread.start()
    looks: list[tuple[float, int, float]] = []
    began = time.monotonic()
    while process.poll() is None:
        time.sleep(options.every)
        if process.poll() is None:
            looks.append((time.monotonic() - began, seen["frames"], resident_bytes(process.pid)))
    for thread in threads:
        thread.join()
    settled = [look for look in looks if look[1] >= 500] or looks
    return {
        "seconds": options.seconds,
        "exit_code": process.returncode,
        "frames": seen["frames"],
        "frames_expected": math.ceil(options.seconds * 25),
        "bytes_out": seen["bytes"],
        "wall_s": round(time.monotonic() - began, 1),
        "rss_first_mb": round(settled[0][2] / 1e6, 1),
        "rss_last_mb": round(settled[-1][2] / 1e6, 1),
        "rss_most_mb": round(max(look[2] for look in looks) / 1e6, 1),
        "looks": [(round(at), frames, round(size / 1e6, 1)) for at, frames, size in looks],
    }


def _drain(stream: Any, seen: dict[str, int]) -> None:
    while piece := stream.read(65_536):
        seen["bytes"] += len(piece)


def _listen(stream: Any, seen: dict[str, int]) -> None:
    for line in stream:
        try:
            event = json.loads(line)
        except ValueError:
            sys.stderr.write(line.decode())
            continue
        if event.get("event") == "block":
            seen["frames"] = event["frames"]


if __name__ == "__main__":
    main()
