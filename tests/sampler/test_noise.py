"""Noise depends on seed, stream, kind, block and level, and on nothing else."""

import torch

from joyflash_cli.sampler.noise import SeededNoise

SHAPE = (4, 2, 3)


def test_a_stream_does_not_depend_on_its_batch():
    both = SeededNoise(7, SHAPE, streams=(5, 9))
    alone = SeededNoise(7, SHAPE, streams=(9,))
    assert torch.equal(both.initial(3, 3)[1:], alone.initial(3, 3))
    assert torch.equal(both.renoise(3, 2, 3)[1:], alone.renoise(3, 2, 3))
    assert torch.equal(both.condition(3, 6)[1:], alone.condition(3, 6))


def test_order_of_draws_does_not_matter():
    one, other = SeededNoise(7, SHAPE), SeededNoise(7, SHAPE)
    first = one.initial(0, 3), one.renoise(0, 2, 3)
    second = other.renoise(0, 2, 3), other.initial(0, 3)
    assert torch.equal(first[0], second[1])
    assert torch.equal(first[1], second[0])


def test_everything_that_counts_changes_the_draw():
    noise = SeededNoise(7, SHAPE)
    draws = [
        noise.initial(0, 1),
        noise.initial(1, 1),
        noise.renoise(0, 0, 1),
        noise.renoise(0, 2, 1),
        noise.condition(0, 0),
        SeededNoise(8, SHAPE).initial(0, 1),
        SeededNoise(7, SHAPE, streams=(1,)).initial(0, 1),
    ]
    for i, one in enumerate(draws):
        assert not any(torch.equal(one, other) for other in draws[:i])


def test_it_is_standard_normal():
    draw = SeededNoise(0, (16, 32, 32)).initial(0, 3)
    assert draw.shape == (1, 3, 16, 32, 32)
    assert abs(draw.mean()) < 0.02
    assert abs(draw.std() - 1) < 0.02
