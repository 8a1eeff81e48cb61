"""The latent mouth reader learns, and its loss pulls only what it reads."""

import pytest
import torch

from joyflash_cli.errors import DataError
from joyflash_cli.model.embeddings import head_patches
from joyflash_cli.studio.heads.face_state import MOUTH_TRACKS
from joyflash_cli.studio.training.latent_reader import (
    LatentReader,
    LatentReaderConfig,
    known_error,
    make_reader,
    train_latent_reader,
)
from joyflash_cli.studio.training.latents import LatentClips, latent_tracks
from joyflash_cli.studio.training.session import Session
from joyflash_cli.studio.training.trainer import OptimiserConfig

CONFIG = LatentReaderConfig(
    num_tokens=4,
    token_dim=8,
    dim=32,
    batch=64,
    noise=0.1,
    optimiser=OptimiserConfig(steps=150, learning_rate=5e-3, warmup_steps=5, ema_decay=0.9),
)


def _clips(count, seed):
    """Mouth tokens (the first four) show the visemes; the others show noise."""
    generator = torch.Generator().manual_seed(seed)
    visemes = torch.rand(count, 9, 4, 6, generator=generator)
    latents = torch.randn(count, 9, 6, 8, 8, generator=generator)
    shown = visemes.mean(2) * 3
    latents[:, :, :, 0:2, 0:8] = shown[..., None, None] + 0.05 * latents[:, :, :, 0:2, 0:8]
    visemes = visemes.mean(2, keepdim=True).expand(-1, -1, 4, -1)
    unknown = torch.full((count, 9, 4, len(MOUTH_TRACKS) - 6), torch.nan)
    weights = torch.ones(count, 16)
    weights[:, :4] = 5
    return LatentClips(
        latents=latents,
        references=torch.randn(count, 6, 8, 8, generator=generator),
        audio=torch.zeros(count, 9, 8, 3),
        token_weights=weights,
        is_start=torch.ones(count, dtype=torch.bool),
        clip_weights=torch.ones(count),
        mouths=torch.cat([visemes, unknown], -1),
    )


def test_it_learns_to_read_people_it_has_not_seen(tmp_path):
    lines = []
    reader = train_latent_reader(
        CONFIG, clips=_clips(24, 0), held_out=_clips(6, 1), patch=(2, 2),
        out_dir=tmp_path, session=Session(on_log=lines.append), log_every=150,
    )  # fmt: skip
    assert reader.tokens.tolist() == [0, 1, 2, 3]
    assert lines[-1]["jaw"] > 0.8


def test_the_loss_is_zero_for_what_it_reads_and_reaches_only_the_prediction():
    clips = _clips(4, 0)
    reader = make_reader(CONFIG, clips, (2, 2)).requires_grad_(False)
    tokens = head_patches(clips.latents, (2, 2))[:, :, reader.tokens].requires_grad_()
    reference = head_patches(clips.references[:, None], (2, 2))[:, :, reader.tokens]
    reference = reference.expand(-1, 9, -1, -1)
    read = reader(tokens, reference)
    assert known_error(read, read.detach()).abs().max() < 1e-8
    known_error(read, reader.standardise(clips.known_mouths())).mean().backward()
    assert tokens.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in reader.parameters())


def test_tracks_follow_the_latents_own_video_frames():
    track = torch.arange(9.0)[:, None].numpy()
    tracks = latent_tracks(track, 3)[..., 0]
    assert tracks.tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]


def test_clips_without_tracks_cannot_give_a_lip_loss():
    clips = _clips(1, 0)
    unknown = LatentClips(
        clips.latents, clips.references, clips.audio,
        clips.token_weights, clips.is_start, clips.clip_weights,
    )  # fmt: skip
    with pytest.raises(DataError, match="no mouth tracks"):
        unknown.known_mouths()


def test_a_reader_is_restored_from_its_weights():
    reader = make_reader(CONFIG, _clips(4, 0), (2, 2))
    again = LatentReader(CONFIG, 24)
    again.load_state_dict(reader.state_dict())
    mouth, reference = torch.randn(2, 3, 4, 24), torch.randn(2, 3, 4, 24)
    assert torch.equal(again(mouth, reference), reader(mouth, reference))
