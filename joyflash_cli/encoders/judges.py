"""Networks that judge films and make none: DINOv2, CLIP, and Q-Align with its own code."""

from pathlib import Path
from typing import Any


def load_dinov2(directory: Path) -> Any:
    """DINOv2 of transformers, from a folder of ``config.json`` and safetensors."""
    from transformers import Dinov2Model

    network = Dinov2Model.from_pretrained(directory, local_files_only=True, use_safetensors=True)
    return network.eval()


def load_clip(directory: Path) -> tuple[Any, Any]:
    """CLIP of transformers and its tokenizer, from a folder of config, safetensors, tokenizer."""
    from transformers import CLIPModel, CLIPTokenizer

    network = CLIPModel.from_pretrained(directory, local_files_only=True, use_safetensors=True)
    return network.eval(), CLIPTokenizer.from_pretrained(directory, local_files_only=True)


def load_q_align(snapshot: Path) -> Any:
    """Q-Align of a downloaded snapshot. **Runs the code in it**, with all rights of the user."""
    import torch
    from transformers import AutoModelForCausalLM

    has_gpu = torch.cuda.is_available()
    model: Any = AutoModelForCausalLM.from_pretrained(
        snapshot,
        trust_remote_code=True,
        local_files_only=True,
        attn_implementation="eager",
        dtype=torch.float16 if has_gpu else torch.float32,
    )
    return model.to("cuda" if has_gpu else "cpu").eval()
