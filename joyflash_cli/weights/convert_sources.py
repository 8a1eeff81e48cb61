"""Downloaded weight files as names, shapes and tensors read on demand.

Pickles are opened in ``convert_pickles`` and nowhere else, for tensors alone, whose values stay on
disk until one is read. Both kinds of files are opened afresh for every shard that is written,
because mapped pages count as memory until their file is closed.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.convert_pickles import load_pickle, reason_of
from joyflash_cli.weights.convert_plan import Shape
from joyflash_cli.weights.integrity import check_safetensors

PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")

Generator = Literal["auto", "ema", "generator"]
"""Which weights of a training checkpoint: averaged ones if there are any, or a stated kind."""

_ENTRIES = {
    "auto": ("generator_ema", "generator"),
    "ema": ("generator_ema",),
    "generator": ("generator",),
}
_CONTAINERS = ("state_dict", "model_state_dict", "model", "module")
MAX_CONFIG_BYTES = 1 << 20
Reader = Callable[[str], Tensor]


class TensorSource:
    """The tensors of safetensors files or of one pickle.

    Args:
        paths: Shards of one model, or a single pickle.
        generator: Which weights of a training checkpoint.

    Raises:
        CheckpointError: ``E-CHECKPOINT-PICKLE`` for a pickle with anything but tensors in it,
            ``E-CHECKPOINT-DAMAGED`` for files that cannot be read, ``E-CHECKPOINT-LAYOUT`` when
            no model is found inside.
    """

    def __init__(self, paths: tuple[Path, ...], *, generator: Generator = "auto") -> None:
        self.paths = paths
        self._generator = generator
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        for path in paths:
            with self._opened(path) as (shapes, dtypes, _):
                self.shapes |= shapes
                self.dtypes |= dtypes
        if not self.shapes:
            raise CheckpointError(
                f"{paths[0]} holds no tensors of the kind that is needed",
                hint="check that the file is the right one",
                code="E-CHECKPOINT-LAYOUT",
            )

    @contextmanager
    def opened(self) -> Iterator[Reader]:
        """A function that reads one tensor by name; the files are closed afterwards."""
        with ExitStack() as files:
            opened = [files.enter_context(self._opened(path)) for path in self.paths]

            def read(name: str) -> Tensor:
                return next(reader(name) for shapes, _, reader in opened if name in shapes)

            yield read

    @contextmanager
    def _opened(
        self, path: Path
    ) -> Iterator[tuple[dict[str, Shape], dict[str, torch.dtype], Reader]]:
        if path.suffix.lower() in PICKLE_SUFFIXES:
            state = load_pickle(
                path, functools.partial(select_generator, generator=self._generator)
            )
            shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
            yield shapes, {name: tensor.dtype for name, tensor in state.items()}, state.__getitem__
            return
        with _open_safetensors(path) as file:
            slices = {name: file.get_slice(name) for name in list(file.keys())}
            yield (
                {name: tuple(part.get_shape()) for name, part in slices.items()},
                {name: _dtype(part.get_dtype()) for name, part in slices.items()},
                file.get_tensor,
            )


OVERLAY_MARK = "adapter:"
"""In front of the names of what lies over a base."""


class LayeredSource(TensorSource):
    """A base, and over it what was trained on it, whose names have ``OVERLAY_MARK`` in front.

    Args:
        base: Names stay as they are.
        overlay: Both may hold the same names; all of them can be read.
        module: What the names of the overlay are inside of, with a point; empty for the whole.
    """

    def __init__(self, base: TensorSource, overlay: TensorSource, *, module: str = "") -> None:
        self.paths = (*base.paths, *overlay.paths)
        self._base, self._overlay = base, overlay
        self._mark = OVERLAY_MARK + module
        self.shapes = base.shapes | {self._mark + n: x for n, x in overlay.shapes.items()}
        self.dtypes = base.dtypes | {self._mark + n: x for n, x in overlay.dtypes.items()}

    @contextmanager
    def opened(self) -> Iterator[Reader]:
        """A function that reads one tensor by name; the files are closed afterwards."""
        with self._base.opened() as read_base, self._overlay.opened() as read_overlay:

            def read(name: str) -> Tensor:
                own = name.removeprefix(self._mark)
                if own != name and own in self._overlay.shapes:
                    return read_overlay(own)
                return read_base(name)

            yield read


def select_generator(
    payload: Mapping[str, object], *, generator: Generator = "auto"
) -> Mapping[str, Tensor]:
    """The generator inside a training checkpoint, its averaged weights if there are any.

    A payload that is a state dict already comes back as it is, and so does one inside a container
    of another name.

    Args:
        payload: What a checkpoint file holds.
        generator: Which of the two to take.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` if no generator can be found.
    """
    for entry in _ENTRIES[generator]:
        part = payload.get(entry)
        if isinstance(part, Mapping) and part:
            return part
    is_training = any(entry in payload for entry in _ENTRIES["auto"])
    if not is_training:
        if payload and all(isinstance(value, Tensor) for value in payload.values()):
            return payload  # type: ignore[return-value]
        for entry in _CONTAINERS:
            part = payload.get(entry)
            if isinstance(part, Mapping) and any(isinstance(v, Tensor) for v in part.values()):
                return part
    wanted = " or ".join(repr(entry) for entry in _ENTRIES[generator])
    raise CheckpointError(
        f"No generator among the entries {', '.join(map(str, list(payload)[:5]))}",
        hint=f"a state dict, or an entry {wanted}, is needed",
        code="E-CHECKPOINT-LAYOUT",
    )


def read_stated_config(path: Path) -> dict[str, Any]:
    """The ``config.json`` beside a weight file; empty without one.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when it is no JSON table.
    """
    file = path.with_name("config.json")
    return read_config(file) if file.is_file() else {}


def read_config(file: Path) -> dict[str, Any]:
    """A table of settings that is published beside weights.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when it is no JSON table.
    """
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"larger than {MAX_CONFIG_BYTES} bytes")
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not a table")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file} is no configuration: {error}",
            hint="download it again",
            code="E-CHECKPOINT-DAMAGED",
        ) from error
    return values


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    check_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {reason_of(error)}",
            hint="download it again",
            code="E-CHECKPOINT-DAMAGED",
        ) from error


def _dtype(name: str) -> torch.dtype:
    """The torch type of a safetensors type name such as ``BF16``."""
    known = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
        "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
    }  # fmt: skip
    if name not in known:
        raise CheckpointError(f"tensors of the kind {name} cannot be converted")
    return known[name]
