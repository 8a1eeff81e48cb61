"""Prompt embeddings on disk: found by encoder and prompt, and never a reason to stop."""

import pytest
import torch

from joyflash_cli.weights.places import prompts_directory
from joyflash_cli.weights.prompt_cache import (
    PROMPT_PART,
    PromptEmbedding,
    has_prompt,
    prompt_key,
    read_prompt,
    write_prompt,
)

STATES = torch.arange(12.0).view(1, 3, 4).bfloat16()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache of prompts, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert prompts_directory().is_relative_to(tmp_path / "cache")
    return prompts_directory()


def test_what_was_written_is_found_bit_by_bit(tmp_path, cache):
    key = prompt_key("encoder", "a prompt")
    assert read_prompt(tmp_path, key) is None
    assert write_prompt(PromptEmbedding(STATES, "a prompt", "encoder")).parent == cache
    states = read_prompt(tmp_path, key)
    assert torch.equal(states, STATES)
    assert states.dtype == torch.bfloat16
    assert has_prompt(tmp_path, key)
    assert [p.name for p in cache.iterdir()] == [f"{key}.safetensors"]


def test_another_prompt_or_encoder_is_another_entry(tmp_path):
    keys = {prompt_key(e, p) for e in ("a", "b") for p in ("", "x", "x ")}
    assert len(keys) == 6
    write_prompt(PromptEmbedding(STATES, "x", "a"))
    assert not has_prompt(tmp_path, prompt_key("b", "x"))


def test_the_checkpoint_s_own_embedding_comes_first(tmp_path):
    write_prompt(PromptEmbedding(STATES, "x", "a"))
    write_prompt(PromptEmbedding(STATES + 1, "x", "a"), tmp_path / f"{PROMPT_PART}.safetensors")
    assert torch.equal(read_prompt(tmp_path, prompt_key("a", "x")), STATES + 1)


def test_damaged_entries_are_as_good_as_none(tmp_path, cache):
    key = prompt_key("a", "x")
    cache.mkdir(parents=True)
    for data in (b"", b"not safetensors", bytes(100)):
        (cache / f"{key}.safetensors").write_bytes(data)
        assert read_prompt(tmp_path, key) is None
        assert not has_prompt(tmp_path, key)


def test_a_file_of_another_prompt_under_this_name_is_not_taken(tmp_path, cache):
    key = prompt_key("a", "x")
    write_prompt(PromptEmbedding(STATES, "y", "a")).rename(cache / f"{key}.safetensors")
    assert read_prompt(tmp_path, key) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "cache").write_text("in the way")
    assert write_prompt(PromptEmbedding(STATES, "x", "a")) is None
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
