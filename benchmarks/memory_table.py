"""What every profile takes of a GPU by our own count: `python benchmarks/memory_table.py`.

Nothing is downloaded or computed: parts are files with the true names and shapes and no numbers in
them, and what a render would refuse or allow is counted from those. The states of the prompts are
taken to be at hand; a text encoder takes 11.4 GB once, on whatever device it runs.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from joyflash_cli.codec.wan import wan_vae_module
from joyflash_cli.description import parse_description
from joyflash_cli.encoders.wav2vec2 import wav2vec2_module
from joyflash_cli.media.inputs.framing import largest_size
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.render import memory
from joyflash_cli.render.memory import PlannedRun, memory_needs
from joyflash_cli.render.placement import Placement
from joyflash_cli.weights.convert import read_template
from joyflash_cli.weights.convert_plan import meta_shapes
from joyflash_cli.weights.manifest import read_manifest
from joyflash_cli.weights.store import CheckpointFiles

GPU = torch.device("cuda")
PLAIN = Placement(GPU, torch.bfloat16, GPU)
WAYS = {
    "bf16": PLAIN,
    "`--fast-decode`": PLAIN.under(fast_decode=True),
    "and `--quantize int8`": PLAIN.under(fast_decode=True, quantize="int8"),
    "and `--offload all`": PLAIN.under(fast_decode=True, offload="all"),
    "on a CPU": replace(PLAIN, device=torch.device("cpu"), codec_device=torch.device("cpu")),
}
TAEHV_NUMBERS = 5_666_000


def main() -> None:
    """Print the table."""
    memory.free_memory = lambda device: None  # type: ignore[assignment]
    rows = [["profile", "size", *WAYS], ["---"] * (len(WAYS) + 2)]
    with tempfile.TemporaryDirectory() as folder:
        for name, profile in read_manifest().items():
            path = Path(memory.__file__).parents[1] / "assets" / "profiles" / f"{name}.json"
            if profile.kind == "avatar" and path.is_file():
                rows.append(row_of(name, Path(folder) / name))
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


def row_of(name: str, folder: Path) -> list[str]:
    """Gigabytes of a profile in every way."""
    folder.mkdir()
    template = read_template(name)
    stated = {
        **template,
        "codec": {"kind": "wan", **template.get("codec", {})},
        "front_end": {"kind": "wav2vec2", **template["front_end"]},
    }
    description = parse_description(stated, name=name)
    with torch.device("meta"):
        parts = {"codec": wan_vae_module({}), "front_end": wav2vec2_module({})}
    write_header(folder, "transformer", meta_shapes(CausalTransformer, description.transformer))
    write_header(folder, "fast_codec", {"all": (TAEHV_NUMBERS,)})
    for part, module in parts.items():
        write_header(folder, part, {n: tuple(t.shape) for n, t in module.state_dict().items()})
    size = largest_size(description.framing)
    run = PlannedRun(CheckpointFiles(folder, description), size)
    needs = [memory_needs(run, way)[0].total for way in WAYS.values()]
    return [f"`{name}`", f"{size[0]} x {size[1]}", *(f"{need / 1e9:.1f}" for need in needs)]


def write_header(folder: Path, part: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A safetensors file without its numbers."""
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
            for name, shape in shapes.items()
        }
    ).encode()
    content = len(header).to_bytes(8, "little") + header
    (folder / f"{part}.safetensors").write_bytes(content)


if __name__ == "__main__":
    main()
