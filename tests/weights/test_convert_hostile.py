"""Files that were made to harm: nothing of them executes, and none eats memory."""

import io
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from collections import OrderedDict

import pytest
import torch

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.convert_pickles import check_archive, load_pickle
from joyflash_cli.weights.convert_sources import TensorSource

GOOD = {"a.weight": torch.arange(12.0).view(3, 4), "b.bias": torch.ones(5)}


class Call:
    """Unpickling it would call something."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Stated:
    """Unpickling it would call something with a state afterwards."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return OrderedDict, (), None, None, iter([("x", Call(os.system, f"touch {self.marker}"))])


def rewritten(source, target, change, **options):
    """The archive with its records changed by ``change(name, content)``; ``None`` drops one."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        for record in old.infolist():
            content = change(record.filename, old.read(record))
            if content is not None:
                new.writestr(record.filename, content)
    return target


def strided(size, stride):
    """A tensor that claims ``size`` numbers and holds one."""
    return torch.ones(1).as_strided(size, stride)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.pt"
    torch.save(GOOD, path)
    return path


def refused(path, code="E-CHECKPOINT-DAMAGED"):
    with pytest.raises(CheckpointError) as caught:
        TensorSource((path,))
    assert caught.value.code == code
    assert caught.value.hint
    assert len(caught.value.message.splitlines()) == 1
    return caught.value.message


def test_what_pytorch_writes_is_read(good):
    source = TensorSource((good,))
    assert source.shapes == {"a.weight": (3, 4), "b.bias": (5,)}
    with source.opened() as read:
        assert torch.equal(read("a.weight"), GOOD["a.weight"])


@pytest.mark.parametrize(
    "make",
    [
        lambda m: Call(os.system, f"touch {m}"),
        lambda m: Call(eval, f"open({str(m)!r}, 'w')"),
        lambda m: Call(exec, f"open({str(m)!r}, 'w')"),
        lambda m: Call(subprocess.check_output, ["touch", str(m)]),
        lambda m: Call(getattr, Call(__import__, "os"), "system"),
        lambda m: Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {m}"))),
        lambda m: Call(torch.load, str(m)),
        Stated,
    ],
)
@pytest.mark.parametrize("where", ["whole", "value", "beside", "key"])
def test_nothing_executes(tmp_path, make, where):
    marker = tmp_path / "executed"
    evil = make(marker)
    payload = {
        "whole": evil,
        "value": GOOD | {"c": evil},
        "beside": {"generator": GOOD, "optimizer": {"state": [evil]}},
        "key": GOOD | {(1, evil): torch.ones(1)},
    }[where]
    path = tmp_path / "evil.pt"
    torch.save(payload, path)
    assert "execute" in refused(path, "E-CHECKPOINT-PICKLE")
    assert not marker.exists()


def test_an_archive_in_an_archive_is_no_pickle(good, tmp_path):
    path = tmp_path / "nested.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(good, "archive/data.pkl")
    refused(path)


def test_storage_that_is_shorter_than_its_tensor(good, tmp_path):
    cut = rewritten(good, tmp_path / "cut.pt", lambda n, c: c[:4] if n.endswith("data/0") else c)
    assert "no record" in refused(cut)
    absent = rewritten(
        good, tmp_path / "absent.pt", lambda n, c: None if n.endswith("data/0") else c
    )
    refused(absent)


@pytest.mark.parametrize("size", [(1 << 40,), (1 << 16, 1 << 16), (2, 1)])
def test_tensors_that_claim_more_than_the_file_holds(tmp_path, size):
    path = tmp_path / "claims.pt"
    torch.save(GOOD | {"c": strided(size, (0,) * len(size))}, path)
    assert "c claims" in refused(path)


def test_tensors_of_other_kinds(tmp_path):
    path = tmp_path / "kinds.pt"
    for tensor in (torch.ones(2, device="meta"), torch.ones(2, dtype=torch.complex64)):
        torch.save({"c": tensor}, path)
        refused(path)
    torch.save({"c": torch.nn.Parameter(torch.ones(2))}, path)
    with TensorSource((path,)).opened() as read:
        assert not read("c").requires_grad


def test_a_zip_bomb_is_not_unpacked(good, tmp_path):
    bomb = rewritten(
        good,
        tmp_path / "bomb.pt",
        lambda n, c: bytes(64 << 20) if n.endswith("data.pkl") else c,
        compression=zipfile.ZIP_DEFLATED,
    )
    assert bomb.stat().st_size < 1 << 20
    assert "compressed" in refused(bomb)


def test_records_that_overlap(good, tmp_path):
    """Many entries of the directory that all name the same long record."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(100_000))
        long = archive.getinfo("archive/data/0")
        for index in range(1, 50):
            twin = zipfile.ZipInfo(f"archive/data/{index}")
            for name in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(twin, name, getattr(long, name))
            archive.filelist.append(twin)
    path = tmp_path / "overlap.pt"
    path.write_bytes(content.getvalue())
    assert "overlap" in refused(path)


def test_a_directory_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "index.pt"
    end = b"PK\x05\x06" + bytes(8) + (0xF0000000).to_bytes(4, "little") + bytes(6)
    path.write_bytes(b"PK\x03\x04" + bytes(1000) + end)
    assert "directory" in refused(path)
    # The 64-bit form states it elsewhere.
    end_64 = b"PK\x06\x06" + bytes(36) + (1 << 40).to_bytes(8, "little") + bytes(8)
    locator = b"PK\x06\x07" + bytes(16)
    end = b"PK\x05\x06" + bytes(8) + b"\xff" * 8 + bytes(2)
    path.write_bytes(b"PK\x03\x04" + bytes(1000) + end_64 + locator + end)
    assert "directory" in refused(path)


def test_links_are_followed_to_files_only(good, tmp_path):
    link = tmp_path / "link.pt"
    link.symlink_to(good)
    assert TensorSource((link,)).shapes  # as the Hub's own cache does
    text = tmp_path / "text"
    text.write_text("root:x:0:0")
    other = tmp_path / "other.pt"
    other.symlink_to(text)
    message = refused(other)
    assert "root:x" not in message


def test_what_is_no_archive(tmp_path):
    path = tmp_path / "x.pt"
    for content in (b"", b"PK\x05\x06", b"PK\x05\x06" + bytes(18), b"\x80\x04N.", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_pickle(path, dict)
    with pytest.raises(CheckpointError):
        check_archive(tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_hostile_files_need_no_memory(good, tmp_path):
    """All of them under a limit that any of them would break."""
    claims = tmp_path / "claims.pt"
    torch.save({"c": strided((1 << 31,), (0,))}, claims)
    huge = tmp_path / "huge.pt"
    torch.save({"c": Call(bytearray, 1 << 36), **GOOD}, huge)
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from joyflash_cli.weights.convert_sources import TensorSource
        from joyflash_cli.errors import CheckpointError
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
        for name in sys.argv[1:]:
            try:
                print(len(TensorSource((Path(name),)).shapes))
            except CheckpointError as error:
                print(error.code)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(claims), str(huge), str(good)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["E-CHECKPOINT-DAMAGED", "E-CHECKPOINT-DAMAGED", "2"]
