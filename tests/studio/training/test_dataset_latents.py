"""Users' clips as training data: encoded as the sampler would see them, resumable, in splits."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from joyflash_cli.conditioning.frames import AudioWindowRule
from joyflash_cli.errors import ConfigError, DataError
from joyflash_cli.media.inputs.audio import write_wav
from joyflash_cli.media.inputs.framing import FramingRule
from joyflash_cli.studio.clips.clip_file import write_frames
from joyflash_cli.studio.training.dataset_latents import (
    ClipEncoders,
    DatasetConfig,
    build_dataset,
    encode_sound,
    face_weights,
)
from joyflash_cli.studio.training.latents import load_latents
from joyflash_cli.studio.training.session import Processes
from joyflash_cli.types import AudioClip

SIZE, FPS = 32, 25


class MeanCodec:
    """Latents are 8 x 8 means of the first frame of each group, minus those of the reference."""

    latent_channels, spatial_stride = 3, 8

    def reference_latents(self, reference):
        return torch.nn.functional.avg_pool2d(reference, 8)

    def encode(self, frames, reference):
        chosen = frames[:, [0, *range(1, frames.shape[1], 4)]]
        small = torch.nn.functional.avg_pool2d(chosen.flatten(0, 1), 8)
        return small.unflatten(0, chosen.shape[:2]) - self.reference_latents(reference)[:, None]


class SecondsEncoder:
    """A row says which sample of the given waveform stands at its time."""

    feature_dim, feature_rate_hz = 1, 25.0

    def encode(self, waveform, num_rows):
        return waveform[torch.arange(num_rows) * 640][:, None]


def encoders(**changes):
    given = {
        "name": "toy 1", "codec": MeanCodec(), "audio": SecondsEncoder(),
        "audio_windows": AudioWindowRule("own-frames-margin", margin=2),
        "framing": FramingRule(SIZE, eyes_x=0.5, eyes_y=0.42, eyes_to_mouth=0.25),
        "fps": FPS, "token_px": 16, "device": torch.device("cpu"),
        "fixed": {
            "face": lambda pixels, caption: torch.full((4,), float(pixels.mean()) / 255),
            "text": lambda pixels, caption: torch.full((2, 3), float(len(caption))),
        },
    }  # fmt: skip
    return ClipEncoders(**given | changes)


@pytest.fixture
def config(tmp_path):
    """Four clips of 3.6 s whose grey level and whose sound tell the time; one is too short."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for index, num_frames in enumerate((90, 90, 20, 90)):
        levels = np.arange(num_frames) + 40 * index
        frames = np.broadcast_to(levels[:, None, None, None], (num_frames, SIZE, SIZE, 3))
        write_frames(folder / f"c{index}.mp4", frames.astype(np.uint8), fps=FPS, crf=1)
        seconds = np.arange(num_frames * 640) / (num_frames * 640)
        write_wav(folder / f"c{index}.wav", AudioClip(seconds[:, None].astype(np.float32), 16_000))
        (folder / f"c{index}.txt").write_text("x" * index)
    (folder / "broken.mp4").write_bytes(b"no video")
    return DatasetConfig(
        path=str(folder), num_latents=11, held_out_every=5, clips_per_shard=2, seed=1
    )


def build(config, tmp_path, **changes):
    told = []
    options = {"report": told.append} | changes
    build_dataset(config, options.pop("encoders", encoders()), out_dir=tmp_path / "out", **options)
    return told


def test_clips_become_what_the_stages_read(config, tmp_path):
    told = build(config, tmp_path)
    left_out = {line["left out"]: line["why"] for line in told if "left out" in line}
    assert set(left_out) == {"broken", "c2"}
    assert "shorter than 1.64 s" in left_out["c2"]
    clips = load_latents(tmp_path / "out" / "train")
    assert len(clips) == 2 * 2 * 2  # two clips of two stretches with two views each
    assert clips.latents.shape[1:] == (11, 3, 4, 4)
    assert clips.audio.shape[1:] == (11, 8, 1)
    assert clips.text.shape == (8, 2, 3)
    assert clips.text[:4].eq(0).all()
    assert clips.text[4:].eq(1).all()
    assert clips.is_start.tolist() == [True, False] * 4
    # Views that start at their reference have an empty first latent; the others need not.
    assert clips.latents[::2, 0].abs().max() < 0.02
    held_out = load_latents(tmp_path / "out" / "held_out")
    assert held_out.text.eq(3).all()


def test_stretches_follow_each_other_and_keep_their_sound(config, tmp_path):
    build(config, tmp_path)
    path = next(iter(sorted((tmp_path / "out" / "train").glob("*.safetensors"))))
    shard = load_file(path)
    level = shard["picture"].float().mean(dim=(1, 2, 3))
    assert level[0] == pytest.approx(0, abs=2)
    assert level[2] == pytest.approx(40, abs=2)  # the second stretch begins where the first ends
    # Audio token k of latent i is row 4i - 5 + k; the sound's value is the row over 90.
    for stretch, first in ((0, 0), (2, 40)):
        heard = shard["audio"][stretch, 2:, 2, 0].float() * 90
        expected = first + 4 * torch.arange(2, 11) - 3
        torch.testing.assert_close(heard, expected.float(), atol=0.2, rtol=0)


def test_sound_is_heard_as_the_sampler_hears_it():
    """The same rows as ``conditioning_from_audio`` gives, at the start; real sound elsewhere."""
    from file_conditioning import conditioning_from_audio

    from joyflash_cli.conditioning.stream import StaticConditioning

    parts = encoders()
    waveform = np.random.default_rng(0).normal(size=16_000 * 4).astype(np.float32)
    source = conditioning_from_audio(
        parts.audio, torch.from_numpy(waveform), parts.audio_windows, static=StaticConditioning(),
        fps=FPS, block_frames=3,
    )  # fmt: skip
    expected = source.frames(0, 9).audio[0]
    assert torch.equal(encode_sound(waveform, 0, 9, parts), expected)
    later = encode_sound(waveform, 40, 6, parts)
    assert torch.equal(later[2:], source.frames(12, 16).audio[0])


def test_a_build_goes_on_and_does_not_mix(config, tmp_path):
    build(config, tmp_path)
    train = tmp_path / "out" / "train"
    shards = sorted(train.glob("*.safetensors"))
    before = [path.read_bytes() for path in shards]
    times = [path.stat().st_mtime_ns for path in shards]
    shards[0].unlink()
    build(config, tmp_path)
    assert [path.read_bytes() for path in shards] == before
    assert shards[-1].stat().st_mtime_ns == times[-1]
    for change in ({"encoders": encoders(name="toy 2")}, {}):
        other = config if change else dataclasses.replace(config, num_latents=9)
        with pytest.raises(ConfigError, match="another way"):
            build(other, tmp_path, **change)
    about = json.loads((train / "about.json").read_text())
    assert about["clips"] == ["broken", "c0", "c1", "c2"]


def test_processes_share_the_shards(config, tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "wait", lambda self: None)
    for rank, names in ((0, [0]), (1, [0, 1])):
        build(config, tmp_path, processes=Processes(rank, 2))
        found = sorted((tmp_path / "out" / "train").glob("latents-*"))
        assert [path.name for path in found] == [f"latents-{n:05d}.safetensors" for n in names]


def test_a_data_set_without_a_usable_clip_is_refused(config, tmp_path):
    with pytest.raises(DataError, match="None of"):
        build(dataclasses.replace(config, num_latents=40), tmp_path)
    with pytest.raises(ConfigError, match="held_out_every"):
        DatasetConfig(held_out_every=1)


def test_a_face_weighs_most_at_its_mouth(repository):
    from joyflash_cli.media.inputs.picture import read_picture

    pixels = read_picture(repository / "examples" / "face.png").pixels[:512, :512]
    weights = face_weights(pixels, 16).view(32, 32)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-5)
    rows, columns = (weights == weights.max()).nonzero(as_tuple=True)
    assert 15 < float(rows.float().mean()) < 28
    assert 12 < float(columns.float().mean()) < 20
    assert weights[0, 0] == weights.min()
    assert face_weights(np.zeros((64, 32, 3), np.uint8), 16).eq(1).all()
