"""The stages of ``joyflash train``, each from one configuration file to files on disk.

Every stage reads what the ones before it wrote below the work directory and goes on where it was
stopped when run again with ``resume``.
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from joyflash_cli.config import from_dict
from joyflash_cli.data.clips import ClipsConfig
from joyflash_cli.errors import ConfigError, UsageError
from joyflash_cli.model.config import TINY
from joyflash_cli.sampler.profile import TINY as TINY_SAMPLER
from joyflash_cli.training.codec import CodecTrainingConfig
from joyflash_cli.training.front_end import FrontEndTraining
from joyflash_cli.training.generator import GeneratorTrainingConfig

Report = Callable[[dict], None]


@dataclass(frozen=True)
class SpeechConfig:
    """How much speech to build; see ``data.speech_build``."""

    num_utterances: int = 930
    seed: int = 0


def _generator_default() -> GeneratorTrainingConfig:
    return GeneratorTrainingConfig(transformer=TINY, sampler=TINY_SAMPLER)


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        work_dir: Folder of data, states and results; ``~`` is the home folder.
        assets_dir: Folder with the packs ``heads`` and ``speech``.
        version: Written into the exported checkpoint.
        processes: Worker processes where a stage uses them.
        threads: Torch threads of the training stages.
    """

    work_dir: str
    assets_dir: str
    version: str
    processes: int = 2
    threads: int = 2
    speech: SpeechConfig = field(default_factory=SpeechConfig)
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    held_out_clips: ClipsConfig = field(
        default_factory=lambda: ClipsConfig(num_clips=40, split="held-out", seed=2000)
    )
    front_end: FrontEndTraining = field(default_factory=FrontEndTraining)
    codec: CodecTrainingConfig = field(default_factory=CodecTrainingConfig)
    generator: GeneratorTrainingConfig = field(default_factory=_generator_default)

    def path(self, name: str) -> Path:
        """A file or folder below the work directory."""
        return Path(self.work_dir).expanduser() / name

    def assets(self, name: str) -> Path:
        """A pack below the assets directory."""
        return Path(self.assets_dir).expanduser() / name


def load_run_config(path: Path) -> RunConfig:
    """The run of a TOML file.

    Raises:
        ConfigError: If the file is missing, not TOML, or has an unknown key or a wrong type.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"No configuration file {path}.", hint="see runs/tiny.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return from_dict(RunConfig, values, path=str(path))


def _speech(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.data.speech_build import build_speech

    build_speech(
        run.assets("speech"),
        run.path("speech/speech.npz"),
        num_utterances=run.speech.num_utterances,
        seed=run.speech.seed,
        processes=run.processes,
    )


def _clips(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.data.clips import build_clips

    for config, name in ((run.held_out_clips, "held_out"), (run.clips, "train")):
        build_clips(
            config,
            assets_dir=run.assets("heads"),
            speech_path=run.path("speech/speech.npz"),
            out_dir=run.path(f"clips/{name}"),
            processes=run.processes,
            on_shard=lambda done, total, name=name: report({name: done, "of": total}),
        )


def _front_end(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.data.speech import load_speech
    from joyflash_cli.encoders.front_end import save_front_end
    from joyflash_cli.training.front_end import pretrain_front_end, viseme_correlations

    utterances = load_speech(run.path("speech/speech.npz"))
    front_end = pretrain_front_end(
        [u for u in utterances if u.split == "train"],
        run.front_end,
        report=lambda step, loss: report({"step": step, "loss": loss}),
    )
    save_front_end(front_end, run.path("front_end.safetensors"))
    held_out = [u for u in utterances if u.split == "held-out"]
    report({"held_out": viseme_correlations(front_end, held_out)})


def _codec(run: RunConfig, resume: bool, report: Report) -> None:
    from safetensors.torch import save_file

    from joyflash_cli.training.codec import train_codec

    codec = train_codec(
        run.codec,
        clips_dir=run.path("clips/train"),
        held_out_dir=run.path("clips/held_out"),
        out_dir=run.path("codec"),
        resume=resume,
        on_log=report,
    )
    save_file(
        {name: value.contiguous() for name, value in codec.state_dict().items()},
        run.path("codec/codec.safetensors"),
    )


def _load_codec(run: RunConfig):
    from safetensors.torch import load_file

    from joyflash_cli.codec.tiny import TinyCodec

    codec = TinyCodec(run.codec.codec)
    codec.load_state_dict(load_file(run.path("codec/codec.safetensors")))
    return codec.eval()


def _load_front_end(run: RunConfig):
    from joyflash_cli.encoders.front_end import load_front_end

    return load_front_end(run.path("front_end.safetensors")).eval()


def _latents(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.training.latents import build_latents

    for name in ("held_out", "train"):
        build_latents(
            clips_dir=run.path(f"clips/{name}"),
            out_dir=run.path(f"latents/{name}"),
            codec=_load_codec(run),
            front_end=_load_front_end(run),
            on_shard=lambda done, total, name=name: report({name: done, "of": total}),
        )


def _generator(run: RunConfig, resume: bool, report: Report) -> None:
    from safetensors.torch import save_file

    from joyflash_cli.training.generator import train_generator
    from joyflash_cli.training.latents import load_latents

    model = train_generator(
        run.generator,
        clips=load_latents(run.path("latents/train")),
        held_out=load_latents(run.path("latents/held_out")),
        out_dir=run.path("generator"),
        resume=resume,
        on_log=report,
    )
    save_file(model.state_dict(), run.path("generator/generator.safetensors"))


def _export(run: RunConfig, resume: bool, report: Report) -> None:
    from safetensors.torch import load_file

    from joyflash_cli.data.clips import ClipStore
    from joyflash_cli.media.framing import measure_framing
    from joyflash_cli.model.transformer import CausalTransformer
    from joyflash_cli.training.export import export_checkpoint

    model = CausalTransformer(run.generator.transformer)
    model.load_state_dict(load_file(run.path("generator/generator.safetensors")))
    store = ClipStore(run.path("clips/train"))
    framing = measure_framing([store.frames(i)[0] for i in range(0, min(len(store), 240))])
    export_checkpoint(
        run.path("checkpoint"),
        transformer=model,
        codec=_load_codec(run),
        front_end=_load_front_end(run),
        sampler=run.generator.sampler,
        framing=framing,
        version=run.version,
    )
    report({"checkpoint": str(run.path("checkpoint"))})


STAGES: dict[str, Callable[[RunConfig, bool, Report], None]] = {
    "speech": _speech,
    "clips": _clips,
    "front-end": _front_end,
    "codec": _codec,
    "latents": _latents,
    "generator": _generator,
    "export": _export,
}


def run_stage(
    stage: str, config_path: Path, *, resume: bool = False, report: Report = lambda line: None
) -> None:
    """Run one stage.

    Args:
        stage: A key of ``STAGES``.
        config_path: TOML file of a ``RunConfig``.
        resume: Go on from the stage's saved state.
        report: Called with a small dictionary of figures now and then.

    Raises:
        UsageError: If there is no such stage.
    """
    if stage not in STAGES:
        raise UsageError(
            f"There is no training stage {stage!r}.", hint=f"stages: {', '.join(STAGES)}"
        )
    import torch

    run = load_run_config(config_path)
    torch.set_num_threads(run.threads)
    STAGES[stage](run, resume, report)
