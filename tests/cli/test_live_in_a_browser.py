"""The HLS stream of ``joyflash live`` in a browser, which follows it while it is written."""

import functools
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import av
import pytest
from browser import Page, find_browser
from conftest import REPOSITORY

from joyflash_cli.cli.app import run

PATIENCE_S = 60
PLAYS_HLS = "!!document.createElement('video').canPlayType('application/vnd.apple.mpegurl')"
# A page that came too early for this player tries again by itself: an error is not the end.
UNTIL = """(async wanted => {
  const video = document.querySelector('video'), last = Date.now() + 30000;
  while (!wanted(video) && Date.now() < last) await new Promise(next => setTimeout(next, 20));
  return [video.error && video.error.message, video.readyState >= 2, wanted(video),
          video.videoWidth, video.videoHeight];
})"""
ADVANCES = f"{UNTIL}(video => video.currentTime > 0.2)"
ENDS = f"{UNTIL}(video => {{ video.playbackRate = 8; return video.ended; }})"
# What players written in JavaScript do, where the browser itself knows no HLS.
BY_SEGMENTS = """(async () => {
  const bytes = async name => await (await fetch(name)).arrayBuffer();
  const playlist = await (await fetch('live.m3u8')).text();
  const names = [...playlist.matchAll(/^(?:#EXT-X-MAP:URI="([^"]+)"|([^#].*))$/gm)]
    .map(found => found[1] || found[2]);
  const source = new MediaSource(), video = document.createElement('video');
  video.src = URL.createObjectURL(source);
  await new Promise(done => source.onsourceopen = done);
  const type = 'video/mp4; codecs="avc1.64001f, mp4a.40.2"';
  const buffer = source.addSourceBuffer(type);
  for (const name of names) {
    const piece = await bytes(name);
    await new Promise((done, failed) => {
      buffer.onupdateend = done; buffer.onerror = () => failed(name); buffer.appendBuffer(piece);
    });
  }
  source.endOfStream();
  return [video.buffered.length, video.buffered.start(0), video.buffered.end(0),
          video.videoWidth, video.videoHeight];
})()"""


class QuietHandler(SimpleHTTPRequestHandler):
    """Any web server over the folder."""

    def log_message(self, *_):
        pass


@pytest.fixture
def folder(tmp_path):
    """The web server's folder, with the page of the documentation."""
    recipe = (REPOSITORY / "docs" / "live.md").read_text(encoding="utf-8")
    page = re.search(r"```html\n(<video.*?)```", recipe, re.DOTALL)[1]
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "page.html").write_text(f'<!doctype html><link rel="icon" href="data:,">{page}')
    return folder


@pytest.fixture
def address(folder):
    """The folder over HTTP."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed")
def test_a_browser_plays_the_stream_while_it_grows(
    folder, address, tmp_path, monkeypatch, toy_checkpoint, toy_picture
):
    monkeypatch.chdir(tmp_path)
    playlist = folder / "live.m3u8"
    options = ["--checkpoint", str(toy_checkpoint), "--device", "cpu", "--dtype", "float32"]
    options += ["-o", str(playlist), "--control", "face.sock", "-q"]

    def follow(page):
        """Plays from the first segment on; ends the stream when that is seen."""
        try:
            _wait_for(lambda: playlist.exists() and "#EXTINF" in playlist.read_text())
            page.show(f"{address}/page.html")
            seen = page.evaluate(ADVANCES) if page.evaluate(PLAYS_HLS) else None
            assert "#EXT-X-ENDLIST" not in playlist.read_text()
            return seen
        finally:
            with socket.socket(socket.AF_UNIX) as control:
                control.connect("face.sock")
                control.sendall(b'{"type": "quit"}\n')

    with Page(600, profile=tmp_path / "profile") as page, ThreadPoolExecutor(1) as threads:
        following = threads.submit(follow, page)
        assert run(["live", str(toy_picture), *options]) == 0
        advances = following.result()
        with av.open(str(playlist)) as container:
            size = [container.streams.video[0].width, container.streams.video[0].height]
            length_s = sum(1 for _ in container.decode(video=0)) / 25
        if advances is not None:
            assert advances == [None, True, True, *size]
            assert page.evaluate(ENDS) == [None, True, True, *size]
        lengths = re.findall(r"#EXTINF:([\d.]+)", playlist.read_text())
        assert sum(map(float, lengths)) == pytest.approx(length_s, abs=0.001)
        assert page.evaluate(BY_SEGMENTS) == [1, 0, pytest.approx(length_s, abs=0.03), *size]
        assert page.complaints() == []


def _wait_for(seen: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not seen():
        assert time.monotonic() < until
        time.sleep(0.05)
