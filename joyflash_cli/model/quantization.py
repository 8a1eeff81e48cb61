"""Linear weights of the layers in eight bits, computed with in the transformer's own dtype.

Only weights are stored in eight bits; activations keep their precision. torchao does it, an
optional extra, and only in memory: what is on disk stays as it is.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from torch import nn

from joyflash_cli.errors import UsageError

WEIGHT_FORMATS = ("none", "int8", "fp8")
"""``int8``: whole numbers with one scale per output. ``fp8``: e4m3 with one scale per output."""


def check_weight_format(name: str) -> None:
    """Refuses a format that is not known, or whose library is not installed.

    Raises:
        UsageError: Then.
    """
    if name not in WEIGHT_FORMATS:
        raise UsageError(
            f"quantization {name!r} does not exist", hint=f"one of {', '.join(WEIGHT_FORMATS)}"
        )
    if find_spec("torchao") is None:
        raise UsageError(
            f"quantization {name!r} needs torchao, which is not installed",
            hint="pip install 'joyflash[quant]', or leave --quantize out",
            code="E-QUANTIZE-MISSING",
        )


def quantize_layers(layers: nn.Module, weight_format: str) -> None:
    """Replace the weight of every linear map inside ``layers`` by its eight-bit form, in place.

    Give it the transformer's layers only: embeddings and head are small and sensitive.

    Raises:
        UsageError: When torchao is not installed.
    """
    check_weight_format(weight_format)
    with _quiet_import():
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    config = {"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}[weight_format]()
    quantize_(layers, config)


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Without the notes about optional kernels that torchao logs while it is imported."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
