import numpy as np
import pytest
from synthetic import NUM_FRAMES, make_speech, make_store

from joyflash_cli.errors import DataError
from joyflash_cli.measures.quality import psnr_db
from joyflash_cli.studio.evaluation.pack import (
    build_pack,
    choose_clips,
    default_directory,
    load_pack,
    long_speech,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store"))


def test_a_built_pack_reads_back(store, tmp_path):
    pack = build_pack(
        store, make_speech(), tmp_path, counts={"makehuman": 2, "drawn": 1}, long_s=5.0
    )
    assert [clip.kind for clip in pack.clips] == ["makehuman", "makehuman", "drawn"]
    assert len({clip.voice for clip in pack.clips[:2]}) == 2
    for clip in pack.clips:
        index = clip.identity // 10
        np.testing.assert_array_equal(clip.reference, store.frames(index)[0])
        assert psnr_db(clip.frames, store.frames(index)) > 38
        np.testing.assert_allclose(clip.visemes, store.visemes(index), atol=1e-3)
        inner = store.waveform(index)[20 * 640 : (20 + NUM_FRAMES) * 640]
        np.testing.assert_allclose(clip.waveform, np.clip(inner, -1, 1), atol=1e-4)
    assert pack.long.visemes.shape == (125, 6)
    assert len(pack.long.waveform) == 125 * 640
    assert 38 < pack.storage_psnr_db < 99


def test_training_material_is_refused(store, tmp_path):
    train = make_store(tmp_path / "train", split="train")
    with pytest.raises(DataError, match="training split"):
        build_pack(train, make_speech(), tmp_path / "pack")
    with pytest.raises(DataError, match="training split"):
        build_pack(store, make_speech(split="train"), tmp_path / "pack")


def test_too_few_clips_say_how_many_there_are(store):
    with pytest.raises(DataError, match="2 drawn clips talk; 5"):
        choose_clips(store, "drawn", 5)


def test_the_long_sound_rests_between_utterances():
    waveform, visemes, voice = long_speech(make_speech(num_frames=60), long_s=8.0)
    assert voice == "flite/rms"
    assert len(waveform) == len(visemes) * 640 == 200 * 640
    # The second utterance runs over the 3 s mark, so a long silence follows it.
    assert not waveform[60 * 640 : 70 * 640].any()
    assert not visemes[130:180].any()
    assert np.abs(waveform[70 * 640 : 130 * 640]).max() > 0.1


def test_a_missing_pack_says_so(tmp_path):
    with pytest.raises(DataError, match="no held-out pack"):
        load_pack(tmp_path)


@pytest.mark.skipif(
    not (default_directory() / "pack.json").exists(), reason="no recorded pack in this checkout"
)
def test_the_shipped_pack_is_small_held_out_and_aligned():
    files = list(default_directory().iterdir())
    assert sum(path.stat().st_size for path in files) < 3_000_000
    pack = load_pack()
    assert len(pack.clips) >= 8
    assert all(clip.identity % 10 == 9 for clip in pack.clips)
    for clip in pack.clips:
        assert len(clip.frames) == len(clip.visemes) == len(clip.waveform) // 640
        assert psnr_db(clip.frames[0], clip.reference) > 38
    assert len(pack.long.visemes) == 1500
