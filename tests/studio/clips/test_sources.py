"""The manifest of the training data is complete and its check sees every difference."""

import dataclasses

import pytest

from joyflash_cli.errors import DataError
from joyflash_cli.studio.clips.sources import check_sources, checksum, read_sources


def test_every_pack_names_its_source_licence_and_sum():
    for pack in read_sources():
        assert pack.sources
        assert pack.licence
        assert len(pack.sha256) == 64


def test_a_changed_renamed_or_missing_file_is_seen(tmp_path):
    folder = tmp_path / "voices"
    folder.mkdir()
    (folder / "a.opus").write_bytes(b"one")
    (folder / "b.opus").write_bytes(b"two")
    pack = dataclasses.replace(read_sources()[0], path="voices", sha256=checksum(folder))
    check_sources(tmp_path, (pack,))
    (folder / "b.opus").rename(folder / "c.opus")
    with pytest.raises(DataError, match="voices differs"):
        check_sources(tmp_path, (pack,))
    (folder / "c.opus").rename(folder / "b.opus")
    check_sources(tmp_path, (pack,))
    (folder / "a.opus").write_bytes(b"One")
    with pytest.raises(DataError, match="voices differs"):
        check_sources(tmp_path, (pack,))
    with pytest.raises(DataError, match="elsewhere is missing"):
        check_sources(tmp_path, (dataclasses.replace(pack, path="elsewhere"),))
