"""Compare the product's numbers with recorded ones: ``python tests/parity.py DIR``.

``DIR`` is one case (``case.json``, ``io.safetensors``, weights) or a folder of cases. Every line is
one tensor and its largest absolute difference; the last line is the largest of all. The kind and
all sizes come from ``case.json``. A kind that is not known is an error.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from parity_report import Report  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

Runner = Callable[[Path, dict, Report], None]


def runner_of(case: dict) -> Runner:
    """What runs a case of this kind.

    Raises:
        ValueError: If the kind is not known.
    """
    import parity_calls
    import parity_omniavatar
    import parity_projector
    import parity_rolling
    import parity_scheduler
    import parity_segments

    runners: dict[str, Runner] = {
        "avatarforcing_block": parity_calls.run_calls,
        "avatarforcing_lora": parity_calls.run_calls,
        "avatarforcing_nocache": parity_calls.run_nocache,
        "avatarforcing_rolling": parity_rolling.run_rolling,
        "rollingforcing_rolling": parity_rolling.run_rolling,
        "livetalk_block": parity_calls.run_calls,
        "livetalk_blockwise": parity_rolling.run_blockwise,
        "flashhead_net": parity_projector.run_net,
        "flashtalk_net": parity_projector.run_net,
        "omniavatar_net": parity_omniavatar.run_net,
        "omniavatar_sampling": parity_omniavatar.run_sampling,
        "flashhead_audio": parity_segments.run_audio,
        "flashhead_chunks": parity_segments.run_flashhead,
        "leaptalk_chunks": parity_segments.run_leaptalk,
        "leaptalk_tae": parity_segments.run_leaptalk,
        "scheduler": parity_scheduler.run_scheduler,
        "audio": _run_audio,
        "livetalk_audio": _run_livetalk_audio,
    }
    name = str(case.get("case", ""))
    # A twin may carry a suffix; the longest name wins, because some begin alike.
    for kind in sorted(runners, key=len, reverse=True):
        if name == kind or name.startswith((f"{kind}_", f"{kind}-")):
            return runners[kind]
    raise ValueError(f"unknown kind of case: {name!r}; known: {', '.join(runners)}")


def run_case(directory: Path, *, echo: Callable[[str], None] | None = None) -> float:
    """The largest absolute difference of one case folder.

    Args:
        directory: Holds ``case.json`` and ``io.safetensors``.
        echo: Gets one line per tensor.
    """
    case = json.loads((directory / "case.json").read_text())
    runner = runner_of(case)
    report = Report(load_file(directory / "io.safetensors"), echo=echo)
    runner(directory, case, report)
    report.check_complete(case)
    return report.max_abs_error


def case_folders(directory: Path) -> list[Path]:
    """The folder itself if it is a case, else the cases in it.

    Raises:
        ValueError: If there is no case.
    """
    if (directory / "case.json").is_file():
        return [directory]
    folders = sorted(path.parent for path in directory.glob("*/case.json"))
    if not folders:
        raise ValueError(f"no case.json in {directory} or in its folders")
    return folders


def main(arguments: list[str]) -> int:
    """Run the program; the exit code is 2 for a case that cannot be run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, metavar="DIR")
    directory = parser.parse_args(arguments).directory
    try:
        worst = 0.0
        for folder in case_folders(directory):
            print(f"== {folder.name}")
            worst = max(worst, run_case(folder, echo=print))
    except (ValueError, KeyError, OSError) as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(f"max_abs_error={worst}")
    return 0


def _run_audio(directory: Path, case: dict, report: Report) -> None:
    from parity_audio import run_audio

    report.add_result("audio", run_audio(directory, case, report.io))


def _run_livetalk_audio(directory: Path, case: dict, report: Report) -> None:
    from parity_audio import run_livetalk_audio

    report.add_result("livetalk_audio", run_livetalk_audio(directory, case, report.io))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
