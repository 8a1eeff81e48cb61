"""Signed files: what they claim, that changes show, and that a failure leaves nothing."""

import hashlib
import json
import resource
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("c2pa")

from joyflash_cli.cli.app import run
from joyflash_cli.errors import OutputError, UsageError
from joyflash_cli.media.outputs.writer import open_muxer
from joyflash_cli.media.outputs.xmp import SOURCE_TYPE, TRAINED
from joyflash_cli.provenance.identity import make_identity, read_identity
from joyflash_cli.provenance.reading import read_claims
from joyflash_cli.provenance.signing import Ingredient, sign_file

FRAMES = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
FACTS = {"profile": "tiny", "weights_sha256": "ab"}


@pytest.fixture(scope="module")
def signing(tmp_path_factory):
    return make_identity(tmp_path_factory.mktemp("id"), "Ada", days=2, overwrite=False)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "a.mp4"
    tags = {"comment": "AI-generated with JoyFlash", SOURCE_TYPE: TRAINED}
    with open_muxer(path, size=(32, 32), fps=25, metadata=tags) as muxer:
        muxer.write(FRAMES)
        muxer.finish()
    return path


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "face.png"
    Image.fromarray(FRAMES[0]).save(path)
    return path


def signed(source, signing, ingredients=()):
    target = source.with_name(f"signed{source.suffix}")
    sign_file(source, target, signing, FACTS, ingredients)
    return target


def test_a_video_says_who_made_it_of_what(video, picture, signing):
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    inputs = (Ingredient("picture", digest, picture), Ingredient("sound", None))
    claims = read_claims(signed(video, signing, inputs))
    told = claims["credentials"]
    assert claims["ai_generated"] is True
    assert (told["state"], told["where"], told["problems"]) == ("valid", "inside", [])
    assert told["signed_by"]["name"] == "Ada"
    assert told["generator"].startswith("JoyFlash ")
    assert told["digital_source_types"] == [TRAINED]
    assert told["actions"] == ["c2pa.created"]
    assert told["facts"] == FACTS
    found = {one["title"]: one for one in told["ingredients"]}
    assert found["picture"]["sha256"] == digest
    assert found["picture"]["format"] == "image/png"
    assert (found["sound"]["sha256"], found["picture"]["thumbnail"]) == (None, False)
    assert (claims["digital_source_type"], claims["comment"][:12]) == (TRAINED, "AI-generated")


def test_no_name_of_a_file_is_told(video, picture, signing):
    content = signed(video, signing, (Ingredient("picture", "0", picture),)).read_bytes()
    for secret in (b"face.png", b"a.mp4", str(picture.parent).encode()):
        assert secret not in content


def test_signers_are_trusted_by_those_who_trust_them(video, signing):
    assert read_claims(signed(video, signing), signing.certificate)["credentials"]["state"] == (
        "trusted"
    )


def test_a_thumbnail_is_there_on_request(video, signing):
    from joyflash_cli.media.outputs.pictures import thumbnail

    small = thumbnail(np.zeros((600, 300, 3), np.uint8))
    path = signed(video, signing, (Ingredient("picture", "0", None, small),))
    assert read_claims(path)["credentials"]["ingredients"][0]["thumbnail"] is True
    assert small in path.read_bytes()


def test_what_a_picture_claims_itself_is_taken_along(video, picture, signing):
    given = signed(picture, signing)
    digest = hashlib.sha256(given.read_bytes()).hexdigest()
    told = read_claims(signed(video, signing, (Ingredient("picture", digest, given),)))
    assert told["credentials"]["ingredients"][0]["credentials"] is True
    assert (told["credentials"]["earlier"], told["credentials"]["state"]) == (1, "valid")


def test_a_picture_that_was_exchanged_meanwhile_is_not(video, picture, signing):
    inputs = (Ingredient("picture", "0" * 64, signed(picture, signing)),)
    assert read_claims(signed(video, signing, inputs))["credentials"]["earlier"] == 0


def test_every_change_of_the_picture_shows(video, signing):
    path = signed(video, signing)
    content = bytearray(path.read_bytes())
    content[content.index(b"mdat") + 40] ^= 1
    path.write_bytes(content)
    told = read_claims(path)["credentials"]
    assert told["state"] == "invalid"
    assert any("mismatch" in problem for problem in told["problems"])


def test_a_file_that_cannot_hold_it_has_it_beside(video, signing):
    film = video.rename(video.with_suffix(".mkv"))
    sign_file(film, film.with_name("a.mkv.c2pa"), signing, FACTS, ())
    for asked in (film, film.with_name("a.mkv.c2pa")):
        told = read_claims(asked)["credentials"]
        assert (told["where"], told["state"]) == ("beside", "valid")
    with film.open("ab") as file:
        file.write(b"x")
    assert read_claims(film)["credentials"]["state"] == "invalid"


@pytest.mark.parametrize("cut", [10, 900, -1])
def test_of_damaged_files_nothing_is_said_to_verify(video, signing, cut, capsys):
    path = signed(video, signing)
    path.write_bytes(path.read_bytes()[:cut])
    status = run(["provenance", "show", str(path), "--json"])
    out, err = capsys.readouterr()
    if status == 0:
        assert json.loads(out)["credentials"] is None
    else:
        assert status == 3
        assert "E-PROVENANCE]" in err or json.loads(out)["credentials"]["state"] == "invalid"


def test_what_cannot_be_signed_leaves_nothing(tmp_path, signing):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(OutputError) as caught:
        signed(tmp_path / "a.mp4", signing)
    assert caught.value.code == "E-SIGN"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_full_disk_is_told_in_the_systems_words(video, signing):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (video.stat().st_size, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be signed: .*large"):
            signed(video, signing)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in video.parent.iterdir()] == ["a.mp4"]


def test_show_tells_people_and_programs(video, signing, capsys):
    path = signed(video, signing)
    assert run(["provenance", "show", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == read_claims(path)
    assert run(["provenance", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "says that it is AI-generated" in shown
    assert "verify; nobody known here vouches for the signer" in shown
    path.write_bytes(path.read_bytes().replace(b"mdat", b"mdaT"))
    assert run(["provenance", "show", str(path)]) == 3
    assert "DO NOT VERIFY" in capsys.readouterr().out


def test_show_of_other_files(video, picture, capsys):
    assert run(["provenance", "show", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "does not say that it is AI-generated" in shown
    assert "Content Credentials: none" in shown
    assert run(["provenance", "show", str(video)]) == 0
    assert "IPTC digital source type: http" in capsys.readouterr().out
    assert run(["provenance", "show", str(video), "--trust", str(picture)]) == 2
    assert "E-PROVENANCE-TRUST" in capsys.readouterr().err
    for path in ("nothing.mp4", "/dev/null", str(picture.parent)):
        assert run(["provenance", "show", path]) == 3
    assert "E-PROVENANCE]" in capsys.readouterr().err


def test_a_comment_cannot_command_a_terminal(tmp_path, capsys):
    Image.fromarray(FRAMES[0]).save(tmp_path / "a.jpg", comment=b"\x1b[2J")
    assert run(["provenance", "show", str(tmp_path / "a.jpg")]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_without_the_extra_the_rest_is_read(video, signing, monkeypatch, capsys):
    for name in ("c2pa", "cryptography.x509"):
        monkeypatch.setitem(sys.modules, name, None)
    claims = read_claims(video)
    assert (claims["credentials"], claims["ai_generated"]) == ("unread", True)
    with pytest.raises(UsageError, match="c2pa-python") as caught:
        read_identity(signing)
    assert (caught.value.code, "joyflash[provenance]" in caught.value.hint) == (
        "E-SIGN-EXTRA",
        True,
    )
    assert run(["provenance", "show", str(video)]) == 0
    assert "not read; pip install" in capsys.readouterr().out


def test_init_says_where_and_how(tmp_path, capsys):
    arguments = ["provenance", "init", "--out-dir", str(tmp_path / "id"), "--name", "Ada"]
    assert run(arguments) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(tmp_path / "id" / n) for n in ("certificate.pem", "key.pem")]
    assert "not trusted" in err
    assert run(arguments) == 6
    assert "E-OUTPUT-EXISTS" in capsys.readouterr().err
