"""One prompt through a downloaded text encoder, so that nothing else of a profile is needed.

The encoder's tensors are taken one after the other from the file, which stays mapped: on the CPU
its pages can be given back to the system at any time, and everything is let go at the end.
"""

from pathlib import Path

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.prompt_cache import PromptEmbedding

TOKENIZER_FILE = "tokenizer.json"


def encode_prompt(
    profile_name: str, prompt: str, *, source: Path | None = None, device: str = "cpu"
) -> PromptEmbedding:
    """States of a prompt, by the text encoder as it was downloaded.

    Args:
        profile_name: Of ``weights.toml``.
        prompt: As the user wrote it.
        source: A directory with the text encoder and its tokenizer; ``None`` for the downloads.
        device: Where to compute.

    Raises:
        CheckpointError: When encoder or tokenizer are missing, damaged, unsafe or of another
            layout.
        UsageError: For a profile without public files.
    """
    import torch

    from joyflash_cli.encoders.text import TextEncoder, clean_prompt, text_encoder_module
    from joyflash_cli.weights.convert_encoders import fingerprint, plan_text_encoder
    from joyflash_cli.weights.convert_sources import TensorSource, read_stated_config
    from joyflash_cli.weights.sources import find_sources, weight_files

    roles = ("text_encoder", "tokenizer")
    found = find_sources(profile_name, source, roles=roles, needed=("text_encoder",))
    paths = weight_files(found, "text_encoder")
    weights = TensorSource(paths)
    plan = plan_text_encoder(weights.shapes, read_stated_config(paths[0]))
    with torch.device("meta"):
        module = text_encoder_module(plan.section["config"])
    with weights.opened() as read:
        for output in plan.outputs:
            value = output.build(*(read(name) for name in output.sources))
            value = value.to(torch.device(device), torch.bfloat16)
            module.load_state_dict({output.name: value}, strict=False, assign=True)
        encoder = TextEncoder(module, _tokenizer(profile_name, found.get("tokenizer", ())))
        states = encoder.encode(prompt).cpu()
        del encoder, module
    return PromptEmbedding(states, clean_prompt(prompt), fingerprint(weights, plan.outputs))


def _tokenizer(profile_name: str, paths: tuple[Path, ...]) -> Path:
    for path in paths:
        if path.name == TOKENIZER_FILE:
            return path
    raise CheckpointError(
        f"{TOKENIZER_FILE} of profile {profile_name} is not on this machine",
        hint=f"joyflash weights fetch {profile_name} --role tokenizer",
        code="E-CHECKPOINT-MISSING",
    )
