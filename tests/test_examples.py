"""The programs in examples/: what they compute, and that the committed gallery is whole."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from joyflash_cli.media.inputs.audio import read_audio
from joyflash_cli.types import AudioClip, FrameChunk

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
GALLERY = EXAMPLES / "gallery"
MAX_GALLERY_BYTES = 3_000_000


@pytest.fixture
def example(monkeypatch):
    """Imports an example program as it would run."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


def test_rounds_repeat_on_whole_seconds(example):
    gallery = example("gallery")
    rng = np.random.default_rng(0)
    clips = [AudioClip(rng.normal(0, 0.1, (n, 1)).astype(np.float32), 1000) for n in (1500, 2300)]
    sound, period_s = gallery.repeated(clips, 11.0)
    assert period_s == 5.0  # 1.5 + 0.6 + 2.3 + 0.6
    assert sound.samples.shape == (11_000, 1)
    np.testing.assert_array_equal(sound.samples[:5000], sound.samples[5000:10_000])
    np.testing.assert_array_equal(sound.samples[2100:4400, 0], clips[1].samples[:, 0])
    assert not sound.samples[1500:2100].any()


def made_of(sheets, frames, fps=25.0):
    return sheets.Rendering(frames[0], frames, fps, ())


def test_a_row_of_the_long_sheet_shows_one_moment_of_every_round(example):
    gallery = example("gallery")
    moments = gallery.long_moments(300, 17.0, 25.0)
    assert moments.shape == (len(gallery.LONG_MOMENTS_S), gallery.COLUMNS + 1)
    assert moments.max() < 300 * 25
    for row, moment in zip(moments, gallery.LONG_MOMENTS_S, strict=True):
        assert len(set(row)) == len(row)
        assert set(row % (17 * 25)) == {round(moment * 25)}


def test_only_the_wanted_frames_are_kept(example, monkeypatch):
    sheets = example("contact_sheets")
    chunks = [
        FrameChunk(i, 4, np.full((12, 2, 2, 3), i, np.uint8), first_frame=12 * i, elapsed_s=0.0)
        for i in range(4)
    ]
    monkeypatch.setattr(sheets, "read_request", lambda *args, **options: args)
    model = SimpleNamespace(files=None, stream=lambda request: iter(chunks))
    kept = sheets.pick(model, Path("face.jpg"), Path("voice.wav"), np.array([3, 13, 47]))
    assert {number: int(frame[0, 0, 0]) for number, frame in kept.items()} == {3: 0, 13: 1, 47: 3}


def test_the_most_different_mouths_are_found_in_order(example):
    sheets = example("contact_sheets")
    frames = np.full((30, 40, 40, 3), 90, np.uint8)
    for index, value in ((7, 255), (19, 0)):
        frames[index, 20:32, 13:27] = value
    chosen = sheets.most_different(made_of(sheets, frames), 3)
    assert [int(frame[26, 20, 0]) for frame in chosen] == [90, 255, 0]
    assert len(sheets.most_different(made_of(sheets, frames[:2]), 5)) == 2


def test_what_moves_outside_the_mouth_does_not_count(example):
    sheets = example("contact_sheets")
    frames = np.full((10, 40, 40, 3), 90, np.uint8)
    frames[4, :15] = 255
    frames[8, 22:30, 15:25] = 120
    chosen = sheets.most_different(made_of(sheets, frames), 2)
    assert int(chosen[1][26, 20, 0]) == 120


def entry_of(path, content):
    import hashlib

    source = path / "source.jpg"
    source.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return {"file": "face.jpg", "sha256": digest, "url": source.as_uri()}


def test_a_missing_portrait_is_fetched_once_and_checked(example, tmp_path):
    portraits = example("portraits")
    entry = entry_of(tmp_path, b"a picture")
    found = portraits.find_picture(tmp_path / "kept", entry)
    assert found.read_bytes() == b"a picture"
    (tmp_path / "source.jpg").unlink()
    assert portraits.find_picture(tmp_path / "kept", entry) == found
    found.write_bytes(b"another")
    with pytest.raises(ValueError, match=r"face\.jpg differs"):
        portraits.find_picture(tmp_path / "kept", entry)


def test_every_portrait_says_why_it_may_be_shown():
    import tomllib

    listed = tomllib.loads((EXAMPLES / "portraits.toml").read_text(encoding="utf-8"))
    assert len(listed) >= 4
    assert "astronaut" in listed
    for entry in listed.values():
        assert len(entry["sha256"]) == 64
        assert "public domain" in entry["rights"] or "out of copyright" in entry["rights"]


def test_the_gallery_has_its_faces_and_voices():
    faces = sorted(path.stem for path in (GALLERY / "faces").glob("*.jpg"))
    voices = sorted((GALLERY / "voices").glob("*.ogg"))
    assert len(faces) >= 6
    assert "drawn" in faces
    assert len(voices) >= 3
    for voice in voices:
        clip = read_audio(voice)
        assert clip.sample_rate_hz in {16_000, 48_000}
        assert 3 < len(clip.samples) / clip.sample_rate_hz < 8
    total = sum(path.stat().st_size for path in GALLERY.rglob("*") if path.is_file())
    assert total < MAX_GALLERY_BYTES
