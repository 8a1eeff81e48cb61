import math
from dataclasses import replace

import pytest
import torch
from toy_segments import toy_segments

from joyflash_cli.errors import ConfigError, DeviceError
from joyflash_cli.model.transformer import TransformerOutput
from joyflash_cli.sampler.segment_settings import SegmentSettings, even_steps, nominal_steps
from joyflash_cli.sampler.solver import bridge_weights, warped_timesteps

RENOISE = SegmentSettings(segment_frames=4, overlap_frames=2, steps=(1000.0, 500.0))
BRIDGE = replace(RENOISE, solver="bridge", steps=(1000.0,))


@pytest.mark.parametrize("settings", [RENOISE, replace(BRIDGE, steps=(1000.0, 500.0))])
def test_the_prefix_is_imposed_before_every_step_and_at_the_end(settings: SegmentSettings) -> None:
    stream = toy_segments(settings)
    inputs = []
    stream.transformer.register_forward_hook(
        lambda _module, given, _output: inputs.append(given[0])
    )

    prefix = torch.full((1, 2, 3, 2, 2), 7.0)
    latents = stream.denoised(1, prefix)

    assert len(inputs) == 2
    assert all((given[:, :2] == 7).all() and (given[:, 2:] != 7).all() for given in inputs)
    assert (latents[:, :2] == 7).all()


def test_the_first_prefix_is_one_latent_of_the_reference_later_ones_two_of_matched_frames() -> None:
    stream = toy_segments(RENOISE, num_blocks=2)
    shown = []
    decoded = stream.decoded
    stream.decoded = lambda latents: shown.append(decoded(latents)) or shown[-1]

    assert torch.equal(stream.prefix(), stream.reference_latents[:, :1])
    blocks = list(stream.blocks())

    (tail,) = stream.codec.encoded
    assert torch.equal(tail, shown[0][:, -5:])
    assert torch.equal(blocks[1].latents[:, :2], tail[:, ::4, :, ::8, ::8])


def test_segments_advance_by_what_they_do_not_share_and_frames_are_shown_once() -> None:
    whole = list(toy_segments(RENOISE, num_blocks=3).blocks())
    ring = list(toy_segments(replace(RENOISE, sound="ring"), num_blocks=3).blocks())

    assert [block.frames.shape[1] for block in whole] == [13, 8, 8]
    assert [block.frames.shape[1] for block in ring] == [8, 8, 8]
    assert torch.equal(whole[0].frames[:, 5:], ring[0].frames)
    assert [RENOISE.video_start(i) for i in range(4)] == [0, 13, 21, 29]
    assert [replace(RENOISE, sound="ring").video_start(i) for i in range(3)] == [0, 8, 16]


@pytest.mark.parametrize("sound", ["whole", "ring"])
def test_every_frame_of_a_sound_is_made(sound: str) -> None:
    settings = SegmentSettings(sound=sound)
    for num_frames in (1, 5, 28, 29, 33, 34, 61, 62, 900):
        num_blocks = settings.num_blocks(num_frames)
        assert settings.video_start(num_blocks) >= num_frames
        assert num_blocks == 1 or settings.video_start(num_blocks - 1) < num_frames


def test_one_bridge_step_takes_no_noise_and_two_take_some() -> None:
    def frames(steps: tuple[float, ...], seed: int) -> torch.Tensor:
        return next(toy_segments(replace(BRIDGE, steps=steps), seed=seed).blocks()).frames

    assert torch.equal(frames((1000.0,), 0), frames((1000.0,), 1))
    assert not torch.equal(frames((1000.0, 500.0), 0), frames((1000.0, 500.0), 1))


def test_bridge_weights_end_below_zero_without_noise() -> None:
    first, second = warped_timesteps(nominal_steps(2), 5.0).tolist()

    assert bridge_weights(1000.0, -1.0) == (-1.001, 0.0)
    assert bridge_weights(first, second) == pytest.approx((-0.166667, 0.372715), abs=1e-6)
    assert bridge_weights(second, -1.0) == pytest.approx((-0.834333, 0.0), abs=1e-6)


def test_guidance_adds_to_what_silence_says() -> None:
    plain, guided = toy_segments(BRIDGE), toy_segments(replace(BRIDGE, audio_guidance=3.0))
    conditioning = plain.source.frames(0, 4)
    silent = conditioning.with_frames(audio=torch.zeros_like(conditioning.audio))
    latents = plain.reference_latents

    heard, deaf = (plain.flow(latents, 1000.0, given) for given in (conditioning, silent))

    expected = deaf + 3.0 * (heard - deaf)
    assert torch.allclose(guided.flow(latents, 1000.0, conditioning), expected, atol=1e-6)
    assert not torch.allclose(heard, deaf, atol=1e-3)


def test_steps_of_any_number_and_their_published_roundings() -> None:
    assert warped_timesteps(nominal_steps(4), 5.0).tolist() == pytest.approx(
        [1000, 937.5, 833.3333, 625]
    )
    assert nominal_steps(1) == (1000.0,)
    assert nominal_steps(3) == (1000.0, 500.5, 1.0)
    rounded = toy_segments(replace(RENOISE, sigma_dtype="bfloat16", timestep_dtype="bfloat16"))
    fed = []
    rounded.transformer.register_forward_hook(lambda _m, given, _o: fed.append(given[1][0, 0]))
    rounded.denoised(0, rounded.prefix())

    assert fed == [1000.0, 832.0]
    assert rounded._sigma(1) == 0.83203125


def test_numbers_that_are_not_finite_end_the_stream() -> None:
    stream = toy_segments(RENOISE)
    stream.transformer.head.projection.bias.fill_(math.nan)

    with pytest.raises(DeviceError, match="Block 0"):
        next(stream.blocks())


@pytest.mark.parametrize(
    "wrong",
    [
        {"overlap_frames": 9}, {"steps": (500.0, 1000.0)}, {"steps": (0.0,)}, {"steps": ()},
        {"ring_s": 1.0}, {"colour_match": 2.0}, {"segment_frames": 10**9},
        {"solver": "euler", "steps": (1000.0, 400.0)},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        SegmentSettings(**wrong)


def test_settings_survive_json() -> None:
    settings = replace(RENOISE, solver="bridge")

    assert settings.to_dict()["kind"] == "segments"
    assert SegmentSettings.from_dict(settings.to_dict()) == settings


EULER = replace(RENOISE, solver="euler", steps=even_steps(2), colour_match=0.0)


def test_euler_walks_from_noise_to_level_zero() -> None:
    stream = toy_segments(EULER)
    flows = iter([torch.full((1, 4, 3, 2, 2), 2.0), torch.full((1, 4, 3, 2, 2), 3.0)])
    stream.flow = lambda *_: next(flows)

    latents = stream.denoised(0, stream.prefix())

    noise = stream.noise.initial(0, 4)
    # Shift 5: levels 1, 5 * 0.5 / (1 + 4 * 0.5), 0.
    expected = noise + (5 / 6 - 1) * 2 + (0 - 5 / 6) * 3
    assert torch.allclose(latents[:, 1:], expected[:, 1:], atol=1e-6)
    assert torch.equal(latents[:, :1], stream.prefix())


@pytest.mark.parametrize(
    ("text", "audio", "weights"),
    [
        (4.5, 4.5, {"full": 4.5, "nothing": -3.5}),
        (4.5, 6.0, {"full": 6.0, "text": 4.5 - 6.0, "nothing": -3.5}),
        (1.0, 6.0, {"full": 1.0}),
    ],
    ids=["joint", "apart", "none"],
)
def test_guidance_by_text_leads_away_from_the_negative_prompt_in_silence(
    text: float, audio: float, weights: dict
) -> None:
    stream = toy_segments(replace(EULER, text_guidance=text, audio_guidance=audio))
    parts = {"full": 1.0, "text": 10.0, "nothing": 100.0}
    seen = []

    def network(latents, _timesteps, given, **_options):
        kind = "full" if given.audio.any() else "nothing" if given.text.sum() < 0 else "text"
        seen.append(kind)
        return TransformerOutput(torch.full_like(latents, parts[kind]), ())

    stream.transformer = network
    conditioning = stream.source.frames(0, 4).with_frames(
        text=torch.ones(1, 2, 3), negative_text=-torch.ones(1, 2, 3)
    )
    flow = stream.flow(stream.reference_latents, 1000.0, conditioning)

    assert flow.unique().item() == pytest.approx(sum(parts[k] * w for k, w in weights.items()))
    assert sorted(seen) == sorted(weights)
    assert stream.settings.passes_per_block == 2 * len(weights)


def test_guidance_by_text_needs_a_negative_prompt() -> None:
    stream = toy_segments(replace(EULER, text_guidance=4.5))
    with pytest.raises(ConfigError, match="negative prompt"):
        stream.flow(stream.reference_latents, 1000.0, stream.source.frames(0, 4))


def test_segments_are_as_long_as_the_tokens_allow() -> None:
    settings = replace(EULER, overlap_frames=4, segment_frames=5, max_tokens=30000)
    sizes = ((720, 400), (720, 720), (400, 720), (1280, 720))
    video = [settings.for_size(*size).segment_video_frames for size in sizes]

    assert video == [105, 57, 105, 33]
    # A number of frames that four divides counts as one less.
    assert replace(settings, max_tokens=64).for_size(32, 32).segment_video_frames == 61
    assert replace(settings, max_tokens=65).for_size(32, 32).segment_video_frames == 65
    assert settings.for_size(720, 400).stride_video_frames == 105 - 13
    with pytest.raises(ConfigError, match="smaller picture"):
        settings.for_size(4096, 4096)
