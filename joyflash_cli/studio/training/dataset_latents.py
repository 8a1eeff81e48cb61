"""Users' videos as the training stages read them: latents, audio features, face and text, cached.

What encodes them is loaded once from a checkpoint, so the caches fit the transformer that is
trained on them. The files have the layout of ``latents.build_latents``.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from joyflash_cli.codec.protocol import Codec
from joyflash_cli.conditioning.config import AudioWindowRule
from joyflash_cli.config import to_dict
from joyflash_cli.encoders.protocol import AudioEncoder
from joyflash_cli.errors import ConfigError, DataError
from joyflash_cli.media.inputs.faces import find_faces
from joyflash_cli.media.inputs.framing import Framing
from joyflash_cli.studio.clips.clip_framing import ClipFraming
from joyflash_cli.studio.clips.datasets import DatasetClip, list_clips
from joyflash_cli.studio.training.latents import token_weights
from joyflash_cli.studio.training.session import ONE_PROCESS, Processes
from joyflash_cli.studio.training.tensors import keep_apart, write_shard
from joyflash_cli.studio.training.trainer import check_counts
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ, to_signed
from joyflash_cli.weights.store import CheckpointFiles, resolve_checkpoint

SOUND_MARGIN_S = 2.0
"""Sound encoded before and after a stretch, so that its features need no edge."""

MOUTH_WEIGHT, EYES_WEIGHT = 8.0, 2.0
"""Added to the loss weight of the lower and the upper half of a face that is found."""


EncodeStill = Callable[[np.ndarray, str], Tensor]
"""From a picture ``(H, W, 3)`` uint8 and a caption to what steers a whole clip."""


@dataclass(frozen=True)
class ClipEncoders:
    """Parts of a checkpoint that make training data.

    Attributes:
        name: Of the checkpoint and its version; caches of different ones are not mixed.
        codec: Frames to latents.
        audio: Sound to feature rows.
        audio_windows: Which rows a latent frame hears.
        framing: How pictures are cut.
        fps: Video frames per second.
        token_px: Pixels of a transformer token each way.
        device: Where codec and audio encoder compute.
        fixed: By kind of ``LatentClips``, what does not change along a clip: text states ``(L, D)``
            of the caption, CLIP states ``(L, D)`` and the face embedding ``(512,)`` of the picture.
    """

    name: str
    codec: Codec
    audio: AudioEncoder
    audio_windows: AudioWindowRule
    framing: Framing
    fps: float
    token_px: int
    device: torch.device
    fixed: Mapping[str, EncodeStill] = field(default_factory=dict)


def resolve_encoders(checkpoint: str) -> CheckpointFiles:
    """The files of a profile name or of a checkpoint directory.

    Raises:
        UsageError: For an unknown profile.
        CheckpointError: If the directory is none.
    """
    path = Path(checkpoint).expanduser()
    return resolve_checkpoint("tiny", path) if path.is_dir() else resolve_checkpoint(checkpoint)


def load_encoders(checkpoint: str, device: torch.device) -> ClipEncoders:
    """Codec and encoders of a checkpoint; its transformer is not kept.

    Raises:
        CheckpointError: If files are missing or damaged.
    """
    from joyflash_cli.render.load import load_parts
    from joyflash_cli.render.placement import Placement

    files = resolve_encoders(checkpoint)
    parts = load_parts(files, Placement(device, torch.float32, device))
    sizes, fixed = parts.transformer.config, dict[str, EncodeStill]()
    if sizes.text_dim is not None:
        fixed["text"] = _text(files, device)
    if sizes.image_token_dim is not None:
        fixed["image_tokens"] = _image_tokens(files, device)
    if sizes.face_attention is not None:
        fixed["face"] = _face(files, sizes.face_attention.face_dim)
    return ClipEncoders(
        name=f"{files.name} {files.description.version}",
        codec=parts.codec,
        audio=parts.front_end,
        audio_windows=files.description.conditioning.audio_windows,
        framing=files.description.framing,
        fps=files.description.sampler.fps,
        token_px=parts.codec.spatial_stride * sizes.patch_size[1],
        device=device,
        fixed=fixed,
    )


def _text(files: CheckpointFiles, device: torch.device) -> EncodeStill:
    from joyflash_cli.render.prompts import text_states

    def encode(pixels: np.ndarray, caption: str) -> Tensor:
        # Padded to one length, so that clips can be stacked; the transformer pads with zeros too.
        states = text_states(files, caption, device)[0]
        length = files.description.transformer.text_len
        return functional.pad(states, (0, 0, 0, length - len(states)))

    return encode


def _image_tokens(files: CheckpointFiles, device: torch.device) -> EncodeStill:
    from joyflash_cli.encoders.image import ImageEncoder, image_encoder_module
    from joyflash_cli.weights.tensors import load_state_dict

    with torch.device("meta"):
        module = image_encoder_module(files.description.image_encoder)
    load_state_dict(module, files.shards("image_encoder"), dtype=torch.float32)
    encoder = ImageEncoder(module.to(device))
    return lambda pixels, caption: encoder.encode(to_signed(pixels)[None].to(device))[0]


def _face(files: CheckpointFiles, face_dim: int) -> EncodeStill:
    from joyflash_cli.encoders.face import FaceEncoder, find_face_models, no_face

    models = find_face_models(files.description.conditioning.face_models)
    if models.directory is None:
        return lambda pixels, caption: torch.from_numpy(no_face(face_dim))
    encoder = FaceEncoder(models.directory)
    return lambda pixels, caption: torch.from_numpy(encoder.encode(pixels))


@dataclass(frozen=True)
class DatasetConfig:
    """Which videos, and how they are cut.

    Attributes:
        path: Folder of videos or tar shards, or one shard; see ``studio.clips.datasets``.
        checkpoint: Profile name or checkpoint directory whose codec, encoders, framing and frame
            rate are used.
        num_latents: Latent frames of a stretch; 21 are 81 video frames.
        other_references: Whether each stretch is also stored with a picture from elsewhere in it
            as its reference, so that a reference is not always the first frame.
        held_out_every: Every such clip is kept from training, for validation; 0 keeps none.
        clips_per_shard: Clips in one file; a kill loses at most one.
        seed: Of the other references.
    """

    path: str = ""
    checkpoint: str = "tiny"
    num_latents: int = 21
    other_references: bool = True
    held_out_every: int = 10
    clips_per_shard: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse lengths that cannot be."""
        check_counts(self, "num_latents", "clips_per_shard")
        if self.held_out_every == 1:
            raise ConfigError("held_out_every is 1: nothing would be left to train on")

    @property
    def num_frames(self) -> int:
        """Video frames of a stretch."""
        return 4 * self.num_latents - 3


Report = Callable[[dict], None]


def build_dataset(
    config: DatasetConfig,
    encoders: ClipEncoders,
    *,
    out_dir: Path,
    processes: Processes = ONE_PROCESS,
    report: Report = lambda line: None,
) -> None:
    """Encode every clip that is not encoded yet; run again to go on.

    A clip that cannot be decoded or is too short is reported and left out. With several processes
    each encodes shards of its own.

    Raises:
        DataError: If there is no clip, or none can be used.
        ConfigError: If the folder holds clips encoded in another way.
    """
    clips = list_clips(Path(config.path).expanduser())
    every, size = config.held_out_every, config.clips_per_shard
    held_out = [clip for i, clip in enumerate(clips) if every and i % every == every - 1]
    kept = {clip.key for clip in held_out}  # two shards of one name may hold clips of one name
    train = [clip for clip in clips if clip.key not in kept]
    for name, chosen in (("train", train), ("held_out", held_out)):
        folder = out_dir / name
        if processes.is_first:
            about = {"dataset": to_dict(config), "encoders": encoders.name}
            keep_apart(
                folder,
                about | {"clips": [clip.key for clip in chosen]},
                message=f"{folder} holds clips that were listed or encoded in another way",
                hint="remove the folder, or give another work_dir",
            )
        processes.wait()
        num_shards = math.ceil(len(chosen) / size)
        for shard in range(processes.rank, num_shards, processes.world_size):
            part = chosen[shard * size : (shard + 1) * size]
            done = _build_shard(folder, shard, part, config, encoders, report)
            report({name: shard * size + len(part), "of": len(chosen), **done})
        processes.wait()
        if chosen and not list(folder.glob("latents-*.safetensors")):
            raise DataError(
                f"None of {len(chosen)} clips in {config.path} could be used",
                hint=f"clips need {config.num_frames / encoders.fps:.1f} s of picture and sound",
            )


def _build_shard(
    folder: Path,
    shard: int,
    clips: list[DatasetClip],
    config: DatasetConfig,
    encoders: ClipEncoders,
    report: Report,
) -> dict[str, int]:
    """Write a shard that is not there yet; an empty mark stands for one without usable clips."""
    path, mark = folder / f"latents-{shard:05d}.safetensors", folder / f"empty-{shard:05d}"
    if path.exists() or mark.exists():
        return {}
    rng = np.random.default_rng([config.seed, shard])
    views: list[dict[str, Tensor]] = []
    for clip in clips:
        try:
            found = list(encode_clip(clip, config, encoders, rng))
        except DataError as error:
            report({"left out": clip.key, "why": str(error)})
            continue
        if not found:
            least_s = config.num_frames / encoders.fps
            report({"left out": clip.key, "why": f"shorter than {least_s:.2f} s"})
        views += found
    if views:
        write_shard(path, views)
    else:
        mark.touch()
    return {"stretches": len(views)}


def encode_clip(
    clip: DatasetClip, config: DatasetConfig, encoders: ClipEncoders, rng: np.random.Generator
) -> Iterator[dict[str, Tensor]]:
    """Every whole stretch of a clip as one or two views; see ``DatasetConfig``.

    Raises:
        DataError: If the clip cannot be decoded.
    """
    video = clip.read(fps=encoders.fps, framing=ClipFraming(encoders.framing))
    stretch: list[np.ndarray] = []
    start = 0
    for frame in video.frames:
        stretch.append(frame)
        if len(stretch) == config.num_frames:
            sound = encode_sound(video.waveform, start, config.num_latents, encoders)
            yield from _views(np.stack(stretch), sound, clip.caption, config, encoders, rng)
            # The next stretch begins with the frame that this one ends with.
            stretch, start = stretch[-1:], start + config.num_frames - 1


def encode_sound(
    waveform: np.ndarray, start_frame: int, num_latents: int, encoders: ClipEncoders
) -> Tensor:
    """Audio features ``(T, A, D)`` of the latents of a stretch.

    Args:
        waveform: 16 kHz mono of the whole clip.
        start_frame: Video frame at which the stretch begins.
        num_latents: T.
        encoders: Encoder and windows.
    """
    from joyflash_cli.conditioning.frames import audio_windows

    rule, encoder = encoders.audio_windows, encoders.audio
    rate_hz = encoder.feature_rate_hz
    # A clip's beginning is heard as the sampler hears it: with the rule's own lead.
    lead = rule.lead_rows
    if start_frame:
        lead = max(lead, round(SOUND_MARGIN_S * rate_hz))
    first = round((start_frame / encoders.fps - lead / rate_hz) * MODEL_SAMPLE_RATE_HZ)
    num_rows = lead + rule.num_rows(num_latents)
    length = math.ceil((num_rows / rate_hz + SOUND_MARGIN_S) * MODEL_SAMPLE_RATE_HZ)
    heard = waveform[max(first, 0) : max(first + length, 0)]
    before = max(-first, 0)
    padded = functional.pad(torch.from_numpy(heard), (before, max(length - before - len(heard), 0)))
    rows = encoder.encode(padded.to(encoders.device), num_rows)
    return audio_windows(rows[None].float().cpu(), rule, 0, num_latents, lead_rows=lead)[0]


@torch.no_grad()
def _views(
    frames: np.ndarray,
    sound: Tensor,
    caption: str,
    config: DatasetConfig,
    encoders: ClipEncoders,
    rng: np.random.Generator,
) -> Iterator[dict[str, Tensor]]:
    clip = to_signed(frames).to(encoders.device)
    references = [0]
    if config.other_references:
        references.append(int(rng.integers(1, len(frames))) if len(frames) > 1 else 0)
    for position, index in enumerate(references):
        picture = clip[index][None]
        yield {
            "latents": encoders.codec.encode(clip[None], picture)[0].half().cpu(),
            "reference": encoders.codec.reference_latents(picture)[0].half().cpu(),
            "audio": sound.half(),
            "token_weights": face_weights(frames[index], encoders.token_px),
            "is_start": torch.tensor(position == 0),
            "picture": torch.from_numpy(frames[index].copy()).permute(2, 0, 1),
            **{
                kind: encode(frames[index], caption).half().cpu()
                for kind, encode in encoders.fixed.items()
            },
        }


def face_weights(pixels: np.ndarray, token_px: int) -> Tensor:
    """Loss weight of every token ``(P,)``, mean 1: larger on the largest face, most on its mouth.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB, sides multiples of ``token_px``.
        token_px: Pixels of a token each way.
    """
    boxes: list[tuple[tuple[int, ...], float]] = []
    for face in find_faces(pixels)[:1]:
        left, right = (max(int(face.centre[0] + s * face.size), 0) for s in (-0.5, 0.5))
        # From the brows over the nose to the chin.
        top, middle, bottom = (
            max(int(face.eyes[1] + s * face.eyes_to_mouth), 0) for s in (-1.0, 0.35, 1.7)
        )
        boxes.append(((left, top, right, middle), EYES_WEIGHT))
        boxes.append(((left, middle, right, bottom), MOUTH_WEIGHT))
    return token_weights(boxes, (pixels.shape[0], pixels.shape[1]), token_px)
