"""IDC, Q-Align's and CLIP's scores: arithmetic with stand-ins, networks with random weights."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from joyflash_cli.encoders.judges import load_clip, load_dinov2
from joyflash_cli.measures.clip import Clip, VideoRow
from joyflash_cli.measures.picture_look import clarity, face_crop, noise_levels
from joyflash_cli.measures.reader import IdentityNet, MouthReader, Readers
from joyflash_cli.measures.score_metrics import (
    ClipIqa,
    IdentityConsistency,
    PictureLook,
    QAlignScores,
)
from joyflash_cli.measures.scores import (
    ANTONYMS,
    PROMPT,
    Q_ALIGN_REVISION,
    WORDS,
    QAlign,
    antonym_score,
    class_tokens,
    consistency,
    quality_score,
    similarity_to,
    word_scores,
)
from tests.measures.judged_films import qualities
from tests.report.clips import held_out, write_video


def clip_of(path, **changes):
    torch.manual_seed(0)
    readers = Readers(MouthReader().eval(), IdentityNet().eval())
    return Clip(VideoRow(path.stem, path, **changes), readers)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    frames, _ = held_out()
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", frames[:60])


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dinov2")
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=224, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    return folder


def test_one_word_for_sure_is_its_weight():
    sure = 1000 * torch.eye(5)
    assert word_scores(sure).tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_words_alike_are_a_half():
    assert word_scores(torch.zeros(2, 5)).tolist() == pytest.approx([0.5, 0.5])


def test_the_answer_is_the_published_one_mapped_to_a_unit():
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    one_to_five = logits.softmax(-1) @ torch.tensor([5.0, 4, 3, 2, 1])
    torch.testing.assert_close(word_scores(logits), (one_to_five - 1) / 4)


class Bright:
    """Says that bright pictures are excellent."""

    def logits(self, pictures):
        light = torch.tensor([float(picture.mean()) / 255 for picture in pictures])
        return torch.stack([50 * light, *[torch.zeros_like(light)] * 3, 50 * (1 - light)], -1)


def test_a_score_is_the_mean_over_pictures():
    white, black = np.full((9, 9, 3), 255, np.uint8), np.zeros((9, 9, 3), np.uint8)
    assert quality_score(Bright(), [white]) == pytest.approx(1)
    assert quality_score(Bright(), [white, black, black, black]) == pytest.approx(0.25)
    assert quality_score(Bright(), []) is None


class StandIn(torch.nn.Module):
    """Looks like the published model from outside: ids of words, pictures, logits of the last."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.image_processor = SimpleNamespace(
            image_mean=(0.48, 0.46, 0.41), preprocess=self._preprocess
        )
        self.asked = []

    def tokenizer(self, text):
        if isinstance(text, list):
            return {"input_ids": [[1, 100 + WORDS.index(word)] for word in text]}
        return {"input_ids": [1, *map(ord, text)]}

    def _preprocess(self, images, return_tensors):
        assert return_tensors == "pt"
        pictures = [image[5::10, 5::10] for image in images]
        return {"pixel_values": torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2)}

    def forward(self, input_ids, images):
        self.asked.append((input_ids, images))
        logits = torch.zeros(len(images), input_ids.shape[1], 200)
        logits[:, -1, 100] = images.mean((1, 2, 3))
        return {"logits": logits}


def test_q_align_is_asked_as_published():
    model = StandIn()
    picture = np.full((40, 80, 3), 200, np.uint8)
    logits = QAlign(model).logits([picture, picture])
    ids, images = model.asked[0]
    before, after = PROMPT.split("<|image|>")
    assert ids.tolist() == [[1, *map(ord, before), -200, *map(ord, after)]] * 2
    assert logits.shape == (2, 5)
    assert logits[0, 1:].tolist() == [0, 0, 0, 0]
    # The picture lies in the middle of a square of the mean colour.
    assert images.dtype == torch.float32
    assert images[0, :, 4, 4].tolist() == [200, 200, 200]
    assert images[0, :, 0, 0].tolist() == [122, 117, 104]


def test_q_align_never_runs_by_default(film, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    pinned = f"q-future/one-align@{Q_ALIGN_REVISION}"
    refused = QAlignScores().missing()
    assert f"--remote-code {pinned}" in refused
    assert "may do here whatever you may" in refused
    assert "is not the pinned" in QAlignScores("q-future/one-align@main").missing()
    assert f"--revision {Q_ALIGN_REVISION}" in QAlignScores(pinned).missing()


def test_frames_and_faces_are_scored_once_a_second(film):
    asked = []

    class Counting(Bright):
        def logits(self, pictures):
            asked.extend(picture.shape for picture in pictures)
            return super().logits(pictures)

    metric = QAlignScores(judge=Counting())
    assert metric.missing() == ""
    found = metric.compute(clip_of(film))
    assert len(asked) == 6  # seconds 0, 1 and 2: frames and faces
    assert 0 < found.values["q_score"] < 1
    assert 0 < found.values["q_face"] < 1
    assert not found.reasons


def test_a_film_without_a_face_has_no_q_face(tmp_path):
    path = write_video(tmp_path / "grey.mp4", np.full((30, 64, 64, 3), 90, np.uint8))
    found = QAlignScores(judge=Bright()).compute(clip_of(path))
    assert found.values["q_face"] is None
    assert "no face" in found.reasons["q_face"]
    assert found.values["q_score"] is not None


def test_the_picture_itself_is_alike_in_any_order(dinov2):
    frames, _ = held_out()
    network = load_dinov2(dinov2)
    first, last = class_tokens(network, [frames[0], frames[-1]])
    assert similarity_to(first[None], first) == pytest.approx(1, abs=1e-6)
    mixed = similarity_to(torch.stack([first, last, last, first]), first)
    alone = similarity_to(last[None], first)
    assert mixed == pytest.approx((1 + alone) / 2, abs=1e-6)


def test_consistency_is_half_of_neighbours_and_half_of_the_first():
    axes = torch.eye(3)
    assert consistency(axes[[0, 0, 0]]) == pytest.approx(1)
    assert consistency(axes) == pytest.approx(0)
    assert consistency(axes[[0, 0, 1, 1]]) == pytest.approx((2 + 0 + 1) / 6)
    assert consistency(axes[:1]) is None


def test_pictures_are_seen_as_transformers_own_processor_shows_them(dinov2):
    from transformers import BitImageProcessor

    from joyflash_cli.measures.scores import _as_seen

    picture = np.random.default_rng(0).integers(0, 256, (300, 401, 3), dtype=np.uint8)
    processor = BitImageProcessor(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, resample=3,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    expected = processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"][0]
    assert float((_as_seen(picture) - expected).abs().mean()) < 0.05


def test_idc_of_a_film(film, dinov2, tmp_path):
    metric = IdentityConsistency(dinov2)
    assert metric.missing() == ""
    found = metric.compute(clip_of(film)).values
    own = found["idc"]
    assert 0.5 < own <= 1 + 1e-6
    assert 0.5 < found["idc_consecutive"] <= 1 + 1e-6
    assert len(metric.settings["dinov2_sha256"]) == 64
    Image.fromarray(255 - held_out()[0][0]).save(tmp_path / "other.png")
    other = metric.compute(clip_of(film, reference=tmp_path / "other.png")).values["idc"]
    assert other < own


def test_idc_of_known_qualities_is_in_order(dinov2, tmp_path):
    films, _ = qualities()
    metric = IdentityConsistency(dinov2)
    Image.fromarray(films["true"][0]).save(tmp_path / "face.png")
    found = {}
    for name in ("still", "true", "aged", "blurred"):
        path = write_video(tmp_path / f"{name}.mp4", films[name][::4])
        found[name] = metric.compute(clip_of(path, reference=tmp_path / "face.png")).values
    for key in ("idc", "idc_consecutive"):
        assert found["still"][key] > found["true"][key] > found["aged"][key]
    assert found["true"]["idc"] > found["blurred"]["idc"]


def test_dinov2_that_is_not_here_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert "joyflash weights fetch measures --role dinov2" in IdentityConsistency().missing()


@pytest.fixture(scope="module")
def clip_network(tmp_path_factory):
    """A folder as fetched: three files, no configuration of a tokenizer."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    marks = ["<|startoftext|>", "<|endoftext|>"]
    letters = [*"abdghopt.", *(f"{letter}</w>" for letter in "abdghopt.")]
    tokens = [*letters, *marks]
    CLIPTokenizer({token: i for i, token in enumerate(tokens)}, []).save_pretrained(folder)
    (folder / "tokenizer_config.json").unlink()
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    size |= {"num_attention_heads": 2}
    ends = {"bos_token_id": len(letters), "eos_token_id": len(letters) + 1}
    config = CLIPConfig(
        text_config={**size, **ends, "vocab_size": len(tokens), "max_position_embeddings": 16},
        vision_config={**size, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    return folder


def test_clip_iqa_is_the_softmax_over_scaled_cosines(clip_network):
    from transformers import CLIPImageProcessor

    network, tokenizer = load_clip(clip_network)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pictures = [noise, 255 - noise // 2]
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    pixels = processor([Image.fromarray(p) for p in pictures], return_tensors="pt")["pixel_values"]
    # Two words of letters, a stop and the marks around them: "bad" is a letter shorter.
    words = tokenizer(list(ANTONYMS), padding=True, return_tensors="pt")
    assert words["attention_mask"].sum(1).tolist() == [12, 11]
    with torch.inference_mode():
        seen = network.get_image_features(pixels).pooler_output
        said = network.get_text_features(**words).pooler_output
        cosines = torch.cosine_similarity(seen[:, None], said[None], dim=-1)
        expected = (cosines * network.logit_scale.exp()).softmax(-1)[:, 0].tolist()
        own = network(pixel_values=pixels, **words).logits_per_image.softmax(-1)[:, 0].tolist()
    assert own == pytest.approx(expected, abs=1e-6)
    found = [antonym_score(network, tokenizer, [picture]) for picture in pictures]
    assert found == pytest.approx(expected, abs=1e-6)
    assert abs(found[0] - found[1]) > 1e-4
    assert antonym_score(network, tokenizer, pictures) == pytest.approx(np.mean(expected), abs=1e-6)
    assert antonym_score(network, tokenizer, []) is None


def test_clip_iqa_of_a_film_is_never_called_q_score(film, clip_network, tmp_path):
    metric = ClipIqa(clip_network)
    assert metric.missing() == ""
    assert len(metric.settings["clip_sha256"]) == 64
    found = metric.compute(clip_of(film))
    assert set(found.values) == {"clip_iqa", "clip_iqa_face"}
    assert all(0 < value < 1 for value in found.values.values())
    assert {measure.head for measure in metric.measures} == {"CLIP-IQA", "CLIP-IQA, face"}
    assert all("it is not Q_" in measure.limits for measure in metric.measures)
    path = write_video(tmp_path / "grey.mp4", np.full((30, 64, 64, 3), 90, np.uint8))
    faceless = metric.compute(clip_of(path))
    assert faceless.values["clip_iqa_face"] is None
    assert "no face" in faceless.reasons["clip_iqa_face"]


def test_clip_that_is_not_here_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert "joyflash weights fetch measures --role clip" in ClipIqa().missing()


def test_noise_is_measured_in_levels():
    rng = np.random.default_rng(0)
    flat = np.full((200, 200, 3), 128.0)
    assert noise_levels(flat.astype(np.uint8)) < 0.01
    grey = rng.normal(0, 6, (200, 200, 1))
    assert noise_levels((flat + grey).clip(0, 255).astype(np.uint8)) == pytest.approx(6, rel=0.05)


def test_blur_lowers_clarity_and_contrast_does_not():
    from PIL import ImageFilter

    face = face_crop(held_out()[0][0])
    assert face is not None
    blurred = np.asarray(Image.fromarray(face).filter(ImageFilter.GaussianBlur(3)))
    assert clarity(blurred) < 0.8 * clarity(face)
    assert clarity((face // 2 + 60).astype(np.uint8)) == pytest.approx(clarity(face), rel=0.1)


def test_the_look_of_a_film_needs_no_download(film):
    metric = PictureLook()
    assert not metric.needs_download
    found = metric.compute(clip_of(film))
    assert set(found.values) == {"face_clarity", "noise_levels"}
    assert not {"q_score", "q_face"} & set(found.values)
