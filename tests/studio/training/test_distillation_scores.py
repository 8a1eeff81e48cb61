import pytest
import torch
from toy_distillation import CLEAN_CONFIG, CONFIG, SHAPE, toy_batch, toy_model

from joyflash_cli.studio.training.scores import (
    Guidance,
    Segment,
    dmd_gradient,
    dmd_loss,
    draw_sigmas,
    flow_matching_loss,
    guided,
    guided_prediction,
    known_kept,
    noised,
    predict,
    without,
)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def toy_segment(given_first: bool = True) -> Segment:
    source = toy_batch(2, batch=2)
    given = torch.zeros(6, dtype=torch.bool)
    given[0] = given_first
    return Segment(randn(2, 6, *SHAPE), source.frames(0, 6), torch.arange(6), given)


def test_autograd_of_the_generator_loss_is_the_gradient_over_numel():
    generated = randn(2, 6, *SHAPE).requires_grad_()
    gradient = randn(2, 6, *SHAPE, seed=1)
    dmd_loss(generated, gradient).backward()
    torch.testing.assert_close(generated.grad, gradient / gradient.numel())


def test_the_mask_cuts_the_gradient_and_shrinks_numel():
    generated = randn(2, 6, *SHAPE).requires_grad_()
    gradient = randn(2, 6, *SHAPE, seed=1)
    mask = torch.ones_like(generated, dtype=torch.bool)
    mask[:, :3] = False
    dmd_loss(generated, gradient, mask).backward()
    assert (generated.grad[:, :3] == 0).all()
    torch.testing.assert_close(generated.grad[:, 3:], gradient[:, 3:] / mask.sum())


def test_the_loss_is_computed_in_float64():
    loss = dmd_loss(torch.full((1, 4), 1e4), torch.full((1, 4), 1e-3))
    assert loss.dtype == torch.float64
    assert float(loss) == pytest.approx(0.5e-6, rel=1e-6)


def test_every_sample_has_its_own_normaliser():
    x, fake, real = (randn(3, 2, *SHAPE, seed=seed) for seed in (0, 1, 2))
    gradient = dmd_gradient(x, fake, real)
    for i in range(3):
        torch.testing.assert_close(gradient[i], (fake[i] - real[i]) / (x[i] - real[i]).abs().mean())
    assert not dmd_gradient(x.requires_grad_(), fake, real).requires_grad


def test_a_perfect_sample_gives_no_gradient_instead_of_nan():
    x = randn(1, 2, *SHAPE)
    assert (dmd_gradient(x, x, x) == 0).all()


def test_flow_matching_counts_where_the_mask_says():
    flow, clean, noise = (randn(2, 3, seed=seed) for seed in range(3))
    error = (flow - noise + clean).square()
    torch.testing.assert_close(flow_matching_loss(flow, clean, noise), error.mean())
    mask = torch.tensor([[True, False, False], [True, True, False]])
    torch.testing.assert_close(flow_matching_loss(flow, clean, noise, mask), error[mask].mean())
    clean.requires_grad_()
    assert not flow_matching_loss(flow, clean, noise).requires_grad


def test_guidance_conventions():
    nothing, text, full = (randn(5, seed=seed) for seed in range(3))
    # Self-Forcing: cond + w (cond - uncond), w = 3.
    torch.testing.assert_close(
        guided(nothing, text, full, Guidance(4.0, 4.0)), full + 3 * (full - nothing)
    )
    torch.testing.assert_close(guided(nothing, text, full, Guidance(1, 1)), full)
    torch.testing.assert_close(guided(nothing, text, full, Guidance(0, 0)), nothing)
    torch.testing.assert_close(
        guided(nothing, text, full, Guidance(text=5, audio=2)),
        nothing + 5 * (text - nothing) + 2 * (full - text),
    )


@pytest.mark.parametrize("config", [CONFIG, CLEAN_CONFIG])
def test_both_prediction_forms_agree(config):
    segment = toy_segment()
    sigmas = torch.tensor([0.3, 0.9])
    noisy = noised(segment, randn(2, 6, *SHAPE, seed=5), sigmas)
    torch.testing.assert_close(noisy[:, 0], segment.latents[:, 0])
    with torch.no_grad():
        prediction = predict(toy_model(config), segment, noisy, sigmas)
        raw = toy_model(config)(
            noisy, 1000 * sigmas[:, None].expand(2, 6), segment.conditioning,
            positions=torch.arange(6),
        ).prediction  # fmt: skip
    sigma = sigmas[:, None, None, None, None]
    torch.testing.assert_close(noisy - sigma * prediction.flow, prediction.clean)
    said = prediction.clean if config.prediction == "clean" else prediction.flow
    torch.testing.assert_close(said, raw)


@torch.no_grad()
def test_audio_guidance_is_between_heard_and_unheard():
    model, segment, sigmas = toy_model(), toy_segment(), torch.tensor([0.5, 0.7])
    noisy = noised(segment, randn(2, 6, *SHAPE, seed=5), sigmas)
    full = predict(model, segment, noisy, sigmas).clean
    deaf = without(segment.conditioning, ["audio", "text"])
    nothing = predict(model, segment, noisy, sigmas, conditioning=deaf).clean
    assert (full - nothing).abs().max() > 1e-3
    for weight in (1.0, 4.0):
        got = guided_prediction(model, segment, noisy, sigmas, Guidance(9.0, weight)).clean
        torch.testing.assert_close(got, nothing + weight * (full - nothing))


def test_no_score_acts_on_given_frames():
    segment = toy_segment()
    kept = known_kept(segment, randn(2, 6, *SHAPE, seed=5))
    gradient = dmd_gradient(segment.latents, kept, known_kept(segment, segment.latents + 1))
    assert (gradient[:, 0] == 0).all()
    assert (gradient[:, 1:] != 0).any()
    assert not segment.learnt[:, 0].any()
    assert segment.learnt[:, 1:].all()


def test_noise_levels_follow_the_warp():
    generator = torch.Generator().manual_seed(0)
    sigmas = draw_sigmas(4000, generator, shift=5.0, limits=(20.0, 980.0))
    assert sigmas.min() >= 0.02
    assert sigmas.max() <= 0.98
    # The middle step of a uniform draw is warped to 5 / 6.
    assert float(sigmas.median()) == pytest.approx(5 / 6, abs=0.02)
