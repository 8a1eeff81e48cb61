"""A Hub on loopback, an empty cache, and a manifest of tiny repositories."""

import contextlib
import os
import types
from pathlib import Path

from hub_server import COMMIT, HubServer, safetensors, sha256

TRANSFORMER = safetensors(3000, b"\x01")
CODEC = b"PK\x03\x04" + b"codec" * 400
AUDIO = safetensors(2000, b"\x02")
AUDIO_CONFIG = b'{"hidden_size": 8}'
TEXT = safetensors(5000, b"\x03")
FAST = safetensors(1500, b"\x04")

FILES = {
    "maker/avatar/model.safetensors": TRANSFORMER,
    "base/wan/vae.pth": CODEC,
    "base/wan/text/encoder.safetensors": TEXT,
    "base/wav2vec/model.safetensors": AUDIO,
    "base/wav2vec/config.json": AUDIO_CONFIG,
    "base/fast/tae.safetensors": FAST,
}

MANIFEST = f"""
format = 1

[profiles.tiny]
title = "Embedded"
source = "embedded"
licence = "Apache-2.0"

[profiles.none]
title = "Nobody published it"
source = "none"
licence = "unknown"
note = "Bring a directory."

[profiles.small]
title = "A small avatar"
source = "hub"
licence = "MIT here, non-commercial there"
acceptance = true
note = "The two contradict each other."

[[profiles.small.files]]
role = "transformer"
repo = "maker/avatar"
path = "model.safetensors"
format = "safetensors"
licence = "contradictory"
acceptance = true

[[profiles.small.files]]
role = "codec"
repo = "base/wan"
revision = "{COMMIT}"
path = "vae.pth"
bytes = {len(CODEC)}
sha256 = "{sha256(CODEC)}"
format = "pickle"
licence = "Apache-2.0"

[[profiles.small.files]]
role = "audio_encoder"
repo = "base/wav2vec"
revision = "{COMMIT}"
path = "model.safetensors"
bytes = {len(AUDIO)}
sha256 = "{sha256(AUDIO)}"
format = "safetensors"
licence = "Apache-2.0"

[[profiles.small.files]]
role = "audio_encoder"
repo = "base/wav2vec"
revision = "{COMMIT}"
path = "config.json"
bytes = {len(AUDIO_CONFIG)}
format = "json"
licence = "Apache-2.0"

[[profiles.small.files]]
role = "text_encoder"
repo = "base/wan"
revision = "{COMMIT}"
path = "text/encoder.safetensors"
bytes = {len(TEXT)}
sha256 = "{sha256(TEXT)}"
format = "safetensors"
licence = "Apache-2.0"

[[profiles.small.files]]
role = "fast_codec"
repo = "base/fast"
path = "tae.safetensors"
format = "safetensors"
licence = "MIT"
optional = true

[profiles.base]
title = "Something to train from"
source = "hub"
kind = "base"
licence = "Apache-2.0"

[[profiles.base.files]]
role = "codec"
repo = "base/wan"
revision = "{COMMIT}"
path = "vae.pth"
bytes = {len(CODEC)}
sha256 = "{sha256(CODEC)}"
format = "pickle"
licence = "Apache-2.0"
"""

NEEDED = 5
"""Files of the profile ``small`` that are not optional."""


class HubCase:
    """The server, the folders of one test, and the environment that leads to them."""

    def __init__(self, server: HubServer, folder: Path) -> None:
        self.server = server
        self.hub = server.state
        self.hub.files = dict(FILES)
        self.folder = folder
        self.manifest = folder / "weights.toml"
        self.manifest.write_text(MANIFEST)
        self.cache = folder / "hf" / "hub"
        self.lock = folder / "state" / "joyflash" / "weights.lock.json"
        self.converted = folder / "cache" / "joyflash" / "checkpoints"
        self.environment = {
            "HF_ENDPOINT": server.endpoint,
            "HF_HOME": str(folder / "hf"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "NO_PROXY": "*",
        }

    def cached_files(self) -> set[str]:
        """Files that the cache shows to everybody."""
        return {
            path.relative_to(self.cache).as_posix()
            for path in self.cache.glob("models--*/snapshots/**/*")
            if path.is_file()
        }

    def pieces(self) -> list[Path]:
        """What unfinished downloads left in the cache."""
        return list(self.cache.glob("models--*/blobs/*.incomplete"))

    def subprocess_environment(self) -> dict[str, str]:
        """For a program of its own."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
        return kept | self.environment

    def program(self) -> str:
        """Python text that runs the command line with this case's manifest."""
        return (
            "import sys, pathlib\n"
            "import joyflash_cli.weights.manifest as manifest\n"
            f"manifest.manifest_path = lambda: pathlib.Path({str(self.manifest)!r})\n"
            "from joyflash_cli.cli.app import run\n"
            "sys.exit(run(sys.argv[1:]))\n"
        )


@contextlib.contextmanager
def open_hub_case(folder: Path, monkeypatch):
    """A case whose environment holds in this process, without waits."""
    with HubServer() as server:
        case = HubCase(server, folder)
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN",
                     "TRANSFORMERS_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):  # fmt: skip
            monkeypatch.delenv(name, raising=False)
        for name, value in case.environment.items():
            monkeypatch.setenv(name, value)
        manifest = "joyflash_cli.weights.manifest.manifest_path"
        monkeypatch.setattr(manifest, lambda: case.manifest)
        monkeypatch.setattr("joyflash_cli.weights.hub.RETRY_WAITS_S", (0.0, 0.0))
        # The library waits a second or more before it goes on with a broken download.
        for module in ("file_download", "utils._http"):
            monkeypatch.setattr(
                f"huggingface_hub.{module}.time", types.SimpleNamespace(sleep=lambda _: None)
            )
        yield case
