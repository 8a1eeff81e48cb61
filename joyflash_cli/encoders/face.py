"""ArcFace through insightface: who the person in the picture is, as 512 numbers.

The package is optional and its models are never downloaded from here: they are licensed for
non-commercial research only, so the user brings them. Without package, models or face, an all-zero
embedding stands for "nobody in particular", which the transformer turns into tokens of zeros.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from joyflash_cli.errors import CheckpointError, UsageError

FACE_DIM = 512
MODEL_LICENCE = (
    "insightface's face models (buffalo_l, antelopev2) are for non-commercial research only"
)
_TASKS = ("detection", "recognition")
_DETECTION_SIZE = (640, 640)


@dataclass(frozen=True)
class FaceModels:
    """Whether faces can be recognised on this machine.

    Attributes:
        directory: Of the models; ``None`` when they cannot be used.
        notice: One sentence for the user: the models' licence, or what is missing.
    """

    directory: Path | None
    notice: str


def find_face_models(pack: str, *, root: Path | None = None) -> FaceModels:
    """Where a pack of models lies, and what the user should know about it.

    Args:
        pack: Name such as ``buffalo_l``.
        root: Folder of packs; insightface's own ``~/.insightface/models`` by default.
    """
    directory = (root or Path.home() / ".insightface" / "models") / pack
    try:
        import insightface  # noqa: F401 - only whether it is there
    except ImportError:
        return FaceModels(
            None,
            "the face is not recognised: insightface is not installed "
            "(pip install 'joyflash[face]'); the video follows the picture alone",
        )
    if not list(directory.glob("*.onnx")):
        return FaceModels(
            None,
            f"the face is not recognised: no models in {directory}; the video follows the "
            f"picture alone ({MODEL_LICENCE})",
        )
    return FaceModels(directory, MODEL_LICENCE)


class FaceEncoder:
    """Pictures to ArcFace embeddings on the CPU.

    Args:
        directory: ONNX files of one pack, among them a detector and a recogniser.

    Raises:
        UsageError: If insightface is not installed.
        CheckpointError: If the models cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from insightface.app import FaceAnalysis
        except ImportError as error:
            raise UsageError(
                f"insightface cannot be imported: {error}",
                hint="pip install 'joyflash[face]'; on a bare server also libgl1 and libglib2.0-0",
            ) from error
        if not directory.is_dir():
            # Given a name it does not know, insightface would download it.
            raise CheckpointError(
                f"{directory} is no folder of face models", hint="put the ONNX files there"
            )
        try:
            self._analysis: Any = FaceAnalysis(
                name=str(directory),
                allowed_modules=list(_TASKS),
                providers=["CPUExecutionProvider"],
            )
            self._analysis.prepare(ctx_id=-1, det_size=_DETECTION_SIZE)
            missing = [task for task in _TASKS if task not in self._analysis.models]
        except Exception as error:  # ONNX files that are none fail in many ways
            raise CheckpointError(
                f"the face models in {directory} cannot be used: {error or type(error).__name__}",
                hint="put a detector and a recogniser of one insightface pack there",
                code="E-CHECKPOINT-DAMAGED",
            ) from error
        if missing:
            raise CheckpointError(
                f"{directory} has no model for {' and '.join(missing)}",
                hint="put all ONNX files of one insightface pack there",
                code="E-CHECKPOINT-INCOMPLETE",
            )

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Embedding ``(512,)`` of unit length of the largest face; zeros when there is none.

        Args:
            pixels: ``(H, W, 3)`` uint8 RGB.
        """
        faces = self._analysis.get(np.ascontiguousarray(pixels[:, :, ::-1]))  # it expects BGR
        if not faces:
            return no_face()
        largest = max(faces, key=lambda f: (f.bbox[2] - f.bbox[0]) * (f.bbox[3] - f.bbox[1]))
        return np.asarray(largest.normed_embedding, dtype=np.float32)


def no_face(dim: int = FACE_DIM) -> np.ndarray:
    """The embedding of nobody: zeros ``(dim,)``."""
    return np.zeros(dim, dtype=np.float32)
