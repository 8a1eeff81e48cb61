"""Training of the codec's networks: on clips that a moving square makes."""

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from joyflash_cli.codec.networks import Drawing
from joyflash_cli.codec.tiny import TinyCodec, TinyCodecConfig
from joyflash_cli.errors import DataError
from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.studio.clips.shards import write_shard
from joyflash_cli.studio.training.codec import CodecTrainingConfig, fit_codec, measure_codec
from joyflash_cli.studio.training.decoder import (
    DecoderTraining,
    decoder_loss,
    encoded_latents,
    noised_latents,
    train_decoder,
)
from joyflash_cli.studio.training.decoder_batches import (
    DecoderBatch,
    DecoderTrainingConfig,
    PredictionReader,
    read_decoder_batch,
)
from joyflash_cli.studio.training.mouth_networks import (
    CriticConfig,
    MouthCritic,
    balanced_adversarial_loss,
    mouth_crops,
)
from joyflash_cli.studio.training.session import Session
from joyflash_cli.studio.training.trainer import OptimiserConfig
from joyflash_cli.types import to_signed

SIZE = 64
CODEC = TinyCodecConfig(
    latent_channels=4,
    encoder_dim=16,
    latent_dim=16,
    num_latent_layers=1,
    decoder_dim=16,
    reference_dim=8,
    num_flow_layers=2,
    num_drawing_layers=2,
)


def _clip(seed):
    """A bright square on a fixed pattern, moving one pixel a frame."""
    rng = np.random.default_rng(seed)
    background = rng.integers(40, 120, (SIZE, SIZE, 3), dtype=np.uint8)
    frames = np.repeat(background[None], 33, 0).copy()
    x, y = rng.integers(8, 16, 2)
    for i, frame in enumerate(frames):
        frame[y : y + 16, x + i // 2 : x + i // 2 + 16] = (230, 200, 180)
    box = np.array([8, 8, 40, 40], np.int32)
    return {
        "frames": frames,
        "visemes": rng.random((33, 6)).astype(np.float32),
        "blink": np.zeros(33, np.float32),
        "lips": np.zeros((33, 3), np.float32),
        "waveform": np.zeros(64, np.float32),
        "mouth_box": box,
        "eyes_box": box,
        "about": {"identity": seed, "kind": "square", "split": "train", "voice": "", "text": ""},
    }


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    directory = tmp_path_factory.mktemp("clips")
    write_shard(directory / "shard-0000", [_clip(seed) for seed in range(6)])
    assert json.loads((directory / "shard-0000.json").read_text())
    return directory


@pytest.fixture(scope="module")
def fitted(clips):
    return fit_codec(CodecTrainingConfig(codec=CODEC), clips_dir=clips)


@pytest.fixture
def codec(fitted):
    """A codec that a test may train."""
    return copy.deepcopy(fitted)


@pytest.mark.parametrize("learns_latents", [False, True])
def test_training_draws_better_than_the_start(clips, codec, tmp_path, learns_latents):
    before = measure_codec(codec, ClipStore(clips), num_clips=3)["psnr_db"]
    config = DecoderTrainingConfig(
        optimiser=OptimiserConfig(steps=30, learning_rate=3e-3, warmup_steps=5, ema_decay=0.9),
        batch=2,
        noise=0.0,
        learns_latents=learns_latents,
    )
    basis = codec.basis.clone()
    batch = read_decoder_batch(ClipStore(clips), config, np.random.default_rng(0))
    latents = encoded_latents(codec, batch)
    trained = train_decoder(
        codec, config, clips_dir=clips, held_out_dir=clips, out_dir=tmp_path, log_every=30
    )
    after = measure_codec(trained, ClipStore(clips), num_clips=3)["psnr_db"]
    assert after > before + 0.5
    assert torch.equal(trained.basis, basis)
    # Without learns_latents encoded clips stay valid.
    assert torch.equal(encoded_latents(trained, batch), latents) != learns_latents


def test_latents_learn_from_films_whose_visemes_nobody_knows(clips, tmp_path):
    film = _clip(7) | {"visemes": np.full((33, 6), np.nan, np.float32)}
    (tmp_path / "films").mkdir()
    write_shard(tmp_path / "films" / "shard-0000", [film])
    config = DecoderTrainingConfig(
        optimiser=OptimiserConfig(steps=1, learning_rate=1e-3, warmup_steps=0),
        batch=2,
        num_latents=2,
        learns_latents=True,
    )
    codec = fit_codec(CodecTrainingConfig(codec=CODEC, num_clips=6), clips_dir=clips)
    batch = read_decoder_batch(ClipStore(clips), config, np.random.default_rng(0))
    before = encoded_latents(codec, batch)
    trained = train_decoder(
        codec,
        config,
        clips_dir=tmp_path / "films",
        held_out_dir=clips,
        out_dir=tmp_path / "run",
    )
    after = encoded_latents(trained, batch)
    assert after.isfinite().all()
    assert not torch.equal(before, after)


def test_a_fitted_codec_keeps_most_of_a_change(clips, codec):
    config = DecoderTrainingConfig(batch=6)
    batch = read_decoder_batch(ClipStore(clips), config, np.random.default_rng(0))
    latents = encoded_latents(codec, batch).detach()
    assert 0.3 < float(latents.square().mean().sqrt()) < 3
    drawing, _ = codec.draw(latents, codec.start_decoding(batch.reference), batch.lids)
    frames = batch.frames.flatten(2, 3).flatten(0, 1)
    still = batch.reference.repeat(1, 4, 1, 1).repeat_interleave(batch.frames.shape[1], 0)
    assert (drawing.coarse - frames).square().mean() < 0.5 * (still - frames).square().mean()


def test_a_critic_trains_beside_the_decoder_and_resumes_with_it(clips, fitted, tmp_path):
    config = DecoderTrainingConfig(
        optimiser=OptimiserConfig(steps=4, learning_rate=1e-3, schedule="constant"),
        batch=2,
        critic=CriticConfig(crop_px=24, dim=8, share=0.5, warmup_steps=1),
    )
    places = {"clips_dir": clips, "held_out_dir": clips, "log_every": 4}
    halves, alone, plain = (copy.deepcopy(fitted) for _ in range(3))
    first = dataclasses.replace(config, optimiser=dataclasses.replace(config.optimiser, steps=2))
    train_decoder(halves, first, out_dir=tmp_path / "halves", **places)
    train_decoder(
        halves, config, out_dir=tmp_path / "halves", session=Session(resumes=True), **places
    )
    train_decoder(alone, config, out_dir=tmp_path / "alone", **places)
    for half, one in zip(halves.parameters(), alone.parameters(), strict=True):
        assert torch.equal(half, one)
    without = dataclasses.replace(config, critic=CriticConfig())
    train_decoder(plain, without, out_dir=tmp_path / "plain", **places)
    assert not torch.equal(plain.warp.to_drawn.weight, alone.warp.to_drawn.weight)


def test_the_adversarial_pull_is_a_fixed_share_of_the_reconstruction():
    critic = MouthCritic(CriticConfig(dim=8))
    last = torch.nn.Conv2d(3, 3, 1)
    picture = torch.rand(2, 3, 48, 48)
    drawn = last(picture)
    reconstruction = 0.01 * (drawn - 1).square().mean()
    loss = balanced_adversarial_loss(critic, drawn, reconstruction, last.weight, 0.25)
    push = torch.autograd.grad(loss, last.weight, retain_graph=True)[0].norm()
    pull = torch.autograd.grad(reconstruction, last.weight)[0].norm()
    assert float(push) == pytest.approx(0.25 * float(pull), rel=1e-3)


def test_crops_stay_inside_and_follow_the_mouth():
    frames = torch.arange(64.0 * 64).view(1, 1, 1, 64, 64).expand(2, 3, 3, -1, -1)
    crops = mouth_crops(frames, torch.tensor([[32.0, 40.0], [2.0, 63.0]]), 16)
    assert crops.shape == (6, 3, 16, 16)
    assert crops[0, 0, 0, 0] == 32 * 64 + 24
    assert crops[3, 0, 0, 0] == 48 * 64


def batch_of(frames):
    """One clip of two latents whose lower half is the mouth box."""
    plain = torch.ones(1, 1, 1, 1, SIZE, SIZE)
    outside = plain.clone()
    outside[..., SIZE // 2 :, :] = 0
    return DecoderBatch(
        frames, frames, torch.zeros(1, 3, SIZE, SIZE), plain, outside, torch.zeros(1, 2),
        torch.zeros(1, 2, 4, 6), torch.zeros(1, 2, 4),
    )  # fmt: skip


def test_a_perfect_drawing_costs_only_its_own_strokes():
    frames = torch.rand(1, 2, 4, 3, SIZE, SIZE) * 2 - 1
    batch = batch_of(frames)
    flow = torch.zeros(2, 8, SIZE // 2, SIZE // 2)
    config = DecoderTrainingConfig(moved_weight=0.0, copy_weight=0.25)
    whole = frames.flatten(2, 3)[0]
    still = torch.zeros_like(whole)
    perfect = Drawing(whole, flow, torch.zeros(2, 4, SIZE, SIZE), whole, still)
    loss, figures = decoder_loss(perfect, batch, config)
    assert figures["pixels"] == 0
    assert float(loss) == pytest.approx(0.25)  # nothing was copied
    unweighted = dataclasses.replace(batch, weight=2 * batch.outside)  # nothing pulls at mouths
    loss, _ = decoder_loss(perfect, unweighted, config)
    assert float(loss) == pytest.approx(0.125)
    worse = Drawing(whole + 0.1, flow, torch.ones(2, 4, SIZE, SIZE), whole, still)
    assert decoder_loss(worse, batch, config)[1]["pixels"] == pytest.approx(0.1, rel=1e-4)


def test_what_is_drawn_outside_the_mouth_must_be_worth_its_own_size():
    batch = batch_of(torch.zeros(1, 2, 4, 3, SIZE, SIZE))
    flow = torch.zeros(2, 8, SIZE // 2, SIZE // 2)

    def loss_of(drawn, restraint_weight: float):
        config = DecoderTrainingConfig(
            gradient_weight=0, motion_weight=0, coarse_weight=0, copy_weight=0, moved_weight=0,
            restraint_weight=restraint_weight,
        )  # fmt: skip
        moved = torch.full((2, 12, SIZE, SIZE), 0.5, requires_grad=True)
        drawing = Drawing(drawn, flow, torch.ones(2, 4, SIZE, SIZE), moved, moved)
        loss, _ = decoder_loss(drawing, batch, config)
        loss.backward()
        assert moved.grad is None or not moved.grad.any()
        return float(loss.detach())

    copied = torch.full((2, 12, SIZE, SIZE), 0.5, requires_grad=True)
    assert loss_of(copied, 0.6) == loss_of(copied, 0.0) == pytest.approx(0.5)
    upper = torch.zeros(SIZE, SIZE)
    upper[: SIZE // 2] = 1
    # The truth is zero: 0.2 drawn towards it takes away 0.2 of the error, 0.2 elsewhere costs 0.2.
    towards_it, beside = copied - 0.2 * upper, copied + 0.2 * (1 - upper)
    assert loss_of(towards_it, 0.6) == pytest.approx(0.5 - 0.1 + 0.6 * 0.1)
    assert loss_of(beside, 0.6) == pytest.approx(0.5 + 0.1)  # mouths may be drawn freely


def test_errors_that_change_between_latents_cost_more():
    still = torch.zeros(1, 2, 4, 3, SIZE, SIZE)
    batch = batch_of(still)

    def loss_of(frame: int, joint_weight: float) -> float:
        drawn = torch.zeros(8, 3, SIZE, SIZE)
        drawn[frame:] = 0.1
        drawn = drawn.view(2, 12, SIZE, SIZE)
        flow = torch.zeros(2, 8, SIZE // 2, SIZE // 2)
        config = DecoderTrainingConfig(joint_weight=joint_weight, motion_weight=1.0)
        nothing = torch.zeros_like(drawn)
        drawing = Drawing(drawn, flow, torch.ones(2, 4, SIZE, SIZE), nothing, nothing)
        return float(decoder_loss(drawing, batch, config)[0])

    one_change = 0.1 / 7  # of seven differences between eight frames
    assert loss_of(4, 4.0) - loss_of(4, 1.0) == pytest.approx(3 * one_change, rel=1e-3)
    assert loss_of(5, 4.0) == pytest.approx(loss_of(5, 1.0), rel=1e-6)


@pytest.fixture(scope="module")
def blinking(tmp_path_factory):
    """Clips whose square goes dark in frames 12 to 14, as eyes do that are closed."""
    directory = tmp_path_factory.mktemp("blinking")
    made = [_clip(seed) for seed in range(3)]
    for clip in made:
        clip["blink"][12:15] = 1.0
        clip["frames"][12:15] = np.where(clip["frames"][12:15] > 130, 10, clip["frames"][12:15])
    write_shard(directory / "shard-0000", made)
    return ClipStore(directory)


def test_the_encoder_is_shown_open_eyes_and_the_decoder_is_told_of_closed_ones(blinking):
    x0, y0, x1, y1 = blinking.eyes_box(0)
    seen = blinking.open_eyed(0, np.array([11, 13, 20]))
    clip = blinking.frames(0)
    assert (seen[[0, 2]] == clip[[11, 20]]).all()
    assert (seen[1, y0:y1, x0:x1] == clip[11, y0:y1, x0:x1]).all()
    assert (seen[1, :y0] == clip[13, :y0]).all()
    assert (blinking.open_eyed(0)[13] == seen[1]).all()

    config = DecoderTrainingConfig(batch=12, blink_share=1.0)
    batch = read_decoder_batch(blinking, config, np.random.default_rng(0))
    assert batch.lids.shape == (12, 3, 4)
    assert (batch.lids.flatten(1).max(1).values == 1).all()  # every cut has closed eyes in it
    closed = batch.lids > 0.5
    assert (batch.frames[~closed] == batch.seen[~closed]).all()
    assert (batch.frames[closed] != batch.seen[closed]).flatten(1).any(1).all()
    never = dataclasses.replace(config, blink_share=0.0)
    batch = read_decoder_batch(blinking, never, np.random.default_rng(0))
    assert not (batch.lids.flatten(1).max(1).values == 1).all()


@pytest.mark.parametrize("blink_share", [1.0, None])
def test_training_tells_the_decoder_of_lids(blinking, clips, tmp_path, blink_share):
    store = clips if blink_share is None else blinking.directory
    codec = fit_codec(CodecTrainingConfig(codec=CODEC), clips_dir=store)
    before = codec.warp.from_lids.weight.detach().clone()
    optimiser = OptimiserConfig(
        steps=4, learning_rate=1e-3, warmup_steps=0, schedule="constant", weight_decay=0.0
    )
    config = DecoderTrainingConfig(optimiser=optimiser, batch=2, blink_share=blink_share or 0.0)
    train_decoder(codec, config, clips_dir=store, held_out_dir=store, out_dir=tmp_path, log_every=4)
    changed = (codec.warp.from_lids.weight - before).abs().max()
    assert (changed > 1e-3) if blink_share else (changed == 0)  # nothing to learn of open eyes


def test_noise_has_the_spread_of_the_latents_and_predictions_replace_it(clips):
    config = DecoderTrainingConfig(batch=3)
    batch = read_decoder_batch(ClipStore(clips), config, np.random.default_rng(0))
    latents = encoded_latents(TinyCodec(CODEC), batch)
    assert latents.shape == (3, 3, 4, 8, 8)
    known = torch.full((3, 3, 4, 8, 8), torch.nan)
    known[1] = 7.0
    generator = torch.Generator().manual_seed(0)
    quiet = noised_latents(latents, known, noise=0, spread=torch.ones(1), generator=generator)
    loud = noised_latents(latents, known, noise=2, spread=torch.ones(1), generator=generator)
    assert torch.all(quiet[1] == 7)
    assert torch.all(loud[1] == 7)
    assert torch.equal(quiet[0], latents[0])
    assert not torch.equal(quiet[0], loud[0])


def write_prediction(directory: Path, *, reference: int = 30) -> None:
    """Latents 2 to 7 of clip 2 as a generator might say them."""
    from safetensors.torch import save_file

    save_file(
        {
            "latents": torch.full((1, 6, 4, 8, 8), 0.5).half(),
            "clip": torch.tensor([2]),
            "reference": torch.tensor([reference]),
            "first": torch.tensor([2]),
        },
        directory / "predictions-0000.safetensors",
    )


def test_predicted_clips_bring_their_own_frames_and_reference(clips, tmp_path):
    write_prediction(tmp_path)
    config = DecoderTrainingConfig(batch=2, predicted_share=1.0)
    store = ClipStore(clips)
    batch = PredictionReader(tmp_path)(store, config, np.random.default_rng(0))
    reference = torch.from_numpy(np.array(store.frames(2)[30])).float().movedim(-1, 0) / 127.5 - 1
    assert torch.allclose(batch.reference[0], reference)
    assert torch.all(batch.predicted == 0.5)
    # Latent 2 + offset shows video frames 4 (2 + offset) - 3 on: one of these starts must fit.
    frames = torch.from_numpy(np.array(store.frames(2))).float().movedim(-1, 1) / 127.5 - 1
    starts = [4 * (2 + offset) - 3 for offset in range(4)]
    assert any(torch.allclose(batch.frames[0].flatten(0, 1), frames[s : s + 12]) for s in starts)


def test_the_reference_of_a_predicted_clip_has_the_open_eyes_it_was_predicted_with(
    blinking, tmp_path
):
    write_prediction(tmp_path, reference=13)
    config = DecoderTrainingConfig(batch=1, predicted_share=1.0)
    batch = PredictionReader(tmp_path)(blinking, config, np.random.default_rng(0))
    opened = blinking.open_eyed(2, np.array([13]))[0]
    assert (opened != blinking.frames(2)[13]).any()
    assert torch.allclose(batch.reference[0], to_signed(opened))


@pytest.mark.parametrize("weight", [0.0, 5.0, None])
def test_mouths_of_predicted_clips_have_their_own_weight(weight, clips, tmp_path):
    write_prediction(tmp_path)
    config = DecoderTrainingConfig(
        batch=1, predicted_share=1.0, mouth_weight=9.0, predicted_mouth_weight=weight
    )
    store = ClipStore(clips)
    batch = PredictionReader(tmp_path)(store, config, np.random.default_rng(0))
    x0, y0, x1, y1 = store.mouth_box(2)
    weights = batch.weight[0, 0, 0, 0]
    expected = 9.0 if weight is None else weight
    assert weights[y0:y1, x0:x1].max() == pytest.approx(float(weights[0, 0]) * expected)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-5)


def test_the_critic_judges_no_mouth_that_has_no_weight(clips, tmp_path):
    write_prediction(tmp_path)
    base = DecoderTrainingConfig(
        batch=2,
        predicted_share=1.0,
        optimiser=OptimiserConfig(steps=1),
        critic=CriticConfig(crop_px=24, dim=8, share=0.5, warmup_steps=0),
    )
    changed = {}
    for weight in (0.0, 5.0):
        training = DecoderTraining(
            TinyCodec(CODEC),
            dataclasses.replace(base, predicted_mouth_weight=weight),
            store=ClipStore(clips),
            held_out=ClipStore(clips),
            out_dir=tmp_path / str(weight),
            read_batch=PredictionReader(tmp_path),
            session=Session(),
        )
        before = parameters_to_vector(training.critic.module.parameters()).detach().clone()
        training.take_step()
        after = parameters_to_vector(training.critic.module.parameters()).detach()
        changed[weight] = float((after - before).abs().max())
    assert changed[0.0] == 0
    assert changed[5.0] > 0


def test_a_folder_without_predictions_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no predictions"):
        PredictionReader(tmp_path)
