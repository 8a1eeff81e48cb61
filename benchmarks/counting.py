"""What a block costs however fast a machine is: operations, kernels, and waits for the device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, Protocol

WAITS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")
"""Methods of a tensor for which a program waits until the device has computed it."""


class Countable(Protocol):
    """What makes blocks."""

    def block(self) -> None:
        """Makes one more."""

    def write_attention_out(self) -> None:
        """Attends by matrix products from here on, which PyTorch's counter sees on a CPU, too."""


def counted(runner: Countable) -> dict[str, float]:
    """Operations, kernels and waits of one block; the runner is of no other use after it."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    class Kernels(TorchDispatchMode):
        """Counts what computes; views and empty memory do not."""

        num = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            aliases = [value.alias_info for value in func._schema.returns]
            is_view = any(alias is not None and not alias.is_write for alias in aliases)
            if not is_view and "empty" not in func._schema.name and "detach" not in str(func):
                self.num += 1
            return func(*args, **(kwargs or {}))

    with torch.no_grad():
        with Kernels() as kernels:
            runner.block()
        with waits() as waited:
            runner.block()
        runner.write_attention_out()
        of_packed = {torch.ops.mkldnn._linear_pointwise: _linear_operations}
        with FlopCounterMode(display=False, custom_mapping=of_packed) as flops:
            runner.block()
    return {
        "gflop_executed": round(flops.get_total_flops() / 1e9, 2),
        "kernels_per_block": kernels.num,
        "host_syncs_per_block": len(waited),
    }


def _linear_operations(states: Any, weight: Any, *_rest: Any, **_output: Any) -> int:
    """Of shapes, as PyTorch's counter asks."""
    return 2 * prod(states) * weight[0]


@contextmanager
def waits() -> Iterator[list[str]]:
    """Names of the methods that would wait for a device, one for each call.

    Answers of ``FiniteCheck`` do not count: they were sent to the host a block before.
    """
    import torch

    from joyflash_cli.sampler.finite import FiniteCheck

    found: list[str] = []
    own = FiniteCheck.confirm
    saved = {name: getattr(torch.Tensor, name) for name in WAITS}
    is_confirming = []

    def counting(name: str) -> Callable:
        def method(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            if not is_confirming:
                found.append(name)
            return saved[name](tensor, *args, **kwargs)

        return method

    def confirm(check: FiniteCheck) -> None:
        is_confirming.append(True)
        try:
            own(check)
        finally:
            is_confirming.pop()

    try:
        for name in WAITS:
            setattr(torch.Tensor, name, counting(name))
        FiniteCheck.confirm = confirm  # type: ignore[method-assign]
        yield found
    finally:
        FiniteCheck.confirm = own  # type: ignore[method-assign]
        for name, method in saved.items():
            setattr(torch.Tensor, name, method)
