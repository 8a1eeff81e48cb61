import json

import pytest
import torch

from joyflash_cli.encoders.front_end import FrontEnd, FrontEndConfig
from joyflash_cli.errors import CheckpointError
from joyflash_cli.studio.training.front_end import load_front_end, save_front_end


@pytest.fixture
def front_end():
    torch.manual_seed(0)
    return FrontEnd(FrontEndConfig(num_mels=16, stem_width=8, hidden=24, num_blocks=5)).eval()


def test_saved_weights_come_back(front_end, tmp_path):
    path = tmp_path / "front_end.safetensors"
    save_front_end(front_end, path)
    loaded = load_front_end(path)
    assert loaded.config == front_end.config
    waveform = 0.1 * torch.randn(9 * 640, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded.encode(waveform, 9), front_end.encode(waveform, 9))


def test_files_that_do_not_fit_are_named(front_end, tmp_path):
    path = tmp_path / "front_end.safetensors"
    with pytest.raises(CheckpointError, match="no audio front end"):
        load_front_end(path)
    save_front_end(front_end, path)
    sizes = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(sizes | {"hidden": 32}))
    with pytest.raises(CheckpointError, match="no audio front end"):
        load_front_end(path)
