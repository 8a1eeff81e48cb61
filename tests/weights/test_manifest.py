"""``weights.toml``: what it must hold, and how a wrong one is told."""

import pytest

from joyflash_cli.errors import ConfigError, UsageError
from joyflash_cli.weights.manifest import (
    find_profile,
    manifest_path,
    read_manifest,
    select_files,
)

PROFILES = {
    "tiny",
    "livetalk-1.3b",
    "avatarforcing-1.3b",
    "soulx-flashhead-1.3b",
    "leaptalk-1.3b",
    "joyavatar-flash-1.3b",
    "omniavatar-1.3b",
    "omniavatar-14b",
    "wan2.1-t2v-1.3b",
    "wan2.1-t2v-14b",
    "wan2.1-fun-1.3b-inp",
    "measures",
}


def test_the_project_s_own_manifest(repository):
    profiles = read_manifest()
    assert set(profiles) == PROFILES
    assert manifest_path() == repository / "weights.toml"
    assert profiles["tiny"].files == ()
    for name, profile in profiles.items():
        assert profile.licence, name
        assert bool(profile.files) == (profile.source == "hub"), name


def test_terms_that_contradict_each_other_must_be_accepted():
    assert find_profile("livetalk-1.3b").acceptance
    assert find_profile("avatarforcing-1.3b").acceptance
    assert not find_profile("tiny").acceptance


def test_what_must_be_accepted_is_said_file_by_file():
    for name, profile in read_manifest().items():
        assert profile.acceptance == any(file.acceptance for file in profile.files), name


def test_every_file_can_be_verified_or_will_be_recorded():
    """A pickle is never taken on trust, but for adapters whose hashes nobody has published."""
    for name, profile in read_manifest().items():
        for file in profile.files:
            assert file.licence, file.name
            if file.format == "pickle" and file.role != "adapter":
                assert file.sha256, (name, file.name)
                assert file.bytes, (name, file.name)


def test_shared_files_are_the_same_everywhere():
    seen = {}
    for profile in read_manifest().values():
        for file in profile.files:
            assert seen.setdefault(file.name, file) == file


def test_avatars_have_all_their_parts():
    for name in ("livetalk-1.3b", "avatarforcing-1.3b"):
        profile = find_profile(name)
        assert profile.kind == "avatar"
        assert {file.role for file in select_files(profile)} == {
            "transformer", "codec", "audio_encoder", "text_encoder", "tokenizer",
        }  # fmt: skip
        assert {"fast_codec", "fast_codec_light"} <= set(profile.roles)
    for name in ("omniavatar-1.3b", "omniavatar-14b"):
        assert find_profile(name).kind == "avatar"
        assert {"transformer", "adapter", "codec", "text_encoder"} <= set(find_profile(name).roles)
    assert find_profile("wan2.1-t2v-1.3b").kind == "base"
    assert find_profile("wan2.1-fun-1.3b-inp").kind == "base"


def test_files_are_chosen_by_role():
    profile = find_profile("livetalk-1.3b")
    everything = select_files(profile)
    assert not any(file.optional for file in everything)
    (fast,) = select_files(profile, roles=["fast_codec"])
    assert fast.path == "taew2_1.safetensors"
    small = select_files(profile, without=["text_encoder", "tokenizer"])
    assert sum(file.bytes for file in everything) - sum(file.bytes for file in small) > 11e9
    both = select_files(profile, roles=["codec", "transformer"])
    assert [file.role for file in both] == ["transformer", "codec"]
    assert select_files(find_profile("tiny")) == ()
    for roles, without, words in [
        (["kodec"], [], "'kodec'"), ([], ["kodec"], "'kodec'"), (["codec"], ["codec"], "no file"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=words):
            select_files(profile, roles=roles, without=without)


def test_unknown_profiles_name_the_known_ones():
    with pytest.raises(UsageError, match="'big'") as caught:
        find_profile("big")
    assert "tiny" in caught.value.hint


WRONG = [
    ("format = 1\n[profiles.x]\ntitel = 'x'", "titel"),
    ("format = 2", "format 2"),
    ("format = 1\nprofile = {}", "'profile'"),
    ("format = 1\nprofiles = 3", "profiles"),
    ("format = 1\n[profiles.x]\ntitle = 3\nsource = 'hub'\nlicence = ''", "title"),
    ("format = 1\n[profiles.x]\ntitle = ''\nsource = 'web'\nlicence = ''", "'web'"),
    ("format = 1\n[profiles.x]\ntitle = ''\nlicence = ''", "source"),
    ("= 1", "not valid TOML"),
    ("\udcff", "not valid TOML"),
    ("a = " + "[" * 50_000, "not valid TOML"),
    ("format = " + "9" * 5_000, "not valid TOML"),
    ("format = '" + "9" * 5_000 + "'", "has format"),
    ("format = 1\n" + "k" * 5_000 + " = 1", "unknown key"),
    ("format = 1\n[profiles.'../../x']", "no name of a profile"),
    ('format = 1\n[profiles."\\u001b[31m"]', "no name of a profile"),
    ("format = 1\n[profiles.x]\n" + "k" * 5_000 + " = 1", "has no key"),
    ("format = 1\n[profiles.x]\ntitle = ['" + "k" * 5_000 + "']", "title"),
]


FILE = """
format = 1
[profiles.x]
title = "x"
source = "hub"
licence = "MIT"
[[profiles.x.files]]
role = "codec"
repo = "a/b"
path = "c.pth"
format = "pickle"
licence = "MIT"
"""
WRONG += [
    (FILE.replace("a/b", "b"), "files[0].repo"),
    (FILE.replace("a/b", "../b"), "files[0].repo"),
    (FILE.replace("c.pth", "/c.pth"), "files[0].path"),
    (FILE.replace("c.pth", "a/../../c.pth"), "files[0].path"),
    (FILE.replace("pickle", "dill"), "'dill'"),
    (FILE + "revision = 'main'", "files[0].revision"),
    (FILE + "sha256 = 'ABC'", "files[0].sha256"),
    (FILE + "bytes = -1", "files[0].bytes"),
]


def test_the_example_that_the_wrong_ones_are_made_of(tmp_path):
    path = tmp_path / "weights.toml"
    path.write_text(FILE)
    assert read_manifest(path)["x"].files[0].name == "a/b/c.pth"


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_a_wrong_manifest_names_file_and_key(tmp_path, text, words):
    path = tmp_path / "weights.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        read_manifest(path)
    assert words in str(caught.value)
    assert "weights.toml" in str(caught.value)
    assert len(str(caught.value)) < 1_000
    assert str(caught.value).isprintable()


def test_a_folder_in_its_place(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(tmp_path)


def test_a_missing_manifest(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_manifest(tmp_path / "weights.toml")
