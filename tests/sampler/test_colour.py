import torch

from joyflash_cli.sampler.colour import ColourMatch

PICTURE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.6
FRAMES = torch.rand(1, 6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8


def test_the_reference_itself_is_not_changed() -> None:
    matched = ColourMatch(PICTURE, 1.0)(PICTURE[:, None])

    assert torch.allclose(matched, PICTURE[:, None], atol=1e-5)


def test_every_frame_is_matched_by_itself() -> None:
    match = ColourMatch(PICTURE, 1.0)

    together, alone = match(FRAMES), match(FRAMES[:, 4:5])

    assert torch.equal(together[:, 4:5], alone)


def test_a_cast_over_the_whole_frame_goes_away() -> None:
    cast = torch.tensor([1.0, 0.8, 0.6])[:, None, None]
    tinted = ((PICTURE + 1) * cast - 1)[:, None]

    matched = ColourMatch(PICTURE, 1.0)(tinted)

    before = (tinted.mean((-2, -1)) - PICTURE[:, None].mean((-2, -1))).abs().max()
    after = (matched.mean((-2, -1)) - PICTURE[:, None].mean((-2, -1))).abs().max()
    assert after < before / 5


def test_strength_mixes_and_zero_changes_nothing() -> None:
    full, half = ColourMatch(PICTURE, 1.0)(FRAMES), ColourMatch(PICTURE, 0.5)(FRAMES)

    assert torch.equal(ColourMatch(PICTURE, 0.0)(FRAMES), FRAMES)
    assert torch.allclose(half, (full + FRAMES) / 2, atol=1e-6)


def test_a_picture_of_one_colour_gives_numbers() -> None:
    plain = torch.zeros(1, 3, 8, 8)

    assert ColourMatch(plain, 1.0)(plain[:, None]).isfinite().all()
    assert ColourMatch(plain, 1.0)(FRAMES).isfinite().all()
