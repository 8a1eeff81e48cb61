"""What the ablation measures is what the whole report measures, only less of it is drawn."""

import json
import shutil

import numpy as np
import pytest
import torch
from synthetic import make_speech, make_store

from joyflash_cli.measures.reader import IdentityNet, MouthReader, Readers, load_readers
from joyflash_cli.studio.evaluation import report
from joyflash_cli.studio.evaluation.ablation import video_measures
from joyflash_cli.studio.evaluation.generation import WARM_UP_LATENTS, CheckpointRenderer
from joyflash_cli.studio.evaluation.pack import build_pack, load_pack
from joyflash_cli.studio.evaluation.variant import judge_as_videos, measure_variant


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("store"), num_clips=4)
    out = tmp_path_factory.mktemp("pack")
    return build_pack(store, make_speech(), out, counts={"makehuman": 2}, long_s=4.0)


@pytest.fixture(scope="module")
def readers():
    torch.manual_seed(0)
    return Readers(MouthReader().eval(), IdentityNet().eval())


@pytest.fixture(scope="module")
def renderer(toy_checkpoint, tmp_path_factory):
    folder = shutil.copytree(toy_checkpoint, tmp_path_factory.mktemp("large") / "toy")
    about = json.loads((folder / "checkpoint.json").read_text())
    about["framing"]["size_px"] = 128  # the clips' size
    (folder / "checkpoint.json").write_text(json.dumps(about))
    return CheckpointRenderer(folder, device="cpu", dtype="float32")


def test_a_stretch_has_the_frames_of_the_whole_stream(renderer, pack):
    waveform = np.random.default_rng(0).normal(0, 0.1, 117 * 640).astype(np.float32)
    reference = pack.clips[0].reference
    whole = np.concatenate(list(renderer.stream(reference, waveform, seed=3)))
    decoded = []
    decode = renderer._codec.decode
    renderer._codec.decode = lambda latents, state: decoded.append(1) or decode(latents, state)
    try:
        stretches = [(0, 5), (98, 117)]
        first, last = renderer.stream_stretches(reference, waveform, seed=3, stretches=stretches)
    finally:
        del renderer._codec.decode
    np.testing.assert_array_equal(first, whole[:5])
    # Only what the joints carry on from latent to latent may differ, by a rounding.
    np.testing.assert_allclose(last.astype(int), whole[98:].astype(int), atol=1)
    assert len(last) == 19
    assert WARM_UP_LATENTS + 5 < len(decoded) < 1 + 116 // 4
    # What is between is not drawn at all.
    (middle,) = renderer.stream_stretches(reference, waveform, seed=3, stretches=[(110, 117)])
    np.testing.assert_allclose(middle.astype(int), whole[110:].astype(int), atol=1)


def test_figures_are_those_of_the_report(renderer, pack, readers):
    horizon_s = 3.0
    ours = measure_variant(renderer, pack, readers, horizon_s=horizon_s, seed=2, num_clips=2)
    whole = report.evaluate(renderer, pack, readers, horizon_s=horizon_s, seed=2, num_clips=2)
    for name in ("lip_correlation", "identity_similarity", "sharpness"):
        assert ours[name] == pytest.approx(whole[name], rel=1e-3)
    assert set(ours["videos"]) == set(video_measures())
    assert ours["videos"]["noise_levels"] > 0  # needs no face
    assert set(ours["drift"]) == {"3"}
    for kind, value in whole["drift"]["3"].items():
        assert ours["drift"]["3"][kind] == pytest.approx(value, rel=0.01, abs=0.01)
    assert 0.5 < ours["border_flicker"] / whole["border_flicker"] < 2


def test_clips_are_judged_as_videos_are():
    clip = load_pack().clips[0]
    still = np.repeat(clip.reference[None], len(clip.frames), axis=0)
    readers = load_readers()
    true, frozen = (judge_as_videos([frames], [clip], readers) for frames in (clip.frames, still))
    for name in ("lip_correlation_at_zero_lag", "width_correlation_at_zero_lag"):
        assert true[name] > 0.99
        assert frozen[name] is None or frozen[name] < 0.5
    assert true["sync_c"] is None  # its weights are not here
