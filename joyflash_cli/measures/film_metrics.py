"""Metrics that need no download: lips, drift and speed of any video of one speaking face."""

from collections.abc import Mapping
from typing import Any

from joyflash_cli.measures import film_figures, reader, sync, tracks
from joyflash_cli.measures.clip import Clip
from joyflash_cli.measures.film import OPEN_MOUTH, embed_face
from joyflash_cli.measures.film_figures import Figures, compare
from joyflash_cli.measures.identity import similarity_to_reference
from joyflash_cli.measures.metric import Measured, Metric
from joyflash_cli.measures.origin import blocks_are_known
from joyflash_cli.measures.table import Measure, fixed, signed
from joyflash_cli.media.inputs import face_points
from joyflash_cli.small_networks import asset_sha256

MIN_FOR_LAG = {"lip": 0.3, "sound": 0.5}
"""Lips that follow less than this at the best lag have no lag that means anything.

Against loudness, of ten films of people true ones above it had a lag of 0 and late ones theirs;
below it, or at the longest lag sought, any."""

STILL_LIPS = 0.002
"""Spread of the lips' opening, in outer eye distances, below which they stand still.

What the reader makes of one frame shown again and again was 0.0003 or less; lips that spoke had
0.018 or more."""

SILENCE_MARGIN_S = 0.24

NO_TRUTH = "no true film is given: a column truth, or --truth DIR"
NO_SOUND = "the video has no sound"
TOGETHER = (
    "a record holds the time of transformer and decoder together; joyflash benchmark tells them "
    "apart"
)

TO_TRUTH = (
    Measure("lip_correlation", "lips to truth", "",
            "correlation of the lips' opening with that of the true film, at the best lag of up to "
            "0.2 s either way",
            "it says nothing of how large a movement is; lips of another sentence agree by chance, "
            "too: 0.2 to 0.7 in films of a few seconds",
            fixed(2), "high"),
    Measure("lip_lag_frames", "lag to truth", "frames",
            "that lag; positive when the picture is late",
            "lags beyond 0.2 s are not sought", signed, "zero"),
    Measure("lip_correlation_at_zero_lag", "lips, no lag", "",
            "correlation of the lips' opening with that of the true film, without a lag",
            "noise of the reader lowers it", fixed(2), "high"),
    Measure("mouth_amplitude", "amplitude", "",
            "spread of the lips' opening over that of the true film",
            "noise of the reader is part of both spreads", fixed(2), "one"),
    Measure("width_correlation_at_zero_lag", "width to truth", "",
            "correlation of the distance of the mouth's corners with the true one, without a lag",
            show=fixed(2), better="high"),
    Measure("open_mouth_psnr_db", "open mouth", "dB",
            "likeness of every open mouth to the true one of nearest opening and width, upright "
            "and of one scale", "timing does not count", fixed(1), "high"),
    Measure("teeth", "teeth", "levels of 255",
            "how much brighter it is between open lips than between the true ones",
            "it tells nothing of the shape of teeth", fixed(1), "zero"),
)  # fmt: skip
"""Beside the true film."""

TO_SOUND = (
    Measure("sound_correlation", "lips to sound", "",
            "correlation of the lips' opening with the loudness of the sound, at the best lag of "
            "up to 0.2 s either way",
            "loudness is not articulation: of ten films of people the true ones had 0.50, those "
            "with lips of another sentence 0.49; it is not Sync-C",
            fixed(2), "high"),
    Measure("sound_lag_frames", "lag to sound", "frames",
            "that lag; positive when the picture is late",
            "lips open before the sound, so a true film may be a frame early; many films have "
            "none that means anything", signed, "zero"),
    Measure("silence_movement", "in silence", "",
            "movement of the lips in silence over that in speech",
            "a smile counts as movement", fixed(2), "low"),
)  # fmt: skip
"""Beside the sound."""

ALONE = (
    Measure("mouth_movement", "movement", "outer eye distances", "spread of the lips' opening",
            "it says how much, not how well, a mouth moves", fixed(3)),
    Measure("inside_lightness_p95", "inside", "",
            "95th percentile of the luma between open lips over that of the cheeks",
            "teeth that shine raise it, a bright room as well", fixed(2)),
    Measure("blinks_per_min", "blinks", "a minute",
            "lids below 0.7 of their usual opening for 0.08 to 0.48 s", "half-blinks do not count",
            fixed(1)),
    Measure("face_seen", "seen", "", "share of frames on which the face was made out",
            show=fixed(2), better="high"),
)  # fmt: skip
"""Without either."""

DRIFT = (
    Measure("identity_similarity", "identity", "",
            "mean cosine of a small embedding of the face, mouth hidden, with the reference "
            "picture or the first frame",
            "it is not IDC; two films of one person gave 0.75, of two people 0.25",
            fixed(2), "high"),
    Measure("sharpness_drift", "sharpness drift", "",
            "sharpness of the face in the last ten seconds (or half) over that in the first",
            "a video that is blurred from the beginning has 1", fixed(2), "one"),
    Measure("colour_drift", "colour drift", "levels of 255",
            "largest change of a colour channel's mean from the first ten seconds (or half) to the "
            "last", "a change of the scene counts as well", fixed(1), "low"),
    Measure("identity_drift", "identity drift", "",
            "cosine of the mean embeddings of the first and the last ten seconds (or halves)",
            show=fixed(2), better="high"),
    Measure("border_flicker", "border flicker", "",
            "change from frame to frame at block borders over that elsewhere; 1 is seamless",
            "only of videos whose blocks are known: JoyFlash's own", fixed(2), "one"),
    Measure("sharpness", "sharpness", "", "sharpness of the face over that of the true film",
            "noise counts as sharpness", fixed(2), "one"),
)  # fmt: skip

SPEED = (
    Measure("fps", "FPS", "frames a second",
            "frames of the video over seconds of work from the start of sampling until the file "
            "was closed, from the record beside it",
            "end to end on the machine that made it: read device and size next to it",
            better="high"),
    Measure("fps_dit", "FPS, DiT only", "frames a second",
            "the same for the transformer alone, as the paper states it",
            "a finished video does not tell it; joyflash benchmark does", better="high"),
)  # fmt: skip


class Lips(Metric):
    """What mouth and eyes do: beside the true film, beside the sound, and alone."""

    name = "lips"
    measures = (*TO_TRUTH, *TO_SOUND, *ALONE)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Thresholds, and the network that reads the face."""
        return {
            "points_sha256": asset_sha256(face_points.ASSET),
            "smoothing_s": film_figures.SMOOTHING_S,
            "max_lag_s": film_figures.MAX_LAG_S,
            "min_for_lag": MIN_FOR_LAG,
            "still_lips": STILL_LIPS,
            "silence_margin_s": SILENCE_MARGIN_S,
            "open_mouth": OPEN_MOUTH,
            "shut": film_figures.SHUT,
            "blink_s": list(film_figures.BLINK_S),
        }

    def compute(self, clip: Clip) -> Measured:
        """Its figures; those beside truth and sound where there are such."""
        film, waveform, truth = clip.film, clip.waveform, clip.truth
        figures = clip.figures
        reasons: dict[str, str] = {}
        if truth is None:
            reasons |= _all(TO_TRUTH, NO_TRUTH)
        else:
            figures = compare(film, truth.film).joined(figures)
        values = _without_chance(figures, reasons)
        if waveform is None:
            reasons |= _all(TO_SOUND, NO_SOUND)
        else:
            level_db = sync.speech_level_db(waveform, len(film.opening), fps=film.fps)
            margin = round(SILENCE_MARGIN_S * film.fps)
            silent = sync.quiet_frames(level_db, margin_frames=margin)
            values["silence_movement"] = sync.movement_ratio(film.opening, silent).ratio
        if _stand_still(values):
            values["silence_movement"] = None
            reasons["silence_movement"] = "the lips stand still"
        why = {
            "silence_movement": "the sound has no stretch of silence, or nothing else",
            "inside_lightness_p95": "the mouth never opens",
            "open_mouth_psnr_db": "the mouth never opens",
            "teeth": "the two mouths are never open alike",
            "mouth_amplitude": "the mouth of the true film stands still",
        }
        return Measured(values, why | reasons)


class Drift(Metric):
    """Whether the person and the look of the picture stay as they were."""

    name = "drift"
    measures = DRIFT

    @property
    def settings(self) -> Mapping[str, Any]:
        """How long beginning and end are, and the networks that read face and person."""
        return {
            "points_sha256": asset_sha256(face_points.ASSET),
            "readers_sha256": asset_sha256(reader.ASSET),
            "window_s": tracks.WINDOW_S,
        }

    def compute(self, clip: Clip) -> Measured:
        """Its figures; the likeness is to the reference picture where one is named."""
        film, truth = clip.film, clip.truth
        values = dict(clip.figures.values)
        reasons: dict[str, str] = {}
        if clip.row.reference is not None:
            reference = embed_face(clip.reference, clip.readers)
            values["identity_similarity"] = similarity_to_reference(film.identity, reference)
        if not blocks_are_known(clip.record, clip.facts.metadata):
            values["border_flicker"] = None
            reasons["border_flicker"] = (
                "where blocks begin is only known of videos that JoyFlash made"
            )
        if truth is None:
            reasons["sharpness"] = NO_TRUTH
        elif truth.first_frame.shape != clip.first_frame.shape:
            reasons["sharpness"] = "the true film has frames of another size"
        else:
            values["sharpness"] = float(film.sharpness.mean() / truth.film.sharpness.mean())
        return Measured(values, {"border_flicker": "nothing in the video moves"} | reasons)


class Speed(Metric):
    """How fast the video was made, by the record beside it."""

    name = "speed"
    measures = SPEED

    def compute(self, clip: Clip) -> Measured:
        """Its figures, from the record that JoyFlash writes beside a video."""
        clip.facts  # noqa: B018 - a file that is no video fails, whatever lies beside it
        frames, wall_s = (clip.record.get(name) for name in ("video_frames", "wall_s"))
        if not isinstance(frames, int) or not isinstance(wall_s, int | float) or wall_s <= 0:
            unknown = "no record of a JoyFlash render lies beside the video"
            return Measured({}, {"fps": unknown, "fps_dit": unknown})
        return Measured({"fps": frames / wall_s}, {"fps_dit": TOGETHER})


def _all(measures: tuple[Measure, ...], reason: str) -> dict[str, str]:
    return {measure.name: reason for measure in measures}


def _stand_still(values: Mapping[str, float | None]) -> bool:
    movement = values["mouth_movement"]
    return movement is not None and movement < STILL_LIPS


def _without_chance(figures: Figures, reasons: dict[str, str]) -> dict[str, float | None]:
    """The table of figures, less what chance makes of lips that follow nothing.

    Those that stand still have a correlation of 0, and no lag; those that move have one, but no lag
    where it is too low.
    """
    values: dict[str, float | None] = dict(figures.table())
    is_still = _stand_still(values)
    for kind in ("lip", "width", "sound"):
        for name in (f"{kind}_correlation", f"{kind}_correlation_at_zero_lag"):
            if is_still and name in values:
                values[name] = 0.0
        if (
            kind in figures.curves
            and kind in MIN_FOR_LAG
            and (why := _no_lag(kind, values, figures))
        ):
            values[f"{kind}_lag_frames"] = None
            reasons[f"{kind}_lag_frames"] = why
    return values


def _no_lag(kind: str, values: Mapping[str, float | None], figures: Figures) -> str:
    """Why a best lag means nothing; empty where it does."""
    if _stand_still(values):
        return "the lips stand still"
    found, lag = values[f"{kind}_correlation"] or 0.0, values[f"{kind}_lag_frames"] or 0.0
    if found < MIN_FOR_LAG[kind]:
        return (
            f"lips that follow with a correlation of {found:.2f} have no lag; "
            f"{MIN_FOR_LAG[kind]:g} are needed"
        )
    if abs(lag) == len(figures.curves[kind]) // 2:
        return "the best lag is the longest that is sought"
    return ""
