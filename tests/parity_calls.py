"""Cases that record single forward calls: on a growing cache, and without one."""

from pathlib import Path

import torch
from flow_table import nearest_sigma
from parity_model import (
    RecordedConditioning,
    RecordedFrames,
    compare_audio_tokens,
    load_transformer,
    sampler_profile,
)
from parity_report import Report
from torch import Tensor, nn

from joyflash_cli.model.attention import KeysValues, block_causal_mask
from joyflash_cli.model.transformer import CausalTransformer, Context
from joyflash_cli.sampler.cache import KeyValueCache
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.solver import clean_from_flow, flow_match_table
from joyflash_cli.sampler.urcr import pass_positions


@torch.inference_mode()
def run_calls(directory: Path, case: dict, report: Report) -> None:
    """A sequence of calls on one cache (``*_block``, ``avatarforcing_lora``)."""
    model = load_transformer(directory, case)
    calls = CallSequence(model, case, report)
    report.use("prompt_embeds", "y")
    report.ignore("audio_emb", "audio_rows")
    if "audio_tokens" in report.io:
        compare_audio_tokens(model, report)
    for call in case["calls"]:
        calls.run(call)


@torch.inference_mode()
def run_nocache(directory: Path, case: dict, report: Report) -> None:
    """All frames at once under a block-causal mask (``avatarforcing_nocache``)."""
    model = load_transformer(directory, case)
    profile = sampler_profile(case)
    x, timesteps, _, _, _ = report.use("x", "timestep", "prompt_embeds", "audio_emb", "y")
    num_frames = x.shape[1]
    mask = block_causal_mask(
        num_frames,
        profile.block_frames,
        model.config.tokens_per_frame(*x.shape[-2:]),
        prefix_frames=profile.first_block_frame,
    )
    conditioning = RecordedConditioning(report.io).frames(0, num_frames)
    output = model(x, timesteps, conditioning, positions=torch.arange(num_frames), mask=mask)
    report.compare("flow", output.prediction)
    sigmas = nearest_sigma(flow_match_table(profile.shift), timesteps)[..., None, None, None]
    report.compare("x0", clean_from_flow(x, output.prediction, sigmas))


class CallSequence:
    """The reference's bookkeeping over the product's cache, positions and transformer.

    A call writes the frames it begins with. They stay pending until a call begins elsewhere,
    because the reference overwrites them in place as long as it stays on the same frames.
    """

    def __init__(self, model: CausalTransformer, case: dict, report: Report) -> None:
        self.model, self.case, self.report = model, case, report
        self.profile: SamplerSettings = sampler_profile(case)
        self.conditioning = RecordedConditioning(report.io)
        self.frames = RecordedFrames(model, case)
        sizes = case["config"]
        self.capacity = sizes["cache_frames"]
        self.max_write = sizes.get("cache_write_max_frames", self.capacity)
        self.tokens = model.config.tokens_per_frame(*sizes["latent_hw"])
        self.cache = KeyValueCache(
            num_layers=model.config.num_layers,
            batch_size=case["batch"],
            tokens_per_frame=self.tokens,
            num_heads=model.config.num_heads,
            head_dim=model.config.head_dim,
            sink_frames=sizes["sink_frames"],
            context_frames=self.capacity - sizes["sink_frames"],
        )
        self.pending: tuple[int, tuple[KeysValues, ...]] | None = None

    def run(self, call: dict) -> None:
        """One call: commit, forward, compare, remember."""
        name, (start, stop) = f"call{call['index']:02d}", call["frames"]
        if self.pending is not None and self.pending[0] != start:
            self.cache.append(self.pending[1], self.pending[0])
            self.pending = None
        x, timesteps = self.report.use(f"{name}.x", f"{name}.timestep")
        positions, context = self._place(call, start, stop)
        with Recorder(self.model) as seen:
            output = self.model(
                x, timesteps, self.conditioning.frames(start, stop),
                positions=torch.tensor(positions.own), context=context,
            )  # fmt: skip
        self._compare_hidden(name, seen.outputs, stop - start)
        self.report.compare(f"{name}.flow", output.prediction)
        sigmas = self._sigmas(timesteps)[..., None, None, None]
        self.report.compare(f"{name}.x0", clean_from_flow(x, output.prediction, sigmas))
        num_written = min(self.max_write, stop - start) * self.tokens
        written = tuple((k[:, :num_written], v[:, :num_written]) for k, v in output.keys_values)
        self.pending = (start, written)
        self.frames.write(written, start)
        keys, values = self.frames.cache(start + num_written // self.tokens - 1)
        self.report.compare_part(f"{name}.cache_k", keys, dim=2)
        self.report.compare_part(f"{name}.cache_v", values, dim=2)

    def _place(self, call: dict, start: int, stop: int):
        """Positions of the call and the context it attends, by the profile's rules."""
        sink, context = self.cache.sink, self.cache.context
        written = min(self.max_write, stop - start)
        # What the call writes has pushed the oldest frames out before it attends.
        held = min(len(context), self.capacity - len(sink) - written)
        room = self.profile.attention_span_frames - (stop - start)
        is_clean = call.get("updating_cache", False)
        if is_clean:
            num_context = min(held, room)
            num_sink = min(len(sink), room - num_context)
        else:
            num_sink, num_context = len(sink), max(min(held, room - len(sink)), 0)
        positions = pass_positions(
            self.profile,
            "clean" if is_clean else "window",
            sink=sink[len(sink) - num_sink :],
            context=context[len(context) - num_context :],
            own=range(start, stop),
            start=start,
        )
        if not num_sink + num_context:
            return positions, None
        keys_values = self.cache.read(num_sink=num_sink, num_context=num_context)
        return positions, Context(keys_values, torch.tensor(positions.context))

    def _sigmas(self, timesteps: Tensor) -> Tensor:
        if "max_attention_frames" in self.case["config"]:
            return nearest_sigma(flow_match_table(self.profile.shift), timesteps)
        return timesteps / 1000

    def _compare_hidden(self, name: str, outputs: dict[str, Tensor], num_frames: int) -> None:
        rows, columns = self.case["config"]["latent_hw"]
        patch = self.model.config.patch_size
        grid = (rows // patch[1], columns // patch[2])
        for part, hidden in outputs.items():
            if part == "patch_embed":
                hidden = hidden.unflatten(2, grid).permute(0, 4, 1, 2, 3)
            elif part in ("time_embed", "time_proj"):
                hidden = hidden.flatten(0, 1)
            elif part.startswith("audio"):
                hidden = hidden[:, :, None, None]
            self.report.compare(f"{name}.hidden.{part}", hidden)


class Recorder:
    """Outputs of the parts that the records name, caught while a forward runs."""

    def __init__(self, model: CausalTransformer) -> None:
        self.outputs: dict[str, Tensor] = {}
        self._parts: dict[str, nn.Module] = {
            "patch_embed": model.patch_embedding,
            "time_embed": model.time_embedding,
            "time_proj": model.time_projection,
        }
        optional = {
            "context": "text_embedding",
            "clip": "image_embedding",
            "audio_projection": "audio_projection",
        }
        self._parts |= {
            name: getattr(model, part) for name, part in optional.items() if hasattr(model, part)
        }
        for index, layer in enumerate(model.layers):
            self._parts[f"block{index}"] = layer
            for part in ("self_attention", "cross_attention", "audio_attention"):
                if getattr(layer, part) is not None:
                    self._parts[f"{part}{index}"] = getattr(layer, part)
        if model.config.audio_pack is not None:
            self._parts["audio_pack"] = model.audio_pack
            for index, projection in enumerate(model.audio_pack_projections):
                self._parts[f"audio_cond{index}"] = projection

    def __enter__(self) -> "Recorder":
        self._handles = [
            part.register_forward_hook(self._hook(name)) for name, part in self._parts.items()
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str):
        def record(_module: nn.Module, _inputs: object, output: object) -> None:
            self.outputs[name] = output[0] if isinstance(output, tuple) else output

        return record
