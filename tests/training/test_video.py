"""Videos in files."""

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from dreamer_bird.training.video import write_video


@pytest.mark.parametrize(
    ("suffix", "encoder"), [(".gif", (Image.Image, "save")), (".mp4", (imageio, "imwrite"))]
)
def test_a_video_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch, suffix, encoder):
    path = tmp_path / f"out{suffix}"
    write_video(path, np.zeros((2, 8, 8, 3), np.uint8), 25)
    before = path.read_bytes()

    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(*encoder, fail)
    with pytest.raises(KeyboardInterrupt):
        write_video(path, np.zeros((2, 8, 8, 3), np.uint8), 25)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_gif_shows_each_frame_for_its_time_again_and_again(tmp_path):
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    frames[np.arange(4), np.arange(4)] = 255
    write_video(tmp_path / "new" / "clip.gif", frames, 4)
    read = imageio.imread(tmp_path / "new" / "clip.gif", index=None)
    large = np.kron(frames, np.ones((1, 32, 32, 1), np.uint8))
    np.testing.assert_array_equal(read[..., :3], large)
    with Image.open(tmp_path / "new" / "clip.gif") as image:
        assert (image.info["duration"], image.info["loop"]) == (250, 0)
