import numpy as np
import pytest
import torch
from synthetic import EYES_BOX, MOUTH_BOX

from joyflash_cli.errors import CheckpointError
from joyflash_cli.measures import reader
from joyflash_cli.measures.sync import correlation
from joyflash_cli.studio.evaluation.pack import default_directory, load_pack

shipped = pytest.mark.skipif(
    not (default_directory().parent / "evaluation" / "readers.safetensors").exists()
    or not (default_directory() / "pack.json").exists(),
    reason="no trained readers or no recorded pack in this checkout",
)


def fresh():
    torch.manual_seed(0)
    return reader.Readers(reader.MouthReader().eval(), reader.IdentityNet().eval())


def test_networks_stay_small():
    for network in (reader.MouthReader(), reader.IdentityNet()):
        assert sum(p.numel() for p in network.parameters()) <= 300_000


def test_a_crop_of_pixel_boundaries_is_the_slice():
    frames = torch.arange(2 * 3 * 16 * 16.0).reshape(2, 3, 16, 16)
    boxes = torch.tensor([[4.0, 2.0, 12.0, 8.0]] * 2)
    crops = reader.crop_boxes(frames, boxes, (6, 8))
    torch.testing.assert_close(crops, frames[:, :, 2:8, 4:12], atol=1e-3, rtol=0)


def test_crops_beyond_the_picture_repeat_its_edge():
    frames = torch.full((1, 3, 8, 8), 0.5)
    crops = reader.crop_boxes(frames, torch.tensor([[-4.0, -4.0, 12.0, 12.0]]), (8, 8))
    torch.testing.assert_close(crops, frames)


def test_the_identity_embedding_does_not_see_the_mouth():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    frames[1] = frames[0]
    x0, y0, x1, y1 = MOUTH_BOX + np.array([4, 4, -4, -4])
    frames[1, y0:y1, x0:x1] = 0
    open_mouth, other_mouth = fresh().embed(frames, MOUTH_BOX, EYES_BOX)
    np.testing.assert_allclose(open_mouth, other_mouth, atol=1e-6)
    assert np.linalg.norm(open_mouth) == pytest.approx(1.0, abs=1e-5)


def test_readings_do_not_depend_on_the_batch():
    frames = np.random.default_rng(1).integers(0, 256, (130, 64, 64, 3), dtype=np.uint8)
    box = np.array([20, 36, 44, 54])
    eyes = np.array([16, 16, 48, 28])
    together = fresh().read_mouth(frames, box, eyes)
    assert together.visemes.shape == (130, 6)
    assert together.blink.shape == (130,)
    alone = fresh().read_mouth(frames[129:], box, eyes)
    np.testing.assert_allclose(together.visemes[129:], alone.visemes, atol=1e-5)


def test_save_and_load_give_the_same_networks(tmp_path):
    readers = fresh()
    reader.save_readers(readers, tmp_path / "readers.safetensors")
    again = reader.load_readers(tmp_path / "readers.safetensors")
    for name, value in readers.mouth_reader.state_dict().items():
        torch.testing.assert_close(again.mouth_reader.state_dict()[name], value.half().float())
    assert not again.training


def test_missing_or_wrong_weights_say_so(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        reader.load_readers(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        reader.load_readers(tmp_path / "bad.safetensors")


@shipped
def test_the_shipped_reader_reads_recorded_true_frames():
    readers = reader.load_readers()
    found = []
    for clip in load_pack().clips[:4]:
        tracks = readers.read_mouth(clip.frames[::2], clip.mouth_box, clip.eyes_box)
        found.append(correlation(tracks.visemes[:, 0], clip.visemes[::2, 0]))
    # 0.97 to 0.99 was measured; the bound leaves room for other decoders of the video.
    assert np.mean(found) > 0.93
