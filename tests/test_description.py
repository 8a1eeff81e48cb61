"""The description of a checkpoint: every profile's file parses, and what is parsed is complete."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import joyflash_cli
from joyflash_cli.codec.config import TinyCodecConfig, WanCodecConfig
from joyflash_cli.description import parse_description, read_description
from joyflash_cli.errors import ConfigError
from joyflash_cli.weights.manifest import read_manifest
from joyflash_cli.weights.store import resolve_checkpoint

ASSETS = Path(joyflash_cli.__file__).parent / "assets"
AVATARS = [
    path
    for path in sorted((ASSETS / "profiles").glob("*.json"))
    if read_manifest()[path.stem].kind != "base"
]


@pytest.mark.parametrize("path", AVATARS, ids=lambda path: path.stem)
def test_the_file_of_a_profile_is_a_description_once_the_weights_have_told_the_rest(path):
    stated = json.loads(path.read_text())
    told = {"codec": {"kind": "wan"}, "front_end": {"kind": "wav2vec2", **stated["front_end"]}}
    description = parse_description({**stated, **told}, name=path.stem)
    assert description.codec == WanCodecConfig({})
    assert description.codec.spatial_stride == 8
    assert description.sampler.to_dict() == stated["sampler"]
    assert description.hears_text == (stated["transformer"]["text_dim"] is not None)


def test_the_embedded_checkpoint(toy_checkpoint):
    description = resolve_checkpoint("tiny", toy_checkpoint).description
    assert isinstance(description.codec, TinyCodecConfig)
    assert not description.hears_text


def test_another_sampler_is_known_by_it(toy_checkpoint):
    description = read_description(toy_checkpoint / "checkpoint.json")
    settings = replace(description.sampler, mci=False)
    changed = description.with_sampler(settings)
    assert changed.sampler == settings
    assert changed.stated["sampler"]["mci"] is False
    assert description.stated["sampler"]["mci"] is True


def test_a_mistake_names_its_place(toy_checkpoint):
    stated = read_description(toy_checkpoint / "checkpoint.json").stated
    wrong = {**stated, "conditioning": {"default_promt": ""}}
    with pytest.raises(ConfigError, match=r"checkpoint.json: conditioning has no key") as caught:
        parse_description(wrong, name="toy")
    assert "default_prompt" in caught.value.hint
