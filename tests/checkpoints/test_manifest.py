"""``weights.toml``: what it must hold, and how a wrong one is told."""

import pytest

from joyflash_cli.checkpoints.manifest import find_profile, manifest_path, read_manifest
from joyflash_cli.errors import ConfigError, UsageError

PROFILES = {
    "tiny",
    "livetalk-1.3b",
    "avatarforcing-1.3b",
    "joyavatar-flash-1.3b",
    "wan2.1-t2v-1.3b",
    "wan2.1-fun-1.3b-inp",
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
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_a_wrong_manifest_names_file_and_key(tmp_path, text, words):
    path = tmp_path / "weights.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        read_manifest(path)
    assert words in str(caught.value)
    assert "weights.toml" in str(caught.value)


def test_a_missing_manifest(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_manifest(tmp_path / "weights.toml")
