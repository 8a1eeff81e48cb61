"""Folders and shards of users' clips: what belongs together, in what order, without unpacking."""

import io
import json
import tarfile

import pytest

from joyflash_cli.errors import DataError
from joyflash_cli.studio.clips.datasets import list_clips

FILES = {
    "b/two.webm": b"video two",
    "a.one.mp4": b"not a clip: its suffix is .one.mp4",
    "one.mp4": b"video one",
    "one.wav": b"sound one",
    "one.txt": b" A caption.\n",
    "b/two.json": json.dumps({"text": "Another."}).encode(),
    "notes.txt": b"no video of this name",
    ".hidden": b"",
}


def write_folder(folder):
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_shard(path, files=FILES):
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))


def told(clips):
    return [(clip.key, clip.video.read(), clip.sound and clip.sound.read(), clip.caption)
            for clip in clips]  # fmt: skip


def test_files_of_one_name_are_a_clip(tmp_path):
    write_folder(tmp_path)
    assert told(list_clips(tmp_path)) == [
        ("b/two", b"video two", None, "Another."),
        ("one", b"video one", b"sound one", "A caption."),
    ]


def test_a_shard_is_read_in_place(tmp_path):
    write_shard(tmp_path / "shard-0000.tar")
    expected = [
        ("shard-0000.tar/b/two", b"video two", None, "Another."),
        ("shard-0000.tar/one", b"video one", b"sound one", "A caption."),
    ]
    assert told(list_clips(tmp_path / "shard-0000.tar")) == expected
    assert told(list_clips(tmp_path)) == expected
    opened = list_clips(tmp_path)[0].video.open()
    assert opened.seekable()
    assert [path.name for path in tmp_path.iterdir()] == ["shard-0000.tar"]


def test_shards_come_in_order_of_their_names(tmp_path):
    for number in (2, 0, 1):
        write_shard(tmp_path / f"shard-{number}.tar", {"clip.mp4": bytes([number])})
    assert [clip.video.read()[0] for clip in list_clips(tmp_path)] == [0, 1, 2]


def test_what_is_no_data_set_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        list_clips(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no clip"):
        list_clips(tmp_path)
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match="no readable tar"):
        list_clips(tmp_path)


@pytest.mark.parametrize(("name", "content"), [("c.txt", b"\xff\xfe"), ("c.json", b"[1]")])
def test_a_caption_must_be_text(tmp_path, name, content):
    (tmp_path / "c.mp4").write_bytes(b"video")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="The caption of c"):
        list_clips(tmp_path)
