import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.studio.clips.shards import write_shard
from joyflash_cli.studio.training.reader_training import (
    FrameSampler,
    ReaderTraining,
    spoil,
    train_identity,
    train_mouth_reader,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four grey clips whose brightness is the jaw; each has its own tint."""
    rng = np.random.default_rng(0)
    clips = []
    for index in range(4):
        visemes = rng.random((9, 6)).astype(np.float32)
        frames = np.zeros((9, 32, 32, 3), np.uint8)
        frames += (40 + 150 * visemes[:, 0]).astype(np.uint8)[:, None, None, None]
        frames[..., index % 3] //= 2
        clips.append(
            {
                "frames": frames,
                "visemes": visemes,
                "blink": np.zeros(9, np.float32),
                "lips": np.zeros((9, 3), np.float32),
                "waveform": np.zeros(640, np.float32),
                "mouth_box": np.array([8, 16, 24, 28], np.int32),
                "eyes_box": np.array([8, 4, 24, 12], np.int32),
                "about": {"identity": index},
            }
        )
    directory = tmp_path_factory.mktemp("store")
    write_shard(directory / "shard-0000", clips)
    return ClipStore(directory)


class Brightness(nn.Module):
    def __init__(self):
        super().__init__()
        self.visemes = nn.Linear(3, 6)
        self.blink = nn.Linear(3, 1)

    def forward(self, mouth, eyes):
        return self.visemes(mouth.mean((2, 3))), self.blink(eyes.mean((2, 3)))


class Tint(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 8)

    def forward(self, faces):
        return functional.normalize(self.head(faces.mean((2, 3))), dim=-1)


def test_spoiling_keeps_the_shape_changes_pixels_and_repeats_with_the_seed():
    crops = torch.rand(4, 3, 24, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    first = spoil(crops, torch.Generator().manual_seed(1))
    again = spoil(crops, torch.Generator().manual_seed(1))
    assert first.shape == crops.shape
    torch.testing.assert_close(first, again)
    assert (first - crops).abs().mean() > 0.02
    assert np.corrcoef(first.flatten(), crops.flatten())[0, 1] > 0.4


def test_labels_belong_to_their_frames(store):
    sampler = FrameSampler(store, ReaderTraining(batch=64, neighbour_share=0.0))
    frames, labels, mouths, eyes, clips = sampler.draw()
    assert frames.shape == (64, 3, 32, 32)
    assert mouths.shape == eyes.shape == (64, 4)
    brightness = (frames.amax(1).mean((1, 2)) + 1) * 127.5
    torch.testing.assert_close(brightness, 40 + 150 * labels[:, 0], atol=1.5, rtol=0)
    tint = frames.mean((2, 3)).argmin(1)
    assert (tint == clips % 3).all()


def test_a_reader_learns_from_spoilt_frames(store):
    torch.manual_seed(0)
    network, losses = Brightness(), []
    train_mouth_reader(
        network,
        store,
        crop=lambda frames, mouths, eyes: (frames, frames),
        config=ReaderTraining(steps=150, batch=32, learning_rate=0.03),
        on_step=lambda step, loss: losses.append(loss),
    )
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    assert not network.training
    frames = torch.stack([torch.full((3, 8, 8), -0.5), torch.full((3, 8, 8), 0.5)])
    with torch.no_grad():
        dark, bright = network(frames, frames)[0][:, 0]
    assert bright - dark > 0.2


def test_an_embedding_learns_to_tell_clips_apart(store):
    network, losses = Tint(), []
    train_identity(
        network,
        store,
        crop=lambda frames, mouths, eyes: frames,
        embedding_dim=8,
        config=ReaderTraining(steps=80, batch=32, learning_rate=0.03),
        on_step=lambda step, loss: losses.append(loss),
    )
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
