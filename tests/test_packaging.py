"""The wheel, installed into an empty environment, renders away from the repository."""

import json
import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.weights.store import REQUIRED_FILES, embedded_directory

EMBEDDED = all((embedded_directory("tiny") / name).is_file() for name in REQUIRED_FILES)
MAX_CHECKPOINT_BYTES = 20_000_000
MAX_ASSETS_BYTES = 25_000_000
"""With the face networks, the held-out clips and the readers that measure the model."""


def clean_environment() -> dict[str, str]:
    """The environment without what would let Python find the repository."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "COV_"))}
    return kept | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run(
        [*build, str(repository)], capture_output=True, text=True, env=clean_environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A new virtual environment with the wheel; the dependencies are those of this one.

    Installing torch again would take minutes, so a ``.pth`` file at the end of the path lends
    today's packages. The package itself comes first, from the wheel.
    """
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    done = subprocess.run(
        [*install, "--quiet", str(wheel)], capture_output=True, text=True, env=clean_environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (packages,) = folder.glob("lib/python*/site-packages")
    lent = [path for path in site.getsitepackages() if Path(path).is_dir()]
    (packages / "zz_dependencies.pth").write_text("\n".join(lent) + "\n")
    return folder


def test_the_wheel_holds_what_it_needs_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    assert "joyflash_cli/weights.toml" in sizes
    tops = {name.partition("/")[0] for name in sizes}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"joyflash_cli"}
    assert any(name.endswith("/licenses/LICENSE") for name in sizes)
    assert any(name.endswith("/licenses/NOTICE") for name in sizes)
    assert not [name for name in sizes if name.endswith((".pyc", ".pt", ".pth"))]
    assets = {n: size for n, size in sizes.items() if n.startswith("joyflash_cli/assets/")}
    model = [size for n, size in assets.items() if n.startswith("joyflash_cli/assets/tiny/")]
    assert 0 < sum(model) <= MAX_CHECKPOINT_BYTES
    assert sum(assets.values()) <= MAX_ASSETS_BYTES


def start(environment: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(environment / "bin" / "joyflash"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=clean_environment() | {"OMP_NUM_THREADS": "1"},
    )


def test_the_installed_package_is_the_wheel_s(environment, tmp_path):
    script = (
        "import joyflash_cli, joyflash_cli.weights.manifest as m; "
        "print(joyflash_cli.__file__); print(m.manifest_path())"
    )
    done = subprocess.run(
        [str(environment / "bin" / "python"), "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=clean_environment(),
    )
    for line in done.stdout.split():
        assert Path(line).is_relative_to(environment), line


def test_the_installed_command_lists_its_models(environment, tmp_path):
    done = start(environment, tmp_path, "weights", "list", "--json")
    assert done.returncode == 0, done.stderr
    assert "tiny" in json.loads(done.stdout)


def test_the_installed_command_renders(
    environment, tmp_path, toy_checkpoint, toy_picture, toy_voice
):
    inputs = ["--image", str(toy_picture), "--audio", str(toy_voice)]
    done = start(environment, tmp_path, "render", *inputs, "--checkpoint", str(toy_checkpoint))
    assert done.returncode == 0, done.stderr
    assert probe(tmp_path / "face-talk.mp4").num_frames == 33


@pytest.mark.skipif(not EMBEDDED, reason="the checkout holds no embedded checkpoint yet")
def test_the_installed_command_renders_with_the_embedded_checkpoint(
    environment, tmp_path, repository, toy_voice
):
    picture = repository / "examples" / "face.png"
    done = start(
        environment,
        tmp_path,
        "render",
        "--image",
        str(picture),
        "--audio",
        str(toy_voice),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["profile"] == "tiny"
    info = probe(tmp_path / "face-talk.mp4")
    assert (info.num_frames, info.width) == (summary["video_frames"], 512) == (33, 512)
