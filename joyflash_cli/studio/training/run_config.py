"""The configuration of one training run, read from a TOML file."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from joyflash_cli.config import from_dict
from joyflash_cli.errors import ConfigError
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.studio.clips.clips import ClipsConfig
from joyflash_cli.studio.clips.film_clips import FilmClipsConfig
from joyflash_cli.studio.clips.photo_clips import PhotoClipsConfig
from joyflash_cli.studio.training.codec import CodecTrainingConfig
from joyflash_cli.studio.training.dataset_latents import DatasetConfig
from joyflash_cli.studio.training.decoder_batches import DecoderTrainingConfig
from joyflash_cli.studio.training.dmd import DmdConfig
from joyflash_cli.studio.training.front_end import FrontEndTrainingConfig
from joyflash_cli.studio.training.generator_batches import GeneratorTrainingConfig
from joyflash_cli.studio.training.guidance import GuidanceConfig
from joyflash_cli.studio.training.latent_reader import LatentReaderConfig
from joyflash_cli.studio.training.latents import ReferencePlace
from joyflash_cli.studio.training.ode import OdeConfig, OdePairsConfig
from joyflash_cli.studio.training.points import PointsConfig
from joyflash_cli.studio.training.predictions import PredictionsConfig
from joyflash_cli.studio.training.teacher import TeacherConfig
from joyflash_cli.studio.training.validation import ValidationConfig

CHECKPOINT = "checkpoint"
"""In ``[weights]``, the transformer of ``dataset.checkpoint``."""

GENERATOR_RESULT = "generator/generator.safetensors"
GUIDANCE_RESULT = "guidance/student.safetensors"
TEACHER_RESULT = "teacher/teacher.safetensors"
ODE_RESULT = "ode/student.safetensors"
DMD_RESULT = "dmd/generator.safetensors"
"""Weights that stages leave below the work directory."""


@dataclass(frozen=True)
class SpeechConfig:
    """How much speech to build; see ``studio.speech.speech_build``."""

    num_utterances: int = 930
    seed: int = 0


@dataclass(frozen=True)
class DistillationWeights:
    """Which weights the distillation begins with; files below the work directory, or anywhere.

    The word ``checkpoint`` stands for the transformer of ``dataset.checkpoint``; sizes and sampler
    are then the checkpoint's as well.

    Attributes:
        generator_start: What the stage ``generator`` starts from; a fresh one if empty.
        teacher_start: Denoiser that the teacher starts from; a fresh one if empty.
        teacher: Real score; it also walks the ODE pairs (paper: 14B).
        teacher_transformer: Its sizes; the generator's if ``None``.
        fake_score: Bidirectional, of the generator's size (paper: the 1.3B teacher).
        ode_start: What the ODE initialisation starts from.
        dmd_start: What DMD starts from.
        exported: What the stage ``export`` packs.
        distilled: Whether those need no guidance, as it is in their weights. Where it is not said,
            the results of the stages ``guidance``, ``ode`` and ``dmd`` are.
    """

    generator_start: str = ""
    teacher_start: str = GENERATOR_RESULT
    teacher: str = TEACHER_RESULT
    teacher_transformer: TransformerConfig | None = None
    fake_score: str = TEACHER_RESULT
    ode_start: str = TEACHER_RESULT
    dmd_start: str = ODE_RESULT
    exported: str = GENERATOR_RESULT
    distilled: bool | None = None

    @property
    def exports_distilled(self) -> bool:
        """``distilled``, or what it is by default."""
        if self.distilled is None:
            return self.exported in (GUIDANCE_RESULT, ODE_RESULT, DMD_RESULT)
        return self.distilled


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        work_dir: Folder of data, states and results; ``~`` is the home folder.
        assets_dir: Folder with the packs ``heads`` and ``speech``.
        start: Profile or checkpoint folder whose parts ``unpack`` lays down; empty begins anew.
        version: Written into the exported checkpoint.
        processes: Worker processes where a stage uses them.
        threads: Torch threads of the training stages.
        device: Of the distillation stages: ``auto``, ``cpu`` or ``cuda``.
        recompute_layers: Whether activations inside of layers are computed anew in the backward
            pass, to save memory (gradient checkpointing).
        save_every_s: A kill loses at most this many seconds of the distillation stages.
        save_every_steps: Besides, a state is saved every so many steps; 0 leaves it to the clock.
        tensorboard: Whether figures also go to TensorBoard.
        gpus: Processes that the run is meant for; only the dry run reads it.
        latent_size: Rows and columns of a latent frame; only the dry run reads it.
        reference: Where the reference latent stands in all stages of the distillation.
        latents_dir: Folder of the encoded clips, below the work directory or anywhere.
        latents: How encoder and decoder learn together; ``decoder`` is what comes after.
    """

    work_dir: str
    assets_dir: str
    version: str
    start: str = "tiny"
    processes: int = 2
    threads: int = 2
    device: str = "auto"
    recompute_layers: bool = False
    save_every_s: float = 300.0
    save_every_steps: int = 0
    tensorboard: bool = False
    gpus: int = 1
    latent_size: tuple[int, int] = (16, 16)
    reference: ReferencePlace = "every-frame"
    latents_dir: str = "latents"
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    points: PointsConfig = field(default_factory=PointsConfig)
    speech: SpeechConfig = field(default_factory=SpeechConfig)
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    held_out_clips: ClipsConfig = field(
        default_factory=lambda: ClipsConfig(num_clips=40, split="held-out", seed=2000)
    )
    photo_clips: PhotoClipsConfig = field(default_factory=PhotoClipsConfig)
    held_out_photo_clips: PhotoClipsConfig = field(
        default_factory=lambda: PhotoClipsConfig(split="held-out", seed=4000)
    )
    film_clips: FilmClipsConfig = field(default_factory=FilmClipsConfig)
    front_end: FrontEndTrainingConfig = field(default_factory=FrontEndTrainingConfig)
    codec: CodecTrainingConfig = field(default_factory=CodecTrainingConfig)
    latents: DecoderTrainingConfig = field(
        default_factory=lambda: DecoderTrainingConfig(learns_latents=True, noise=0.5)
    )
    lip_reader: LatentReaderConfig = field(default_factory=LatentReaderConfig)
    predictions: PredictionsConfig = field(default_factory=PredictionsConfig)
    decoder: DecoderTrainingConfig = field(default_factory=DecoderTrainingConfig)
    generator: GeneratorTrainingConfig = field(default_factory=GeneratorTrainingConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    weights: DistillationWeights = field(default_factory=DistillationWeights)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    ode_pairs: OdePairsConfig = field(default_factory=OdePairsConfig)
    ode: OdeConfig = field(default_factory=OdeConfig)
    dmd: DmdConfig = field(default_factory=DmdConfig)

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
