"""Prompt embeddings on disk: found by encoder and prompt, and never a reason to stop."""

import torch

from joyflash_cli.weights.places import prompts_directory
from joyflash_cli.weights.prompt_cache import (
    PROMPT_PART,
    has_prompt,
    prompt_key,
    read_prompt,
    write_prompt,
)

STATES = torch.arange(12.0).view(1, 3, 4).bfloat16()


def test_what_was_written_is_found_bit_by_bit(tmp_path):
    key = prompt_key("encoder", "a prompt")
    assert read_prompt(tmp_path, key, cache=tmp_path / "c") is None
    path = write_prompt(STATES, key, "a prompt", encoder="encoder", cache=tmp_path / "c")
    states, found = read_prompt(tmp_path, key, cache=tmp_path / "c")
    assert found == path
    assert torch.equal(states, STATES)
    assert states.dtype == torch.bfloat16
    assert has_prompt(tmp_path, key, cache=tmp_path / "c")
    assert [p.name for p in (tmp_path / "c").iterdir()] == [f"{key}.safetensors"]


def test_another_prompt_or_encoder_is_another_entry(tmp_path):
    keys = {prompt_key(e, p) for e in ("a", "b") for p in ("", "x", "x ")}
    assert len(keys) == 6
    write_prompt(STATES, prompt_key("a", "x"), "x", encoder="a", cache=tmp_path)
    assert not has_prompt(tmp_path, prompt_key("b", "x"), cache=tmp_path)


def test_the_checkpoint_s_own_embedding_comes_first(tmp_path):
    key = prompt_key("a", "x")
    own = tmp_path / f"{PROMPT_PART}.safetensors"
    write_prompt(STATES, key, "x", encoder="a", cache=tmp_path / "c")
    write_prompt(STATES + 1, key, "x", encoder="a", path=own)
    states, found = read_prompt(tmp_path, key, cache=tmp_path / "c")
    assert found == own
    assert torch.equal(states, STATES + 1)


def test_damaged_entries_are_as_good_as_none(tmp_path):
    key = prompt_key("a", "x")
    for data in (b"", b"not safetensors", bytes(100)):
        (tmp_path / f"{key}.safetensors").write_bytes(data)
        assert read_prompt(tmp_path, key, cache=tmp_path) is None
        assert not has_prompt(tmp_path, key, cache=tmp_path)


def test_a_file_of_another_prompt_under_this_name_is_not_taken(tmp_path):
    key, other = prompt_key("a", "x"), prompt_key("a", "y")
    written = write_prompt(STATES, other, "y", encoder="a", cache=tmp_path)
    written.rename(tmp_path / f"{key}.safetensors")
    assert read_prompt(tmp_path, key, cache=tmp_path) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert write_prompt(STATES, "k", "x", encoder="a", cache=tmp_path / "file") is None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_user_s_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert prompts_directory().is_relative_to(tmp_path)
