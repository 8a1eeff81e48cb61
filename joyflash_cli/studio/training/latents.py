"""Clips as the generator sees them: latents, reference latents, audio tokens, token weights."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from joyflash_cli.codec.tiny import TinyCodec
from joyflash_cli.conditioning.config import ImageConvention
from joyflash_cli.conditioning.frames import assemble_image_channels
from joyflash_cli.encoders.front_end import FrontEnd
from joyflash_cli.errors import DataError
from joyflash_cli.studio.clips.clips import MARGIN_FRAMES, ClipStore
from joyflash_cli.studio.training.tensors import build_shards, map_tensors, read_shards
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ, Conditioning, to_signed

ReferencePlace = Literal["every-frame", "first-frame"]
"""Where the reference latent stands in the image channels: beside every latent frame
(OmniAvatar), or beside latent frame 0 only, so that a stream has nothing else to hold on to."""

IMAGE_CONVENTIONS: dict[ReferencePlace, ImageConvention] = {
    "every-frame": "avatar",
    "first-frame": "avatar-first-frame",
}
"""What ``checkpoint.json`` calls each place."""

CLIPS_PER_SHARD = 60

AUDIO_MARGIN_ROWS = 2
"""Audio rows a latent frame hears before and after its own four."""


@dataclass(frozen=True)
class LatentClips:
    """Clips in memory, float16 where the size matters.

    Attributes:
        latents: ``(N, T, C, H, W)``; latent 0 is the still reference of the same clip.
        references: ``(N, C, H, W)`` conditioning latents of the reference picture.
        audio: ``(N, T, A, D)``.
        token_weights: ``(N, P)`` loss weight of each token of a frame, mean 1.
        is_start: ``(N,)`` whether the reference is the clip's first frame.
        clip_weights: ``(N,)`` large for calm clips, mean 1: what the voice does not explain
            must not rule the loss.
        mouths: ``(N, T, 4, M)`` mouth tracks of each latent's four video frames in the order of
            ``MOUTH_TRACKS``, NaN where nobody knows them (films have no visemes); ``None`` for
            clips without any.
        text: Text states ``(N, L, D)``, ``None`` for models without.
        negative_text: Those of the negative prompt, the same for all clips; ``None`` where guidance
            leads away from no text at all.
        image_tokens: CLIP states ``(N, L, D)``, ``None`` for models without.
        face: Face embeddings ``(N, 512)``, ``None`` for models without.
        place: Where the reference stands in their image channels.
    """

    latents: Tensor
    references: Tensor
    audio: Tensor
    token_weights: Tensor
    is_start: Tensor
    clip_weights: Tensor
    mouths: Tensor | None = None
    text: Tensor | None = None
    negative_text: Tensor | None = None
    image_tokens: Tensor | None = None
    face: Tensor | None = None
    place: ReferencePlace = "every-frame"

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def is_film(self) -> Tensor:
        """``(N,)`` whether a clip shows a person of whom nobody knows the visemes."""
        if self.mouths is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return self.mouths[:, 0, 0, 0].isnan()

    def chosen(self, indices: Tensor) -> "LatentClips":
        """Some of the clips."""
        return map_tensors(self, lambda rows: rows[indices])

    def starts(self) -> np.ndarray:
        """Indices of the clips that start at their reference.

        Raises:
            DataError: If there is none.
        """
        indices = np.nonzero(self.is_start.numpy())[0]
        if not len(indices):
            raise DataError(
                "No encoded clip starts at its reference", hint="run the stage 'latents'"
            )
        return indices

    def conditioning(
        self, chosen: np.ndarray | Tensor, audio: Tensor, *, start: int
    ) -> Conditioning:
        """Conditioning of clips from latent frame ``start`` on, with this audio (B, T, A, D)."""
        kinds = ("text", "negative_text", "image_tokens", "face")
        present = {kind: value for kind in kinds if (value := getattr(self, kind)) is not None}
        image = assemble_image_channels(
            self.references[chosen].float(), start, start + audio.shape[1],
            convention=IMAGE_CONVENTIONS[self.place],
        )  # fmt: skip
        fixed = {kind: value[chosen].float() for kind, value in present.items()}
        return Conditioning(image=image, audio=audio.float(), **fixed)

    def known_mouths(self) -> Tensor:
        """``mouths``.

        Raises:
            DataError: If nobody knows them.
        """
        if self.mouths is None:
            raise DataError(
                "These clips have no mouth tracks; the lip loss needs rendered heads or films.",
                hint="encode the clips again with the stage 'latents', or set lip_weight = 0",
            )
        return self.mouths


def latent_tracks(track: np.ndarray, num_latents: int) -> Tensor:
    """A track ``(F, K)`` per video frame as ``(T, 4, K)`` per latent; latent 0 is frame 0 alone."""
    rows = np.maximum(np.arange(-3, 4 * num_latents - 3), 0)
    return torch.from_numpy(track[rows]).unflatten(0, (num_latents, 4))


def token_weights(
    boxes: Sequence[tuple[Sequence[int] | np.ndarray, float]],
    size_px: tuple[int, int],
    token_px: int,
) -> Tensor:
    """Weight per token ``(P,)``, mean 1: larger by each box's weight where it is covered.

    Args:
        boxes: Left, top, right and bottom in pixels, and a weight.
        size_px: Height and width of the picture, multiples of ``token_px``.
        token_px: Pixels of a token each way.
    """
    weight = torch.ones(1, 1, *size_px)
    for (x0, y0, x1, y1), extra in boxes:
        weight[..., y0:y1, x0:x1] += extra
    pooled = functional.avg_pool2d(weight, token_px).flatten()
    return pooled / pooled.mean()


def audio_tokens(front_end: FrontEnd, waveform: np.ndarray, num_latents: int) -> Tensor:
    """Audio tokens ``(T, A, D)`` of a clip from its sound with margins.

    Latent i hears the rows of its own video frames 4i-3 .. 4i and ``AUDIO_MARGIN_ROWS`` around.
    """
    num_frames = len(waveform) * 25 // MODEL_SAMPLE_RATE_HZ
    rows = front_end.encode(torch.from_numpy(waveform), num_frames)
    first = torch.arange(num_latents)[:, None] * 4 - 3 - AUDIO_MARGIN_ROWS + MARGIN_FRAMES
    return rows[first + torch.arange(4 + 2 * AUDIO_MARGIN_ROWS)]


@torch.no_grad()
def encode_clip(
    store: ClipStore, index: int, *, codec: TinyCodec, front_end: FrontEnd, rng: np.random.Generator
) -> list[dict[str, Tensor]]:
    """Two views of a clip: one that starts at its reference, one with another reference.

    Each view is mirrored with probability one half and its sound gets a random level.
    """
    views = []
    clip = to_signed(store.open_eyed(index))
    size_px, token_px = clip.shape[-1], codec.config.patch_px
    boxes = [(store.mouth_box(index), 8.0), (store.eyes_box(index), 2.0)]
    grid = token_weights(boxes, (size_px, size_px), token_px).view(size_px // token_px, -1)
    num_latents = (len(clip) + 3) // 4
    for is_start in (True, False):
        frames, weights = clip, grid
        if rng.random() < 0.5:
            frames, weights = frames.flip(-1), weights.flip(-1)
        reference = frames[0] if is_start else frames[int(rng.integers(8, len(frames)))]
        with torch.autocast("cpu", torch.bfloat16):
            latents = codec.encode(frames[None], reference[None])[0].float()
        sound = store.waveform(index) * np.float32(10 ** (rng.uniform(-8, 6) / 20))
        views.append(
            {
                "latents": latents.half(),
                "reference": codec.reference_latents(reference[None])[0].half(),
                "audio": audio_tokens(front_end, sound, num_latents).half(),
                "mouths": latent_tracks(store.mouths(index), num_latents),
                "token_weights": weights.flatten(),
                "is_start": torch.tensor(is_start),
            }
        )
    return views


def build_latents(
    *,
    clips_dir: Path,
    out_dir: Path,
    codec: TinyCodec,
    front_end: FrontEnd,
    on_shard: Callable[[int, int], None] | None = None,
) -> None:
    """Encode every clip that is not encoded yet, in shards; run again to go on."""
    store = ClipStore(clips_dir)

    def encode(shard: int, group: Sequence[int]) -> list[dict[str, Tensor]]:
        rng = np.random.default_rng([0, shard])
        views: list[dict[str, Tensor]] = []
        for index in group:
            views += encode_clip(store, index, codec=codec, front_end=front_end, rng=rng)
        return views

    count = len(store)
    firsts = range(0, count, CLIPS_PER_SHARD)
    groups = [range(first, min(first + CLIPS_PER_SHARD, count)) for first in firsts]
    build_shards(out_dir / "latents", groups, encode, on_shard)
    (out_dir / "about.json").write_text(json.dumps({"clips": count, "seed": 0}))


def load_latents(directory: Path) -> LatentClips:
    """All encoded clips of a folder.

    Raises:
        DataError: If there is none.
    """
    return latent_clips(read_shards(directory / "latents", "encoded clips.", stage="latents"))


def latent_clips(joined: Mapping[str, Tensor]) -> LatentClips:
    """Clips of the tensors of one or more shards."""
    resting = (joined["token_weights"] < 1.5).float()
    pairs = zip(joined["latents"], resting, strict=True)
    energy = torch.stack([(_token_energy(x.float()) * r).sum() / r.sum() for x, r in pairs])
    weights = 1 / (energy + 0.3 * energy.median() + 1e-6)
    weights = (weights / weights.mean()).clamp(max=2.5)
    return LatentClips(
        latents=joined["latents"],
        references=joined["reference"],
        audio=joined["audio"],
        token_weights=joined["token_weights"],
        is_start=joined["is_start"],
        clip_weights=weights / weights.mean(),
        mouths=joined.get("mouths"),
        text=joined.get("text"),
        image_tokens=joined.get("image_tokens"),
        face=joined.get("face"),
    )


def _token_energy(latents: Tensor) -> Tensor:
    """Mean square of each token ``(P,)`` of a clip ``(T, C, H, W)``."""
    square = latents.square().mean((0, 1))
    return functional.avg_pool2d(square[None], 2)[0].flatten()
