import json

import numpy as np
import pytest
import torch
from synthetic import EYES_BOX, draw_face, make_speech, make_store

from joyflash_cli.errors import UsageError
from joyflash_cli.measures.reader import IdentityNet, MouthReader, MouthTracks, Readers
from joyflash_cli.media.inputs.picture import read_picture
from joyflash_cli.studio.evaluation import report
from joyflash_cli.studio.evaluation.pack import build_pack


class DarkMouthReaders(Readers):
    """Reads the synthetic mouth exactly: its opening is the share of dark pixels."""

    def read_mouth(self, frames, mouth_box, eyes_box):
        x0, y0, x1, y1 = mouth_box
        dark = (frames[:, y0:y1, x0:x1].max(-1) < 60).mean((1, 2))
        visemes = np.repeat(dark[:, None], 6, axis=1)
        return MouthTracks(visemes, np.zeros(len(frames)))


class ListeningRenderer:
    """Opens the mouth by the sound's level; ``deaf`` moves it at random."""

    def __init__(self, *, deaf=False):
        self.deaf = deaf

    def stream(self, reference, waveform, *, seed):
        level = np.sqrt((waveform.reshape(-1, 640) ** 2).mean(1)) / 0.2
        rng = np.random.default_rng(seed)
        jaw = rng.random(len(level)) if self.deaf else level.clip(0, 1)
        frames = draw_face(jaw, np.zeros(len(jaw)), np.random.default_rng(0))
        yield frames[:9]
        for start in range(9, len(frames), 12):
            yield frames[start : start + 12]

    def reconstruct(self, frames, reference):
        return (frames // 4) * 4


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("store"), num_clips=6)
    out = tmp_path_factory.mktemp("pack")
    return build_pack(store, make_speech(), out, counts={"makehuman": 4, "drawn": 2}, long_s=8.0)


@pytest.fixture(scope="module")
def readers():
    torch.manual_seed(0)
    return DarkMouthReaders(MouthReader().eval(), IdentityNet().eval())


@pytest.fixture(scope="module")
def heard(pack, readers, tmp_path_factory):
    """The report of a mouth that listens, its sheets, and what was told meanwhile."""
    folder, told = tmp_path_factory.mktemp("sheets"), []
    found = report.evaluate(
        ListeningRenderer(), pack, readers, horizon_s=6.0, sheets_dir=folder,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    return found, folder, told


def test_a_listening_mouth_scores_high_and_a_mismatched_one_low(heard):
    found, *_ = heard
    assert found["lip_correlation"] > 0.9
    assert found["lip_lag_frames"] == 0
    assert found["lip_correlation_mismatched"] < 0.6
    assert found["mismatched"]["lip_correlation_with_fed_track"] > 0.9
    assert found["silence_ratio"] < 0.05
    assert found["lip_p_value"] < 0.05
    assert found["ceiling"]["lip_correlation"] > 0.9
    assert found["floor"]["lip_correlation"] == 0
    assert found["floor"]["first_frame_psnr_db"] == 99


def test_a_deaf_mouth_scores_low(pack, readers):
    found = report.evaluate(ListeningRenderer(deaf=True), pack, readers, horizon_s=6.0)
    assert abs(found["lip_correlation"]) < 0.4
    assert found["silence_ratio"] > 0.5


def test_the_report_is_json_with_the_promised_keys(heard):
    found, folder, told = heard
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {
        "lip_correlation",
        "lip_lag_frames",
        "lip_correlation_mismatched",
        "silence_ratio",
        "first_frame_psnr_db",
        "identity_similarity",
        "border_flicker",
        "drift",
        "ceiling",
        "floor",
        "truth",
        "long",
        "clips",
        "notes",
    } <= set(found)
    assert set(found["drift"]) == {"5", "6"}
    assert set(found["drift"]["5"]) == {"colour", "sharpness", "identity"}
    assert len(found["clips"]) == 6
    assert {"psnr_db", "mouth_psnr_db", "identity_similarity"} <= set(found["ceiling"])
    assert told[-1] == ("long", 150, 150)
    sheets = sorted(path.name for path in folder.iterdir())
    names = [f"{stage}-{i:02d}.png" for stage in ("clips", "mismatched") for i in range(6)]
    assert sheets == sorted([*names, "long.png"])
    assert read_picture(folder / "long.png").pixels.shape[1] > 1000


def test_one_clip_is_too_few(pack, readers):
    with pytest.raises(UsageError, match="1 clips"):
        report.evaluate(ListeningRenderer(), pack, readers, num_clips=1)


def test_a_longer_horizon_repeats_the_sound(pack):
    longer = report.repeat_sound(pack.long, 20.0)
    assert longer.visemes.shape == (500, 6)
    assert len(longer.waveform) == 500 * 640
    np.testing.assert_array_equal(longer.visemes[200:400], pack.long.visemes)
    assert report.horizons(300.0) == (5.0, 30.0, 60.0, 300.0)
    assert report.horizons(60.0) == (5.0, 30.0, 60.0)


def test_mismatched_sounds_are_others_and_resemble_least(pack):
    shift = report.mismatch_shift(pack.clips)
    assert 0 < shift < len(pack.clips)
    jaws = np.stack([clip.visemes[:, 0] for clip in pack.clips])
    scores = [
        abs(report.mean_score(np.roll(jaws, -other, axis=0), jaws).correlation)
        for other in range(1, len(jaws))
    ]
    assert scores[shift - 1] == min(scores)


def test_eyes_box_of_the_synthetic_face_covers_the_eyes():
    frames = draw_face(np.zeros(1), np.zeros(1), np.random.default_rng(0))
    x0, y0, x1, y1 = EYES_BOX
    assert (frames[0].max(-1) <= 40).sum() > 50
    outside = frames[0].copy()
    outside[y0:y1, x0:x1] = 255
    assert (outside[:76].max(-1) <= 40).sum() == 0
