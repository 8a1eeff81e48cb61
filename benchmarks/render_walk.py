"""How many functions a plain render runs: `python benchmarks/render_walk.py [--list]`.

Renders `examples/face.png` and a second of `examples/talk.wav` by `joyflash render` in this process
and notes every function of the package that is entered, in every thread, once. Lambdas and
comprehensions belong to the function they stand in; code at the top of a module or a class runs
when it is imported and does not count.
"""

import argparse
import inspect
import os
import sys
import tempfile
import threading
import wave
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = f"{REPOSITORY}{os.sep}joyflash_cli{os.sep}"
INSIDE = frozenset({"<lambda>", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>"})


def main() -> None:
    """Render once and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of the sound")
    parser.add_argument("--list", action="store_true", help="name the functions, too")
    options = parser.parse_args()
    seen = run(options.seconds)
    per_file = Counter(path for path, _ in seen)
    per_folder = Counter(path.split(os.sep)[0] for path, _ in seen)
    print(f"{len(seen)} functions in {len(per_file)} modules; {modules_imported()} imported")
    for folder, count in per_folder.most_common():
        files = sum(path.split(os.sep)[0] == folder for path in per_file)
        print(f"{count:4} {files:3}  {folder}")
    if options.list:
        for path, name in sorted(seen):
            print(f"{path}:{name}")


def run(seconds: float) -> set[tuple[str, str]]:
    """Path in the package and qualified name of each function that a render of so long enters."""
    seen: set[tuple[str, str]] = set()

    def entered(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and is_function(code):
            seen.add((code.co_filename.removeprefix(PACKAGE), code.co_qualname))

    sys.path.insert(0, str(REPOSITORY))
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "talk.wav"
        cut(REPOSITORY / "examples/talk.wav", sound, seconds)
        face = str(REPOSITORY / "examples/face.png")
        sys.argv = ["joyflash", "render", face, str(sound), "-o", f"{folder}/video.mp4"]
        threading.setprofile(entered)
        sys.setprofile(entered)
        from joyflash_cli.cli.app import main as joyflash

        try:
            joyflash()
        except SystemExit as end:
            if end.code:
                raise
        finally:
            sys.setprofile(None)
    return seen


def is_function(code: CodeType) -> bool:
    """Whether code is a function with a name, not the body of a class or a module."""
    return code.co_name not in INSIDE and bool(code.co_flags & inspect.CO_NEWLOCALS)


def modules_imported() -> int:
    """Modules of the package that were loaded."""
    return sum(name.startswith("joyflash_cli") for name in sys.modules)


def cut(source: Path, target: Path, seconds: float) -> None:
    """Write the first seconds of a WAV file."""
    with wave.open(str(source)) as long, wave.open(str(target), "wb") as short:
        short.setparams(long.getparams())
        short.writeframes(long.readframes(round(seconds * long.getframerate())))


if __name__ == "__main__":
    main()
