"""CLIP's picture tower: Wan's weights under our names compute what Wan's tower computes."""

import pytest
import torch
from published import CLIP, write_image_encoder
from torch.nn import functional

from joyflash_cli.encoders.image import PIXEL_MEAN, PIXEL_STD, ImageEncoder, image_encoder_module
from joyflash_cli.weights.convert_encoders import plan_image_encoder
from joyflash_cli.weights.convert_sources import TensorSource


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    torch.manual_seed(4)
    path = tmp_path_factory.mktemp("clip") / "clip.pth"
    write_image_encoder(path)
    state = torch.load(path, weights_only=True)
    torch.save({n: t + 0.05 * torch.randn_like(t) for n, t in state.items()}, path)
    return TensorSource((path,))


@pytest.fixture(scope="module")
def encoder(source):
    plan = plan_image_encoder(source.shapes, {})
    with torch.device("meta"):
        module = image_encoder_module(plan.section["config"])
    with source.opened() as read:
        weights = {o.name: o.build(*(read(s).clone() for s in o.sources)) for o in plan.outputs}
    module.load_state_dict(weights, assign=True)
    return ImageEncoder(module)


def wan_tokens(state, picture):
    """The tower written out in Wan's own names, without its last layer and norm."""
    w = {name.removeprefix("visual."): tensor for name, tensor in state.items()}
    size = CLIP["image_size"]
    x = functional.interpolate(picture, (size, size), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(v)[:, None, None] for v in (PIXEL_MEAN, PIXEL_STD))
    x = ((x * 0.5 + 0.5) - mean) / std
    x = functional.conv2d(x, w["patch_embedding.weight"], stride=14).flatten(2).transpose(1, 2)
    x = torch.cat([w["cls_embedding"].expand(len(x), -1, -1), x], dim=1) + w["pos_embedding"]

    def norm(x, name):
        return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def linear(x, name):
        return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = norm(x, "pre_norm")
    for layer in range(CLIP["num_hidden_layers"] - 1):
        at = f"transformer.{layer}"
        qkv = linear(norm(x, f"{at}.norm1"), f"{at}.attn.to_qkv")
        q, k, v = qkv.unflatten(-1, (3, CLIP["num_attention_heads"], -1)).unbind(2)
        attended = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        )
        x = x + linear(attended.transpose(1, 2).flatten(2), f"{at}.attn.proj")
        hidden = functional.gelu(linear(norm(x, f"{at}.norm2"), f"{at}.mlp.0"))
        x = x + linear(hidden, f"{at}.mlp.2")
    return x


@pytest.mark.parametrize("size", [(28, 28), (60, 104), (104, 60)])
def test_tokens_agree_with_wan_s_own_arithmetic(source, encoder, size):
    picture = torch.rand(1, 3, *size) * 2 - 1
    ours = encoder.encode(picture)
    with source.opened() as read:
        state = {name: read(name).clone() for name in source.shapes}
    assert ours.shape == (1, 1 + (28 // 14) ** 2, CLIP["hidden_size"])
    assert (ours - wan_tokens(state, picture)).abs().max() < 2e-5


def test_half_precision_weights_take_a_float32_picture(encoder):
    half = ImageEncoder(encoder._module.bfloat16())
    tokens = half.encode(torch.rand(2, 3, 40, 30) * 2 - 1)
    assert tokens.dtype == torch.bfloat16
    assert torch.isfinite(tokens).all()
    encoder._module.float()
