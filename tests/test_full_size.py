"""Full-size profiles the whole way: published files converted, then rendered by profile alone.

The widths are small and random; layouts, encoders, codec, cache and sampler are the real ones.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch
from presets import JOYAVATAR_1_3B
from public_layouts import save_state_dict
from published import CLIP, TEXT, TEXT_DIM, VAE, WAV2VEC2, write_profile, write_tokenizer

from joyflash_cli.config import to_dict
from joyflash_cli.errors import CheckpointError
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.model.config import AudioAttentionConfig, FaceAttentionConfig, TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.render import JoyFlash, plan_render, read_request
from joyflash_cli.render.request import with_sampler_options
from joyflash_cli.weights.convert import convert_weights, read_template
from joyflash_cli.weights.store import resolve_checkpoint

LIVETALK, AVATARFORCING, JOYAVATAR = "livetalk-1.3b", "avatarforcing-1.3b", "joyavatar-flash-1.3b"
SIZE = (48, 32)


def edit(folder, **sections):
    path = folder / "checkpoint.json"
    description = json.loads(path.read_text())
    for name, values in sections.items():
        description[name] = values if name == "framing" else {**description[name], **values}
    path.write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Converted checkpoints of the public profiles, and one of the paper's layout."""
    folder = tmp_path_factory.mktemp("full")
    made = {JOYAVATAR: write_joyavatar(folder / JOYAVATAR)}
    for name in (LIVETALK, AVATARFORCING):
        source = write_profile(folder / f"{name}-published", name)
        made[name] = convert_weights(name, source=source, out_dir=folder / name, dtype="fp32")
    for path in made.values():
        edit(path, framing={"sizes": [SIZE]})
    return made


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Prompt embeddings of one test are not another's; no face models of this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))


SMALL_JOYAVATAR = TransformerConfig(
    dim=64, num_layers=3, num_heads=2, ffn_dim=48, freq_dim=32, in_channels=36, text_dim=TEXT_DIM,
    image_token_dim=CLIP["hidden_size"],
    audio_attention=AudioAttentionConfig(audio_dim=16, tokens_per_latent=21, projection_dim=24),
    face_attention=FaceAttentionConfig(face_dim=512, num_tokens=4),
)  # fmt: skip


def write_joyavatar(folder):
    """A checkpoint directory of the paper's layout, as a user would bring it."""
    from joyflash_cli.codec.wan import wan_vae_module
    from joyflash_cli.encoders.image import image_encoder_module
    from joyflash_cli.encoders.text import text_encoder_module
    from joyflash_cli.encoders.wav2vec2 import wav2vec2_module

    torch.manual_seed(11)
    folder.mkdir(parents=True)
    template = read_template(JOYAVATAR)
    transformer = CausalTransformer(SMALL_JOYAVATAR)
    for parameter in transformer.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    parts = {
        "transformer": (transformer, to_dict(SMALL_JOYAVATAR)),
        "codec": (wan_vae_module(VAE), {"kind": "wan", **VAE}),
        "front_end": (
            wav2vec2_module(WAV2VEC2),
            {"kind": "wav2vec2", "config": WAV2VEC2, "options": template["front_end"]["options"]},
        ),
        "text_encoder": (text_encoder_module(TEXT), {"kind": "umt5", "config": TEXT}),
        "image_encoder": (image_encoder_module(CLIP), {"kind": "clip", "config": CLIP}),
    }
    description = {"format": 1, "name": JOYAVATAR, "version": "1", "licence": "CC0-1.0"}
    for name, (module, section) in parts.items():
        save_state_dict(module, folder / f"{name}.safetensors")
        description[name] = section
    conditioning = {**template["conditioning"], "padded_clip_latents": 3}
    description |= {"sampler": template["sampler"], "framing": template["framing"]}
    description["conditioning"] = conditioning
    (folder / "checkpoint.json").write_text(json.dumps(description))
    write_tokenizer(folder / "tokenizer.json")
    return folder


def load(checkpoints, name):
    return JoyFlash.load(name, checkpoints[name], device="cpu", dtype="float32")


def frames_of(joyflash, request):
    return np.concatenate([chunk.frames for chunk in joyflash.stream(request)])


def first_frames(joyflash, request):
    """Frames of the first block alone."""
    stream = joyflash.stream(request)
    frames = next(stream).frames
    stream.close()
    return frames


@pytest.mark.parametrize(
    ("name", "fps", "first", "steady"),
    [(LIVETALK, 16, 9, 12), (AVATARFORCING, 25, 17, 16), (JOYAVATAR, 16, 9, 12)],
)
def test_every_profile_renders_by_its_settings_alone(
    checkpoints, toy_picture, toy_voice, name, fps, first, steady
):
    joyflash = load(checkpoints, name)
    request = read_request(joyflash.files, toy_picture, toy_voice, prompt="a person talking")
    plan = plan_render(request, joyflash.sampler)
    num_frames = -(-13 * fps // 10)  # 1.3 s
    assert (plan.num_frames, plan.fps, plan.size_px) == (num_frames, fps, SIZE)
    chunks = list(joyflash.stream(request))
    sizes = [len(chunk.frames) for chunk in chunks]
    assert sizes[0] == first
    assert sum(sizes) == num_frames
    assert all(size == steady for size in sizes[1:-1])
    assert len(chunks) == plan.num_blocks
    assert chunks[0].frames.shape[1:] == (SIZE[1], SIZE[0], 3)


@pytest.mark.parametrize("name", [LIVETALK, AVATARFORCING, JOYAVATAR])
def test_picture_sound_prompt_and_seed_all_reach_the_frames(
    checkpoints, toy_picture, toy_voice, name
):
    from joyflash_cli.types import AudioClip

    joyflash = load(checkpoints, name)

    def request(**changes):
        return read_request(joyflash.files, toy_picture, clip, **{"prompt": "a smile", **changes})

    times = np.arange(12_000) / 16_000
    clip = AudioClip((0.4 * np.sin(1400 * times))[:, None].astype(np.float32), 16_000)
    base = first_frames(joyflash, request())
    assert np.array_equal(base, first_frames(joyflash, request()))
    assert not np.array_equal(base, first_frames(joyflash, request(seed=1)))
    assert not np.array_equal(base, first_frames(joyflash, request(prompt="the camera")))
    fading = np.linspace(1, -1, 12_000, dtype=np.float32)[:, None]
    other_sound = dataclasses.replace(request(), audio=AudioClip(clip.samples * fading, 16_000))
    assert not np.array_equal(base, first_frames(joyflash, other_sound))
    face = request().face
    inverted = dataclasses.replace(face, pixels=255 - face.pixels)
    other_picture = dataclasses.replace(request(), face=inverted)
    assert not np.array_equal(base, first_frames(joyflash, other_picture))


def test_the_first_frame_is_the_reference_s_own_latent(checkpoints, toy_picture, toy_voice):
    """LiveTalk replaces its first latent, AvatarForcing begins with it: both show the picture."""
    for name in (LIVETALK, AVATARFORCING):
        joyflash = load(checkpoints, name)
        request = read_request(joyflash.files, toy_picture, toy_voice, prompt="a")
        codec = joyflash._parts.codec
        pixels = torch.from_numpy(request.face.pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        latent = codec.reference_latents(pixels)[:, None]
        decoded, _ = codec.decode(latent, codec.start_decoding(pixels))
        expected = ((decoded[0, 0] + 1) * 127.5).round().permute(1, 2, 0).numpy()
        first = first_frames(joyflash, request)[0]
        assert np.abs(first.astype(float) - expected).max() <= 1, name


def test_prompts_are_encoded_once_and_then_the_encoder_is_not_needed(
    checkpoints, toy_picture, toy_voice, tmp_path, monkeypatch
):
    import shutil

    from joyflash_cli.render import prompts

    folder = shutil.copytree(checkpoints[LIVETALK], tmp_path / "copy")
    encoded = []
    original = prompts._encode_text
    monkeypatch.setattr(prompts, "_encode_text", lambda *a: encoded.append(a[1]) or original(*a))
    joyflash = JoyFlash.load(LIVETALK, folder, device="cpu", dtype="float32")
    request = read_request(joyflash.files, toy_picture, toy_voice)
    first = first_frames(joyflash, request)
    for path in folder.glob("text_encoder*"):
        path.unlink()
    without = JoyFlash.load(LIVETALK, folder, device="cpu", dtype="float32")
    assert np.array_equal(first, first_frames(without, request))
    assert encoded == [joyflash.files.description.conditioning.default_prompt]
    with pytest.raises(CheckpointError, match="'a smile'") as caught:
        read_request(without.files, toy_picture, toy_voice, prompt="a  smile")
    assert caught.value.code == "E-CHECKPOINT-TEXT"
    assert "--prompt" in caught.value.hint


def test_a_checkpoint_may_bring_the_embedding_of_its_default_prompt_alone(
    checkpoints, toy_picture, toy_voice, tmp_path, monkeypatch
):
    import shutil

    from joyflash_cli.render.prompts import text_states
    from joyflash_cli.weights.prompt_cache import PROMPT_PART, PromptEmbedding, write_prompt

    folder = shutil.copytree(checkpoints[AVATARFORCING], tmp_path / "copy")
    files = resolve_checkpoint(AVATARFORCING, folder)
    config, written = files.description.conditioning, folder / f"{PROMPT_PART}.safetensors"
    states, prompt = text_states(files, "", torch.device("cpu")), config.default_prompt
    write_prompt(PromptEmbedding(states, prompt, config.text_encoder), written)
    for path in folder.glob("text_encoder*"):
        path.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    joyflash = JoyFlash.load(AVATARFORCING, folder, device="cpu", dtype="float32")
    assert len(first_frames(joyflash, read_request(joyflash.files, toy_picture, toy_voice))) == 17
    # The same file, fetched instead of the encoder, makes a conversion complete.
    source = checkpoints[AVATARFORCING].with_name(f"{AVATARFORCING}-published")
    again = convert_with_embedding(source, written, tmp_path, monkeypatch)
    assert not resolve_checkpoint(AVATARFORCING, again).has("text_encoder")
    request = read_request(resolve_checkpoint(AVATARFORCING, again), toy_picture, toy_voice)
    assert request.prompt == ""
    written.unlink()
    with pytest.raises(CheckpointError, match="no text encoder"):
        read_request(joyflash.files, toy_picture, toy_voice)


def convert_with_embedding(source, embedding, folder, monkeypatch):
    """A conversion whose sources hold a prompt embedding and no text encoder."""
    from joyflash_cli.weights import convert
    from joyflash_cli.weights.sources import find_sources

    found = find_sources(AVATARFORCING, source)
    del found["text_encoder"]
    found["prompt_embedding"] = (embedding,)
    monkeypatch.setattr(convert, "find_sources", lambda *_: found)
    return convert_weights(AVATARFORCING, source=source, out_dir=folder / "again")


def test_face_notices_come_with_the_request(checkpoints, toy_picture, toy_voice):
    """Without models the way without a face is taken, and the user is told so."""
    files = resolve_checkpoint(JOYAVATAR, checkpoints[JOYAVATAR])
    warnings = read_request(files, toy_picture, toy_voice).warnings
    assert any("face is not recognised" in warning for warning in warnings)
    files = resolve_checkpoint(LIVETALK, checkpoints[LIVETALK])
    warnings = read_request(files, toy_picture, toy_voice).warnings
    assert not any("recognised" in warning for warning in warnings)


def test_a_face_embedding_reaches_the_frames(checkpoints, toy_picture, toy_voice, monkeypatch):
    from joyflash_cli.encoders import face

    joyflash = load(checkpoints, JOYAVATAR)
    request = read_request(joyflash.files, toy_picture, toy_voice, prompt="a")
    nobody = first_frames(joyflash, request)
    somebody = np.random.default_rng(0).normal(size=512).astype(np.float32)

    class Encoder:
        def __init__(self, directory):
            pass

        def encode(self, pixels):
            return somebody / np.linalg.norm(somebody)

    monkeypatch.setattr(face, "FaceEncoder", Encoder)
    monkeypatch.setattr(
        face, "find_face_models", lambda pack: face.FaceModels(checkpoints[JOYAVATAR], "")
    )
    assert not np.array_equal(nobody, first_frames(joyflash, request))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (LIVETALK, ("rolling", "psb", "urcr")),
        (LIVETALK, ("exact-timesteps",)),
        (AVATARFORCING, ("urcr", "psb", "mci")),
    ],
)
def test_untrained_options_run_the_whole_way_and_say_so(
    checkpoints, toy_picture, toy_voice, name, options
):
    files = resolve_checkpoint(name, checkpoints[name])
    changed, labels = with_sampler_options(files, options)
    assert len(labels) == len(options)
    assert all("not trained" in label for label in labels)
    request = read_request(files, toy_picture, toy_voice, prompt="a")
    plain = first_frames(JoyFlash.load(files, device="cpu", dtype="float32"), request)
    other = first_frames(JoyFlash.load(changed, device="cpu", dtype="float32"), request)
    assert plain.shape == other.shape
    assert not np.array_equal(plain, other)


def test_the_command_line_renders_a_converted_directory(
    checkpoints, toy_picture, toy_voice, tmp_path
):
    from joyflash_cli.cli.app import run

    output = tmp_path / "talk.mp4"
    arguments = [
        "render", "--profile", LIVETALK, "--checkpoint", str(checkpoints[LIVETALK]),
        "--image", str(toy_picture), "--audio", str(toy_voice), "--output", str(output),
        "--device", "cpu", "--dtype", "bfloat16", "--quiet",
    ]  # fmt: skip
    assert run(arguments) == 0
    info = probe(output)
    assert (info.num_frames, info.fps, info.width, info.height) == (21, 16, *SIZE)


def test_exact_counts_of_the_paper_s_model():
    """Every part by itself, so that a change of any of them is seen."""
    with torch.device("meta"):
        model = CausalTransformer(JOYAVATAR_1_3B)
    count = {name: 0 for name in ("audio", "face", "image", "rest")}
    for name, parameter in model.named_parameters():
        kind = next((k for k in ("audio", "face", "image") if f"{k}_" in name), "rest")
        count[kind] += parameter.numel()
    dim, layers, audio_dim, width = 1536, 30, 768, 2048
    assert count["audio"] == (
        layers * 2 * width * dim  # keys and values, no bias
        + audio_dim * width + 2 * width + 21 * width  # projector, its norm, places in the window
    )  # fmt: skip
    assert count["face"] == (
        layers * 2 * dim * dim
        + 512 * 1024 + 1024 + 1024 * 4 * dim + 4 * dim + 2 * dim
    )  # fmt: skip
    assert count["image"] + count["rest"] == 1_564_428_608  # Wan2.1-Fun 1.3B InP as published
    assert sum(count.values()) == 1_903_176_000
    assert model.config.in_channels == 16 + 4 + 16
