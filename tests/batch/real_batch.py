"""A batch that really renders, in the process that drives it."""

import sys
from pathlib import Path

from inline_engine import InlineEngine

from joyflash_cli.batch.checks import RowRules
from joyflash_cli.batch.plan import BatchChoices, prepare_batch
from joyflash_cli.batch.renderer import RendererSettings
from joyflash_cli.batch.runner import BatchRunner


def main() -> None:
    """Runs a table of rows; 0 when all of them are done."""
    manifest, out_dir, checkpoint = sys.argv[1:]
    settings = RendererSettings("tiny", checkpoint, "float32")
    choices = BatchChoices(Path(out_dir), "toy", settings.parameters)
    rules = RowRules(Path(manifest).parent, "tiny", False)
    with open(manifest, "rb") as file:
        plan = prepare_batch(file, Path(manifest).name, choices=choices, rules=rules)
    with InlineEngine(settings.load) as engine:
        status = BatchRunner(plan, engine).run()
    sys.exit(0 if status.num_done == status.num_rows else 7)
