"""Conditioning of a whole file: counts, silence around the sound, lazy slices."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.conditioning.audio_windows import AudioWindowRule, audio_windows
from joyflash_cli.conditioning.source import (
    FileConditioning,
    StaticConditioning,
    conditioning_from_audio,
    video_frames_for,
)
from joyflash_cli.errors import AudioError, ConfigError

MARGIN = AudioWindowRule("own-frames-margin", margin=2)
VIDEO_ROWS = AudioWindowRule("video-rows")


class MeanEncoder:
    """Row r is the mean of the samples of its own frame: easy to predict."""

    feature_dim = 1
    feature_rate_hz = 25.0

    def encode(self, waveform, num_rows):
        self.num_samples = len(waveform)
        return waveform[: num_rows * 640].view(num_rows, 640).mean(dim=1, keepdim=True)


def steps(num_frames):
    """Sound whose level is 1 in frame 0, 2 in frame 1, ..."""
    return torch.arange(1.0, num_frames + 1).repeat_interleave(640)


def static():
    return StaticConditioning(
        reference_latents=torch.randn(1, 16, 2, 2),
        text=torch.randn(1, 3, 8),
        image_tokens=torch.randn(1, 5, 4),
        face=torch.randn(1, 512),
    )


def test_rows_of_a_frame_are_that_frame_with_silence_around():
    source = conditioning_from_audio(
        MeanEncoder(), steps(10), MARGIN, static=static(), fps=25, block_frames=3
    )
    assert source.num_blocks == 2
    audio = source.frames(0, 6).audio[0, :, :, 0]
    assert audio[0].tolist() == [0, 0, 0, 0, 0, 1, 2, 3]
    assert audio[1].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert audio[3].tolist() == [8, 9, 10, 0, 0, 0, 0, 0]
    assert not audio[4:].any()


def test_every_kind_arrives():
    kept = static()
    source = conditioning_from_audio(
        MeanEncoder(), steps(30), VIDEO_ROWS, static=kept, fps=25, block_frames=3
    )
    got = source.frames(2, 5)
    assert got.image.shape == (1, 3, 17, 2, 2)
    assert got.audio.shape == (1, 3, 4, 1)
    assert torch.equal(got.text, kept.text)
    assert torch.equal(got.image_tokens, kept.image_tokens)
    assert torch.equal(got.face, kept.face)


def test_slices_are_slices_of_the_whole():
    source = conditioning_from_audio(
        MeanEncoder(), steps(40), MARGIN, static=static(), fps=25, block_frames=3
    )
    whole = source.frames(0, source.num_latents)
    for start, stop in [(0, 1), (2, 3), (3, 12), (5, 9)]:
        part = source.frames(start, stop)
        assert torch.equal(part.audio, whole.audio[:, start:stop])
        assert torch.equal(part.image, whole.image[:, start:stop])


@given(num_samples=st.integers(1, 60_000))
def test_blocks_cover_any_length(num_samples):
    source = conditioning_from_audio(
        MeanEncoder(),
        torch.ones(num_samples),
        MARGIN,
        static=StaticConditioning(),
        fps=25,
        block_frames=3,
    )
    frames = -(-num_samples // 640)
    assert source.num_blocks == -(-(frames + 3) // 12)
    assert source.has_block(source.num_blocks - 1)
    assert not source.has_block(source.num_blocks)
    heard = source.frames(0, source.num_latents).audio
    assert heard.shape == (1, 3 * source.num_blocks, 8, 1)
    assert bool(heard.any())


def test_prefix_frames_are_counted():
    source = conditioning_from_audio(
        MeanEncoder(),
        steps(18),
        VIDEO_ROWS,
        static=static(),
        fps=25,
        block_frames=4,
        prefix_frames=1,
    )
    assert source.num_blocks == 2
    assert source.num_latents == 9


def test_number_format_and_frame_count_of_the_caller():
    source = conditioning_from_audio(
        MeanEncoder(),
        steps(30),
        VIDEO_ROWS,
        static=static(),
        fps=25,
        block_frames=3,
        num_video_frames=9,
        dtype=torch.bfloat16,
    )
    assert source.num_blocks == 1
    got = source.frames(0, 3)
    assert {got.audio.dtype, got.image.dtype, got.text.dtype, got.face.dtype} == {torch.bfloat16}


def test_without_audio_or_picture():
    source = FileConditioning(
        None, VIDEO_ROWS, static=StaticConditioning(), num_blocks=2, block_frames=3
    )
    got = source.frames(0, 6)
    assert got.audio is None
    assert got.image is None


def test_ranges_outside_the_stream_are_refused():
    source = FileConditioning(
        torch.zeros(1, 21, 1), VIDEO_ROWS, static=static(), num_blocks=2, block_frames=3
    )
    assert torch.equal(
        source.frames(1, 6).audio, audio_windows(torch.zeros(1, 21, 1), VIDEO_ROWS, 1, 6)
    )
    for start, stop in [(-1, 2), (3, 7), (4, 3)]:
        with pytest.raises(ConfigError, match="not in a stream of 6"):
            source.frames(start, stop)


def test_rows_that_end_too_early_are_refused_at_once():
    with pytest.raises(ConfigError, match="outside"):
        FileConditioning(
            torch.zeros(1, 20, 1), VIDEO_ROWS, static=static(), num_blocks=2, block_frames=3
        )
    with pytest.raises(ConfigError, match="empty"):
        FileConditioning(None, VIDEO_ROWS, static=static(), num_blocks=0, block_frames=3)


def test_a_rate_that_would_drift_is_refused():
    with pytest.raises(ConfigError, match="25 rows per second"):
        conditioning_from_audio(
            MeanEncoder(), steps(9), VIDEO_ROWS, static=static(), fps=16, block_frames=3
        )


def test_empty_sound_is_refused():
    with pytest.raises(AudioError, match="cannot steer"):
        conditioning_from_audio(
            MeanEncoder(), torch.zeros(0), VIDEO_ROWS, static=static(), fps=25, block_frames=3
        )


def test_video_frames_of_a_duration():
    assert video_frames_for(1, 25) == 1
    assert video_frames_for(640, 25) == 1
    assert video_frames_for(641, 25) == 2
    assert video_frames_for(16_000 * 3, 29.97) == 90
    assert video_frames_for(16_000, 16) == 16
