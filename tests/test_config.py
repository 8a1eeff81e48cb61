"""Strict configurations: everything comes back, nothing unknown gets in."""

import json
import math
from dataclasses import dataclass
from typing import Literal

import pytest

from joyflash_cli.config import check_ranges, from_dict, to_dict
from joyflash_cli.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    size: int


@dataclass(frozen=True)
class Outer:
    width: int
    ratio: float = 0.5
    steps: tuple[int, ...] = (2, 1)
    patch: tuple[int, int] = (1, 2)
    mode: Literal["fast", "good"] = "good"
    inner: Inner | None = None
    on: bool = False


def test_round_trip_through_json():
    config = Outer(width=3, ratio=2.0, steps=(5,), inner=Inner(7), on=True)
    assert from_dict(Outer, json.loads(json.dumps(to_dict(config)))) == config


def test_whole_number_is_a_float():
    assert isinstance(from_dict(Outer, {"width": 1, "ratio": 2}).ratio, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"widht": 1}, "width"),
        ({}, "width"),
        ({"width": "1"}, "Outer.width"),
        ({"width": True}, "Outer.width"),
        ({"width": 1, "mode": "slow"}, "'fast'"),
        ({"width": 1, "patch": [1]}, "2 are needed"),
        ({"width": 1, "steps": 4}, "a list"),
        ({"width": 1, "steps": [4, "x"]}, r"steps\[1\]"),
        ({"width": 1, "inner": {"size": 1.5}}, "Outer.inner.size"),
        ({"width": 1, "inner": {"sise": 1}}, "size"),
        ({"width": 1, "on": 1}, "Outer.on"),
        ([], "must be a table"),
        ({"w" * 5_000: 1}, "has no key"),
        ({"width": ["x" * 5_000]}, "Outer.width"),
        ({"width": 1, "mode": "x" * 5_000}, "'fast'"),
    ],
)
def test_mistakes_name_the_field(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        from_dict(Outer, values)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("ratio", [0.09, 1.01, float("nan"), float("inf")])
def test_numbers_outside_their_range(ratio):
    check_ranges(Outer(1, ratio=0.1), {"ratio": (0.1, 1.0), "inner": (1, 2), "patch": (1, 2)})
    with pytest.raises(ConfigError, match="ratio is .*; 0.1 to 1 is possible"):
        check_ranges(Outer(1, ratio=ratio), {"ratio": (0.1, 1.0)})
    with pytest.raises(ConfigError, match=r"patch is \(1, 2\); at most 1 is possible"):
        check_ranges(Outer(1), {"patch": (-math.inf, 1)})
