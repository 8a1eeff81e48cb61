"""Audio guidance: a straight line between the pass without sound and the pass with it."""

import dataclasses

import torch
from toy_stream import ROLLING, ToySource, toy_stream


class SilentSource(ToySource):
    def frames(self, start, stop):
        conditioning = super().frames(start, stop)
        return conditioning.with_frames(audio=torch.zeros_like(conditioning.audio))


def _first_window(guidance, source=None):
    profile = dataclasses.replace(ROLLING, audio_guidance=guidance)
    stream = toy_stream(profile, 3, source=source or ToySource(3))
    stream.admit_block()
    return stream, stream.window_pass()


@torch.inference_mode()
def test_guidance_extrapolates_from_the_silent_pass():
    plain, silent = _first_window(1.0)[1], _first_window(1.0, SilentSource(3))[1]
    assert not torch.allclose(plain.prediction, silent.prediction, atol=1e-3)
    guided = _first_window(2.5)[1]
    expected = silent.prediction + 2.5 * (plain.prediction - silent.prediction)
    assert torch.allclose(guided.prediction, expected, atol=1e-5)
    assert torch.allclose(_first_window(0.0)[1].prediction, silent.prediction, atol=1e-6)


@torch.inference_mode()
def test_what_is_cached_does_not_depend_on_guidance():
    latents = torch.randn(1, 3, 4, 2, 4, generator=torch.Generator().manual_seed(0))
    stored = [_first_window(guidance)[0].clean_pass(latents, 0) for guidance in (1.0, 2.5)]
    for (key, value), (other_key, other_value) in zip(*stored, strict=True):
        assert torch.equal(key, other_key)
        assert torch.equal(value, other_value)
