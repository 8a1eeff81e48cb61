"""The cache holds the sink and the newest frames in fixed memory; unwritten slots are loud."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.cache import KeyValueCache


def make_cache(sink: int = 2, context: int = 3) -> KeyValueCache:
    return KeyValueCache(
        num_layers=2, batch_size=1, tokens_per_frame=2, num_heads=1, head_dim=2,
        sink_frames=sink, context_frames=context,
    )  # fmt: skip


def frames(first: int, num: int) -> tuple:
    """Keys whose every number is the frame index; values are its negative."""
    numbers = torch.arange(first, first + num).repeat_interleave(2).float()
    keys = numbers[None, :, None, None].expand(1, -1, 1, 2)
    return tuple((keys + layer / 10, -keys) for layer in range(2))


def held(pair) -> list[int]:
    return pair[1][0, ::2, 0, 0].neg().int().tolist()


@given(
    sink=st.integers(0, 4),
    context=st.integers(0, 5),
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=12),
)
def test_sink_stays_and_newest_frames_follow(sink, context, lengths):
    cache = make_cache(sink, context)
    size, total = cache.num_bytes, 0
    for length in lengths:
        cache.append(frames(total, length), total)
        total += length
        everything = list(range(total))
        newest = everything[sink:][-context:] if context else []
        assert cache.sink == everything[:sink]
        assert cache.context == newest
        first, second = cache.read(num_sink=len(cache.sink), num_context=len(newest))
        assert held(first) == held(second) == everything[:sink] + newest
        assert torch.allclose(second[0] - first[0], torch.full_like(first[0], 0.1), atol=1e-4)
    assert cache.num_bytes == size


def test_parts_can_be_read():
    cache = make_cache()
    cache.append(frames(0, 4), 0)
    assert held(cache.read(num_sink=2, num_context=1)[0]) == [0, 1, 3]
    assert held(cache.read(num_sink=0, num_context=2)[0]) == [2, 3]
    assert held(cache.read(num_sink=1, num_context=0)[0]) == [1]
    assert held(cache.read(num_sink=0, num_context=0)[0]) == []


def test_full_read_is_a_view():
    cache = make_cache()
    cache.append(frames(0, 5), 0)
    one, other = (cache.read(num_sink=2, num_context=3)[0][0] for _ in range(2))
    assert one.data_ptr() == other.data_ptr()


def test_what_was_never_written_is_loud():
    cache = make_cache(sink=3, context=0)
    cache.append(frames(0, 1), 0)
    stored = cache._layers[0][0]
    assert stored[:, :2].isfinite().all()
    assert stored[:, 2:].isnan().all()


def test_parts_of_frames_are_refused():
    with pytest.raises(ConfigError, match="3 tokens"):
        make_cache().append(tuple((k[:, :3], v[:, :3]) for k, v in frames(0, 2)), 0)
