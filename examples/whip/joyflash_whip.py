"""Sends a video that comes on standard input to a WHIP address while it comes.

    joyflash live face.png -o - -q | python joyflash_whip.py https://server/whip/endpoint [TOKEN]

Needs ``pip install aiortc``, which encodes anew: VP8 or H.264 as the server chooses, and Opus.
"""

import asyncio
import sys
import urllib.parse
import urllib.request

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer


def call(method: str, address: str, token: str | None, offer: str = "") -> tuple[str, str]:
    """The answer to a request, and the address of the session that it names."""
    headers = {"Content-Type": "application/sdp"} if offer else {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(address, offer.encode() or None, headers, method=method)
    with urllib.request.urlopen(request) as response:
        session = urllib.parse.urljoin(address, response.headers.get("Location", ""))
        return response.read().decode(), session


async def publish(address: str, token: str | None = None, source: str = "pipe:0") -> None:
    """Returns when the video has ended.

    Args:
        address: Where WHIP sessions are begun, HTTP or HTTPS.
        token: The bearer token that the server asks for.
        source: A video as FFmpeg names it; it leaves at its own pace, not faster.
    """
    player = await asyncio.to_thread(MediaPlayer, source)
    ended = asyncio.Event()
    player.video.add_listener("ended", ended.set)
    connection = RTCPeerConnection()
    try:
        for track in (player.audio, player.video):
            connection.addTransceiver(track, direction="sendonly")
        await connection.setLocalDescription(await connection.createOffer())
        offer = connection.localDescription.sdp
        answer, session = await asyncio.to_thread(call, "POST", address, token, offer)
        try:
            await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            await ended.wait()
        finally:
            await asyncio.to_thread(call, "DELETE", session, token)
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(publish(*sys.argv[1:3]))
