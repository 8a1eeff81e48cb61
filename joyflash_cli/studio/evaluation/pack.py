"""The recorded held-out pack: a few clips of people, drawings and voices nobody trained on.

It lets the embedded model be measured on a fresh clone without network, assets or renderer. Each
clip is a reference picture (PNG), the sound (FLAC), the true frames (H.264 4:4:4, nearly lossless)
and its tracks; one longer sound with stretches of silence serves drift and stillness.
"""

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.measures.quality import psnr_db
from joyflash_cli.media.inputs.audio import read_audio, to_model_waveform
from joyflash_cli.media.inputs.picture import read_picture
from joyflash_cli.media.sheet import write_picture
from joyflash_cli.studio.clips.clip_file import read_frames, write_frames, write_sound
from joyflash_cli.studio.clips.clips import MARGIN_FRAMES, ClipStore
from joyflash_cli.studio.speech.speech import Utterance
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

SAMPLES_PER_FRAME = MODEL_SAMPLE_RATE_HZ // 25
LONG_SILENCES_S = (3.0, 18.0, 36.0, 52.0)
"""Seconds of the long sound at which a stretch of silence is due after the running utterance."""

LONG_SILENCE_S = 2.0
LONG_PAUSE_S = 0.4
PACK_CLIPS = {"makehuman": 5, "ict": 4, "drawn": 3}
"""Clips of each kind of head in the recorded pack."""

LONG_VOICE = "flite/rms"
"""A synthesised voice, because its phoneme times are exact."""


@dataclass(frozen=True)
class HeldOutClip:
    """One recorded clip; frame 0 is the reference picture.

    Attributes:
        name: Stem of its files.
        kind: ``makehuman``, ``ict`` or ``drawn``.
        identity: Index of the person, held out from training.
        voice: ``engine/voice``, held out from training.
        text: What is said.
        reference: ``(H, W, 3)`` uint8.
        frames: True frames, ``(F, H, W, 3)`` uint8.
        waveform: 16 kHz mono.
        visemes: ``(F, 6)``.
        blink: ``(F,)``.
        mouth_box: ``(x0, y0, x1, y1)`` in pixels.
        eyes_box: ``(x0, y0, x1, y1)`` in pixels.
    """

    name: str
    kind: str
    identity: int
    voice: str
    text: str
    reference: np.ndarray
    frames: np.ndarray
    waveform: np.ndarray
    visemes: np.ndarray
    blink: np.ndarray
    mouth_box: np.ndarray
    eyes_box: np.ndarray


@dataclass(frozen=True)
class LongSound:
    """A minute of one held-out voice with stretches of silence.

    Attributes:
        waveform: 16 kHz mono, ``num_frames * 640`` samples.
        visemes: ``(F, 6)``.
        voice: ``engine/voice``.
    """

    waveform: np.ndarray
    visemes: np.ndarray
    voice: str


@dataclass(frozen=True)
class HeldOutPack:
    """Clips and the long sound.

    Attributes:
        clips: In the order of ``pack.json``.
        long: The long sound.
        storage_psnr_db: What writing the true frames as video cost, mean over clips.
    """

    clips: tuple[HeldOutClip, ...]
    long: LongSound
    storage_psnr_db: float


def default_directory() -> Path:
    """Where the pack lies inside the installed package."""
    return Path(str(files("joyflash_cli") / "assets" / "held_out"))


def load_pack(directory: Path | None = None) -> HeldOutPack:
    """Read a pack, by default the one that ships with the package.

    Raises:
        DataError: If it is missing or incomplete.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    directory = directory if directory is not None else default_directory()
    try:
        about = json.loads((directory / "pack.json").read_text())
        tracks = load_file(directory / "tracks.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(
            f"{directory} holds no held-out pack.",
            hint="reinstall joyflash or build one from rendered held-out clips",
        ) from error
    clips = tuple(_load_clip(directory, entry, tracks) for entry in about["clips"])
    long_path = directory / about["long"]["sound"]
    long = LongSound(
        waveform=_waveform(long_path, len(tracks["long.visemes"])),
        visemes=tracks["long.visemes"].astype(np.float32),
        voice=about["long"]["voice"],
    )
    return HeldOutPack(clips, long, float(about["storage_psnr_db"]))


def _load_clip(directory: Path, entry: dict, tracks: dict[str, np.ndarray]) -> HeldOutClip:
    name = entry["name"]
    visemes = tracks[f"{name}.visemes"].astype(np.float32)
    return HeldOutClip(
        **entry,
        reference=read_picture(directory / f"{name}.png").pixels,
        frames=read_frames(directory / f"{name}.mp4"),
        waveform=_waveform(directory / f"{name}.flac", len(visemes)),
        visemes=visemes,
        blink=tracks[f"{name}.blink"].astype(np.float32),
        mouth_box=tracks[f"{name}.mouth_box"],
        eyes_box=tracks[f"{name}.eyes_box"],
    )


def _waveform(path: Path, num_frames: int) -> np.ndarray:
    """Sound at 16 kHz, cut or padded to the frames: Opus may add a few samples."""
    samples = to_model_waveform(read_audio(path))[: num_frames * SAMPLES_PER_FRAME]
    return np.pad(samples, (0, num_frames * SAMPLES_PER_FRAME - len(samples)))


def build_pack(
    store: ClipStore,
    speech: Sequence[Utterance],
    out_dir: Path,
    *,
    counts: Mapping[str, int] = PACK_CLIPS,
    long_s: float = 60.0,
    crf: int = 10,
) -> HeldOutPack:
    """Choose clips of a held-out store, write them as a pack and read it back.

    Args:
        store: Clips of the held-out split.
        speech: Held-out utterances, for the long sound.
        out_dir: Folder of the pack; files of the same names are replaced.
        counts: Clips of each kind of head.
        long_s: Seconds of the long sound.
        crf: x264's quality of the true frames.

    Raises:
        DataError: If clips or utterances are of the training split, or too few.
    """
    from safetensors.numpy import save_file

    _check_held_out([store.about(i)["split"] for i in range(len(store))])
    _check_held_out([utterance.split for utterance in speech])
    chosen: list[int] = []
    for kind, count in counts.items():
        said = {store.about(index)["text"] for index in chosen}
        chosen += choose_clips(store, kind, count, said=said)
    out_dir.mkdir(parents=True, exist_ok=True)
    tracks: dict[str, np.ndarray] = {}
    entries, losses = [], []
    for position, index in enumerate(chosen):
        name = f"clip-{position:02d}"
        losses.append(_write_clip(out_dir / name, store, index, tracks, crf=crf))
        about = store.about(index)
        entries.append(
            {"name": name} | {key: about[key] for key in ("kind", "identity", "voice", "text")}
        )
    waveform, visemes, voice = long_speech(speech, long_s=long_s)
    write_sound(out_dir / "long.ogg", waveform, bit_rate=28_000)
    tracks["long.visemes"] = visemes.astype(np.float16)
    save_file(tracks, out_dir / "tracks.safetensors")
    about_pack = {
        "clips": entries,
        "long": {"sound": "long.ogg", "voice": voice},
        "storage_psnr_db": round(float(np.mean(losses)), 2),
    }
    (out_dir / "pack.json").write_text(json.dumps(about_pack, indent=1) + "\n")
    return load_pack(out_dir)


def _check_held_out(splits: list[str]) -> None:
    wrong = sum(split != "held-out" for split in splits)
    if wrong:
        raise DataError(
            f"{wrong} of {len(splits)} clips or utterances are of the training split.",
            hint="build the pack from held-out material only",
        )


def choose_clips(
    store: ClipStore, kind: str, count: int, *, said: AbstractSet[str] = frozenset()
) -> list[int]:
    """Clips of one kind with speech throughout whose first frame is calm; voices and texts differ.

    The first frame is the reference picture, and users' pictures show a closed mouth and open
    eyes; nothing else is looked at, so that hard clips are not left out.

    Args:
        store: Clips to choose from.
        kind: ``makehuman``, ``ict`` or ``drawn``.
        count: Clips wanted.
        said: Texts that should not be used again.

    Raises:
        DataError: If the store has too few.
    """
    rated = []
    for index in range(len(store)):
        visemes = store.visemes(index)
        talks = visemes[:, 0].std() > 0.08 and (visemes[:, 0] > 0.08).mean() > 0.4
        if store.about(index)["kind"] == kind and talks:
            calm = np.abs(visemes[0]).sum() + 2 * float(store.track("blink", index)[0])
            rated.append((calm, index))
    if len(rated) < count:
        raise DataError(f"{len(rated)} {kind} clips talk; {count} are needed.")
    ordered = [index for _, index in sorted(rated)]
    limit = -(-count // len({store.about(index)["voice"] for index in ordered}))
    voices: Counter[str] = Counter()
    texts = set(said)
    chosen: list[int] = []
    for index in ordered:
        voice, text = store.about(index)["voice"], store.about(index)["text"]
        if len(chosen) < count and voices[voice] < limit and text not in texts:
            voices[voice] += 1
            texts.add(text)
            chosen.append(index)
    spare = [index for index in ordered if index not in chosen]
    spare.sort(key=lambda index: store.about(index)["text"] in texts)
    return chosen + spare[: count - len(chosen)]


def _write_clip(
    stem: Path, store: ClipStore, index: int, tracks: dict[str, np.ndarray], *, crf: int
) -> float:
    frames = np.asarray(store.frames(index))
    write_picture(stem.with_suffix(".png"), frames[0])
    write_frames(stem.with_suffix(".mp4"), frames, crf=crf)
    margin = MARGIN_FRAMES * SAMPLES_PER_FRAME
    sound = store.waveform(index)[margin : margin + len(frames) * SAMPLES_PER_FRAME]
    write_sound(stem.with_suffix(".flac"), sound)
    for name in ("visemes", "blink", "mouth_box", "eyes_box"):
        kind = np.int32 if name.endswith("box") else np.float16
        tracks[f"{stem.name}.{name}"] = store.track(name, index).astype(kind)
    return psnr_db(read_frames(stem.with_suffix(".mp4")), frames)


def long_speech(
    speech: Sequence[Utterance], *, long_s: float, voice: str = LONG_VOICE
) -> tuple[np.ndarray, np.ndarray, str]:
    """Utterances of one voice in a row with pauses and silences.

    Returns:
        Waveform, visemes ``(F, 6)`` and the voice; the mouth rests in pauses.

    Raises:
        DataError: If the voice says nothing.
    """
    spoken = [utterance for utterance in speech if utterance.voice == voice]
    if not spoken:
        raise DataError(f"No held-out utterance of voice {voice} for the long sound.")
    num_frames = round(long_s * 25)
    parts: list[np.ndarray] = []
    tracks: list[np.ndarray] = []
    done, silences = 0, [s * 25 for s in LONG_SILENCES_S]
    for utterance in itertools.cycle(spoken):
        if done >= num_frames:
            break
        due = bool(silences) and done + len(utterance.visemes) >= silences[0]
        pause = round((LONG_SILENCE_S if due else LONG_PAUSE_S) * 25)
        silences = silences[due:]
        rest = np.zeros((pause, utterance.visemes.shape[1]), np.float32)
        parts += [utterance.waveform, np.zeros(pause * SAMPLES_PER_FRAME, np.float32)]
        tracks += [utterance.visemes, rest]
        done += len(utterance.visemes) + pause
    waveform = np.concatenate(parts)[: num_frames * SAMPLES_PER_FRAME]
    return waveform, np.concatenate(tracks)[:num_frames], voice
