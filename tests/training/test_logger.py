import json
from contextlib import nullcontext
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from dreamer_bird.errors import RunError
from dreamer_bird.training.logger import Logger
from dreamer_bird.training.writers import TensorBoard
from dreamer_bird.utils.signals import GRACE, Stopped

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def logger(tmp_path):
    writers = [TensorBoard(tmp_path)]
    logger = Logger(tmp_path, steps=1000, resumed_at=0, size=0, writers=writers)
    yield logger
    logger.close()


def lines(logdir):
    return [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]


def test_a_line_holds_the_step_and_plain_numbers(tmp_path, logger):
    logger.scalars(1000, {"train/return": np.float32(1.5), "episodes": 1, "fps": 20})
    assert lines(tmp_path) == [{"step": 1000, "train/return": 1.5, "episodes": 1, "fps": 20}]


def test_what_is_not_finite_is_null_and_counted_and_the_json_strict(tmp_path, logger):
    logger.scalars(5, {"a": float("nan"), "b": float("inf"), "c": 2.0})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert lines(tmp_path) == [{"step": 5, "a": None, "b": None, "c": 2, "nonfinite": 2}]


def test_lines_that_a_checkpoint_does_not_vouch_for_are_dropped_on_resume(tmp_path, logger):
    logger.scalars(1, {"a": 1})
    size = logger.sync()
    logger.scalars(2, {"a": 2})
    resumed = Logger(tmp_path, steps=1000, resumed_at=1, size=size)
    resumed.scalars(2, {"a": 3})
    resumed.close()
    assert [line["a"] for line in lines(tmp_path)] == [1, 3]


def test_tensorboard_gets_the_same_values_and_the_video(tmp_path, logger):
    logger.scalars(7, {"train/return": 3.0, "model_loss": 4.0})
    logger.video(7, "open_loop", lambda: np.zeros((5, 8, 24, 3), np.uint8))
    logger.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0, "images": 0})
    events.Reload()
    tags = {
        tag: float(make_ndarray(events.Tensors(tag)[0].tensor_proto))
        for tag in events.Tags()["tensors"]
    }
    assert tags == {"train/return": 3.0, "update/model_loss": 4.0}
    image = events.Images("open_loop")[0]
    assert image.step == 7 and image.encoded_image_string.startswith(b"GIF")


def test_a_saved_video_has_the_frames_that_were_given(tmp_path, logger):
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    frames[np.arange(4), np.arange(4)] = 255  # each frame differs from the one before
    logger.video(7, "clip", lambda: frames, save=True)
    read = imageio.imread(tmp_path / "videos" / "clip-0000000007.gif", index=None)
    np.testing.assert_array_equal(read[..., :3], frames)


def test_a_video_that_cannot_be_written_is_one_warning_and_tensorboard_still_has_it(
    tmp_path, logger
):
    (tmp_path / "videos").write_text("in the way")
    with pytest.warns(UserWarning) as caught:
        for step in (1, 2):
            logger.video(step, "clip", lambda: np.zeros((4, 8, 8, 3), np.uint8), save=True)
            logger.video(step, "none", lambda: 1 / 0)
    assert [str(each.message).partition(": ")[0] for each in caught] == ["video clip", "video none"]
    logger.scalars(3, {"a": 1})
    logger.close()
    assert lines(tmp_path) == [{"step": 3, "a": 1}]
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    assert [image.step for image in events.Reload().Images("clip")] == [1]


@pytest.mark.parametrize("method", ["as_default", "flush", "close"])
def test_tensorboard_that_cannot_be_written_is_one_warning(tmp_path, logger, method):
    def fail(*_):
        raise OSError(28, "No space left on device")

    writer = SimpleNamespace(as_default=nullcontext, flush=int, close=int)
    setattr(writer, method, fail)
    logger._writers[0]._writer = writer
    with pytest.warns(UserWarning, match=r"^TensorBoard: OSError: .*No space left") as caught:
        for step in (1, 2):
            logger.scalars(step, {"a": step})
            assert logger.sync() > 0
        logger.close()
    assert len(caught) == 1
    assert [line["a"] for line in lines(tmp_path)] == [1, 2]


def test_elsewhere_than_on_a_terminal_progress_is_a_plain_line(logger, capsys):
    logger.progress(500, "step 500  episode 2")
    assert capsys.readouterr().out == "step 500  episode 2\n"


def test_on_a_terminal_it_stands_beside_the_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Logger(tmp_path, steps=1000, resumed_at=0, size=0) as logger:
        logger.progress(500, "step 500  episode 2")
    assert "step 500  episode 2" in capsys.readouterr().out


def test_a_terminal_has_a_progress_line_and_no_cursor_in_the_context_alone(
    tmp_path, monkeypatch, capsys
):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm"}.items():  # rich sees a terminal
        monkeypatch.setenv(name, value)
    logger = Logger(tmp_path, steps=1000, resumed_at=0, size=0)
    logger.say("before")
    assert capsys.readouterr().out == "before\n"
    with pytest.raises(KeyboardInterrupt), logger:
        raise KeyboardInterrupt
    shown = capsys.readouterr().out
    assert 0 <= shown.find(HIDE_CURSOR) < shown.find("starting") < shown.find(SHOW_CURSOR)


def test_logs_that_no_checkpoint_goes_with_are_kept_aside(tmp_path, logger):
    logger.scalars(1, {"a": 1})
    with pytest.warns(UserWarning, match="no checkpoint goes with"):
        Logger(tmp_path, steps=1000, resumed_at=0, size=None).close()
    assert lines(tmp_path) == []
    assert "1" in (tmp_path / "damaged" / "metrics.jsonl").read_text()


def test_logs_shorter_than_the_checkpoint_knows_go_on_in_a_line_of_their_own(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "a": 1}\n{"step": 2, "a"')
    with pytest.warns(UserWarning, match="lacks lines"):
        logger = Logger(tmp_path, steps=1000, resumed_at=5, size=1000)
    logger.scalars(6, {"a": 6})
    logger.close()
    last = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last) == {"step": 6, "a": 6}


def test_writers_have_less_time_where_a_run_is_told_to_stop(tmp_path):
    given = []
    writer = SimpleNamespace(name="slow", close=given.append)
    with Logger(tmp_path, steps=1000, resumed_at=0, size=None, writers=[writer]):
        pass
    for error in (RunError("training diverged"), Stopped(15)):
        with (
            pytest.raises(type(error)),
            Logger(tmp_path, steps=1000, resumed_at=0, size=0, writers=[writer]),
        ):
            raise error
    assert given == [20, 20, 2] and given[2] < GRACE
