"""Files that are written whole or not at all, their hashes, and disks that are full."""

import errno
import os

import pytest

from joyflash_cli.files import (
    MAX_NAME_BYTES,
    cannot_write,
    file_sha256,
    name_bytes,
    part_path,
    whole_file,
    write_whole,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("earlier")
    with whole_file(path, durable=True) as part:
        part.write_text("whole")
        assert path.read_text() == "earlier"
    assert path.read_text() == "whole"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_what_was_there(tmp_path, problem):
    path = tmp_path / "a.json"
    path.write_text("earlier")
    with pytest.raises(type(problem)), whole_file(path) as part:  # noqa: PT012
        part.write_text("half")
        raise problem
    assert path.read_text() == "earlier"
    assert names(tmp_path) == ["a.json"]


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    part_path(tmp_path / "a").symlink_to(tmp_path / "theirs")
    write_whole(tmp_path / "a", b"ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "a").read_bytes() == b"ours"


def test_writers_that_meet_have_names_of_their_own(tmp_path):
    path = tmp_path / "a"
    with whole_file(path, mark="one") as one, whole_file(path, mark="two") as two:
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"  # the last to end


def test_a_hidden_name_is_never_too_long(tmp_path):
    path = tmp_path / ("x" * MAX_NAME_BYTES)
    assert name_bytes(part_path(path)) <= MAX_NAME_BYTES
    write_whole(path, "whole")
    assert names(tmp_path) == [path.name]


def test_the_hash_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    pieces = []
    assert file_sha256(tmp_path / "a", on_bytes=pieces.append) == expected
    assert pieces == [3]


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (errno.ENOSPC, "E-OUTPUT-FULL", "the disk is full"),
        (errno.EDQUOT, "E-OUTPUT-FULL", "the disk quota is used up"),
        (errno.EACCES, "E-OUTPUT-WRITE", "Permission denied"),
    ],
)
def test_what_is_told_of_a_write_that_failed(number, code, reason):
    error = cannot_write("a.mp4", OSError(number, os.strerror(number)), hint="choose another")
    assert (error.code, error.exit_code) == (code, 6)
    assert str(error) == f"a.mp4 cannot be written: {reason} (hint: choose another)"
