"""Files for other machines: they name what exists, and the Slurm script does each row once."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import write_tone

from joyflash_cli.batch.checks import RowRules, check_row
from joyflash_cli.batch.manifest import open_manifest, read_rows


def test_the_example_manifest_is_right(repository):
    path = repository / "examples" / "manifest.csv"
    rules = RowRules(folder=path.parent, profile="tiny", hears_text=False)
    with open_manifest(path) as file:
        checked = [check_row(raw, rules) for raw in read_rows(file, path.name)]
    assert [row.error for row in checked] == ["", ""]
    assert len({row.output for row in checked}) == 2


def test_the_dockerfile_copies_what_exists_and_installs_what_is_offered(repository):
    text = (repository / "Dockerfile").read_text()
    sources = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, flags=re.M)
        for name in line.split()[:-1]
    ]
    assert "joyflash_cli" in sources
    assert [name for name in sources if not (repository / name).exists()] == []
    allowed = (repository / ".dockerignore").read_text().splitlines()
    assert [name for name in sources if f"!{name}" not in allowed] == []
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = re.search(r'ARG EXTRAS="(.*)"', text).group(1).split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    assert re.search("^torch==", (repository / "constraints.txt").read_text(), flags=re.M)


@pytest.fixture
def program(tmp_path) -> Path:
    """A folder with a ``joyflash`` that runs this checkout."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = folder / "joyflash"
    path.write_text(f"#!{sys.executable}\nfrom joyflash_cli.cli.app import main\nmain()\n")
    path.chmod(0o755)
    return folder


def test_the_slurm_script_gives_each_task_its_part(
    repository, tmp_path, program, toy_checkpoint, toy_picture
):
    write_tone(tmp_path / "one.wav", 0.2)
    rows = "".join(f"r{number},{toy_picture},one.wav\n" for number in range(3))
    (tmp_path / "m.csv").write_text("id,image,audio\n" + rows)
    found = []
    for task in ("1", "2"):
        environment = {
            **os.environ,
            "PATH": f"{program}:{os.environ['PATH']}",
            "SLURM_ARRAY_TASK_ID": task,
            "SLURM_ARRAY_TASK_COUNT": "2",
        }
        script = repository / "examples" / "cluster" / "slurm-array.sh"
        done = subprocess.run(
            ["bash", str(script), "m.csv", "out", "--dry-run", "--json", "--quiet",
             "--checkpoint", str(toy_checkpoint)],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout)["would_render"])
    assert found == [2, 1]


def test_the_ray_cluster_file_is_one(repository):
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load((repository / "examples" / "cluster" / "ray-cluster.yaml").read_text())
    assert config["provider"]["type"] == "local"
    jsonschema = pytest.importorskip("jsonschema")
    autoscaler = pytest.importorskip("ray.autoscaler")
    schema = Path(autoscaler.__file__).parent / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))
