"""Drawings in whole pictures: still outside, no border, any size, any angle."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from joyflash_cli.codec import composition
from joyflash_cli.codec.composition import (
    canvas_bytes,
    compose,
    compose_levels,
    open_canvas,
    read_fields,
)
from joyflash_cli.codec.networks import Drawing
from joyflash_cli.codec.tiny import TinyCodec, TinyCodecConfig
from joyflash_cli.types import Scene, Square

NET_PX = 64


def a_picture(width: int, height: int, seed: int = 0) -> torch.Tensor:
    """As smooth as photographs are."""
    noise = torch.rand(1, 3, height // 8 + 2, width // 8 + 2, generator=_seeded(seed)) * 1.6 - 0.8
    return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(-1, 1)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_drawing(*, x: float = 0.0, y: float = 0.0, share: float = 1.0, added: float = 0.0) -> Drawing:
    """Moves everything by so many of the networks' pixels, and draws one tone."""
    moved = torch.rand(1, 12, NET_PX, NET_PX, generator=_seeded(1)) - 0.5
    flow = torch.tensor([x, y]).repeat(4)[None, :, None, None].expand(1, 8, NET_PX // 2, -1)
    copied = torch.full((1, 4, NET_PX, NET_PX), share)
    frames = share * moved + added
    return Drawing(frames, flow.expand(-1, -1, -1, NET_PX // 2), copied, moved, moved)


SQUARES = {
    "upright": Square(40.0, 30.0, 150.0),
    "large": Square(10.5, 20.25, 260.0),
    "turned": Square(120.0, 20.0, 150.0, math.radians(25)),
    "over the edge": Square(-60.0, 180.0, 220.0),
    "around everything": Square(-100.0, -80.0, 520.0),
    "tiny": Square(100.0, 100.0, 20.0),
    "one corner": Square(298.5, 338.5, 90.0),
}


@pytest.mark.parametrize("square", SQUARES.values(), ids=SQUARES)
def test_what_rests_is_the_picture_to_the_bit(square):
    picture = a_picture(300, 340)
    bytes_ = ((picture + 1) * 127.5).round()
    canvas = open_canvas(bytes_ / 127.5 - 1, square, fades=True)
    levels = compose_levels(read_fields(a_drawing(), canvas), canvas)
    assert levels.shape == (1, 4, 3, canvas.height, canvas.width)
    part = bytes_[0, :, canvas.top :, canvas.left :][:, : canvas.height, : canvas.width]
    assert (levels[0].float() - part).abs().max() == 0


@pytest.mark.parametrize("square", SQUARES.values(), ids=SQUARES)
def test_beyond_the_square_nothing_changes_and_there_is_no_border(square):
    picture = (((a_picture(300, 340) + 1) * 127.5).round()) / 127.5 - 1
    canvas = open_canvas(picture, square, fades=True)
    drawing = a_drawing(x=2.5, y=-1.5, share=0.7, added=0.3)
    frames = compose(read_fields(drawing, canvas), canvas)[0, 0]
    changed = (
        frames - picture[0][:, canvas.top :, canvas.left :][:, : canvas.height, : canvas.width]
    )
    rows, columns = np.mgrid[: canvas.height, : canvas.width]
    away = np.stack(
        [columns + canvas.left + 0.5 - square.left, rows + canvas.top + 0.5 - square.top]
    )
    turn = np.array([[math.cos(square.angle), math.sin(square.angle)],
                     [-math.sin(square.angle), math.cos(square.angle)]])  # fmt: skip
    places = np.einsum("ab,bhw->ahw", turn, away) / square.side
    inset = np.minimum(places, 1 - places).min(0)  # how far inside the square, in sides
    change = changed.abs().amax(0).numpy()
    assert change[inset < 0].max(initial=0) < 1e-4
    # The change grows from nothing: a hundredth inside the edge there is hardly any of it.
    assert change[inset < 0.01].max(initial=0) < 0.1 * max(change.max(), 0.1)
    if square.side > 100:
        assert change.max() > 0.2


@pytest.mark.parametrize("degrees", [0, 30, -90])
def test_the_picture_moves_along_the_square_however_it_is_turned(degrees):
    """A dot moves to where the square's own axes say."""
    picture = torch.full((1, 3, 256, 256), -1.0)
    rows, columns = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    dot = torch.exp(-((rows - 127.5) ** 2 + (columns - 127.5) ** 2) / 50)
    picture += 1.5 * dot
    angle = math.radians(degrees)
    middle = Square(0.0, 0.0, 192.0, angle).point(0.5, 0.5)
    square = Square(128 - middle[0], 128 - middle[1], 192.0, angle)
    canvas = open_canvas(picture, square, fades=True)
    moved = compose(read_fields(a_drawing(x=4.0), canvas), canvas)[0, 0, 0] + 1
    grid_y, grid_x = torch.meshgrid(
        torch.arange(canvas.height) + canvas.top, torch.arange(canvas.width) + canvas.left,
        indexing="ij",
    )  # fmt: skip
    x = float((moved * grid_x).sum() / moved.sum()) - 127.5
    y = float((moved * grid_y).sum() / moved.sum()) - 127.5
    step = 4.0 / NET_PX * 192  # content comes from 4 pixels to the square's right
    assert x == pytest.approx(-step * math.cos(angle), abs=0.3)
    assert y == pytest.approx(-step * math.sin(angle), abs=0.3)


def test_strips_and_nodes_do_not_show(monkeypatch):
    picture = a_picture(600, 500)
    drawing = dataclasses.replace(
        a_drawing(share=0.8, added=0.1), flow=0.1 * torch.randn(1, 8, 4, 4, generator=_seeded(2))
    )
    canvas = open_canvas(picture, Square(20.0, 10.0, 480.0), fades=True, nodes=96)
    assert canvas.step == 5
    together = compose(read_fields(drawing, canvas), canvas)
    monkeypatch.setattr(composition, "STRIP_PIXELS", 1)
    assert torch.equal(compose(read_fields(drawing, canvas), canvas), together)
    everywhere = open_canvas(picture, Square(20.0, 10.0, 480.0), fades=True, nodes=480)
    assert everywhere.step == 1
    exact = compose(read_fields(drawing, everywhere), everywhere)
    assert (exact - together).abs().mean() < 4e-3  # half a level


def test_half_a_pixel_between_two_keeps_the_sharpness_of_a_photograph(monkeypatch):
    noise = torch.rand(1, 3, 514, 514, generator=_seeded(3)) * 2 - 1
    picture = torch.nn.functional.avg_pool2d(noise, 3, 1)

    def energy() -> float:
        """Of the differences between neighbours, moved against at rest."""
        canvas = open_canvas(picture, Square(0.0, 0.0, 512.0), fades=False)
        drawing = a_drawing(x=0.5 * NET_PX / 512)
        frame = compose(read_fields(drawing, canvas), canvas)[0, 0, :, 8:-8, 8:-8]
        at_rest = picture[0, :, 8:-8, 8:-8].diff(dim=-1).square().mean()
        return float(frame.diff(dim=-1).square().mean() / at_rest)

    kept = energy()
    monkeypatch.setattr(composition, "FINE_PIXELS", 0)
    assert kept > 0.7
    assert kept > 1.3 * energy()


def test_large_canvases_are_kept_once_and_counted(monkeypatch):
    assert canvas_bytes((1000, 1000)) == 3 * (4 * 4 + 4) * 1_000_000
    assert canvas_bytes((4096, 4096)) == 3 * (4 + 4) * 4096**2
    monkeypatch.setattr(composition, "FINE_PIXELS", 100)
    picture = (((a_picture(80, 60) + 1) * 127.5).round()) / 127.5 - 1
    canvas = open_canvas(picture, Square(0.0, 0.0, 80.0), fades=True)
    assert canvas.picture.shape == picture.shape
    still = compose(read_fields(a_drawing(), canvas), canvas)
    assert torch.allclose(still[0, 0], picture[0], atol=1e-5)


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    config = TinyCodecConfig(
        latent_channels=4, encoder_dim=16, latent_dim=16, num_latent_layers=1, decoder_dim=16,
        reference_dim=8, blink_every_frames=12, draw_below=0.56, flow_seam_limit=1.0,
    )  # fmt: skip
    codec = TinyCodec(config)
    for parameter in codec.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return codec.eval()


@torch.no_grad()
@pytest.mark.parametrize("cuts", [(3, 3, 1), (1,) * 7, (7,)])
def test_any_chunking_of_a_scene_gives_the_same_bits(codec, cuts):
    pixels = ((a_picture(201, 149)[0] + 1) * 127.5).round().to(torch.uint8).movedim(0, -1).numpy()
    scene = Scene(pixels, Square(30.0, -10.0, 140.0, 0.2), goes_on=True)
    reference, latents = torch.rand(1, 3, 64, 64) * 2 - 1, torch.randn(1, 7, 4, 8, 8)

    def frames(lengths) -> torch.Tensor:
        state, parts = codec.start_decoding(reference, seed=3, scene=scene), []
        for part in latents.split(list(lengths), 1):
            levels, state = codec.decode(part, state)
            parts.append(levels)
        return torch.cat(parts, 1)

    whole = frames((7,))
    assert whole.dtype == torch.uint8
    assert whole.shape[:3] == (1, 25, 3)
    assert torch.equal(frames(cuts), whole)
