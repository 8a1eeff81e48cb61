"""What the FFmpeg libraries can do, asked of the libraries themselves."""

from joyflash_cli.media.outputs import codecs


def test_this_installation_can_write_videos():
    assert codecs.missing_abilities() == []
    found = codecs.media_abilities()
    assert found["encoder libx264"]
    assert found["decoder pcm_s16le"]
    assert found["format mp4"]
    assert "libavcodec" in codecs.media_versions()


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(codecs, "ENCODERS", ("libx264", "no_such_encoder"))
    monkeypatch.setattr(codecs, "NEEDED", (("encoder", "no_such_encoder"), ("encoder", "libx264")))
    assert codecs.missing_abilities() == ["encoder no_such_encoder"]
