"""The command `predict`: the moment it chooses, what it shows of it, and its one-line refusals."""

import shutil
from argparse import Namespace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from command_line import command

from dreamer_bird.cli import main
from dreamer_bird.commands import predict
from dreamer_bird.commands.predict import Foresight, Window
from dreamer_bird.config import Config, load
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.errors import ConfigError
from dreamer_bird.training import checkpoint
from dreamer_bird.training.snapshot import Snapshot

TASK = "dmc_cartpole_balance"


def moment(reward, frame=None, context=2, horizon=3):
    flags = Namespace(frame=frame, context=context, horizon=horizon)
    return predict.choose_window(flags, np.array(reward, np.float32))


def test_the_moment_is_where_the_reward_changes_most():
    #         0  1  2  3  4    5  6  7  8
    reward = [0, 1, 1, 1, 1.5, 3, 2, 2, 2]
    window = moment(reward)
    assert window == Window(start=2, context=2, horizon=3, key=5)
    assert list(window.times) == [2, 3, 4, 5, 6]
    assert moment([*reward[:6], 0, 0, 0]).key == 6  # a fall counts like a rise
    # The first reward is no change, and neither end of the episode leaves room for a window.
    assert moment([0, 9, 9, 0, 9, 9.5, 0]).key == 3
    assert moment([0, 9, 9, 9, 9, 9.5, 9, 9, 0]).key == 5
    assert moment([0, 9, 8, 9.5], context=1, horizon=1).key == 3
    assert moment([0, 9, 9, 9], context=1, horizon=1).key == 1


@pytest.mark.parametrize("context, horizon", [(1, 1), (2, 3), (5, 4), (1, 8)])
def test_every_valid_frame_fits_and_no_other(context, horizon):
    reward, fits = np.zeros(10), []
    for frame in range(12):
        try:
            window = moment(reward, frame, context, horizon)
        except ConfigError as error:
            told = str(error)
        else:
            fits.append(frame)
            assert window.times[0] >= 0 and window.times[-1] <= 9
            assert len(window.times) == context + horizon
            assert window.start + context <= frame == window.key
    assert len(fits) == 11 - context - horizon  # of the windows that exist
    assert f"--frame 11: must be {fits[0]} to {fits[-1]}, where {context} frames of" in told


def test_a_window_longer_than_the_episode():
    message = "--context 6 and --horizon 5 are 11 frames, and an episode has 10"
    with pytest.raises(ConfigError, match=message):
        moment(np.zeros(10), None, 6, 5)


def snapshot(logdir, **flags):
    config = load({key.replace("__", "."): value for key, value in flags.items()}, ["debug"])
    return Snapshot(Path(logdir), config, Spec({"image": (64, 64, 3)}, 1), {}, 0)


def test_names_tell_all_runs_apart():
    bird, soft = snapshot("a"), snapshot("b", variant="soft_bird")
    assert predict.names([bird, soft]) == ["BIRD", "Soft-BIRD"]
    seeds = [bird, soft, snapshot("a", seed=1)]
    assert predict.names(seeds) == ["BIRD\nseed 0", "Soft-BIRD", "BIRD\nseed 1"]
    same = [bird, snapshot("runs/of/yesterday/b"), snapshot("c", seed=1)]
    assert predict.names(same) == ["BIRD\na", "BIRD\n…/of/yesterday/b", "BIRD\nseed 1"]


@pytest.mark.parametrize(
    "flags, difference",
    [
        ({"task": "dmc_cup_catch"}, "task dmc_cup_catch, but dmc_cartpole_swingup in a"),
        ({"env__action_repeat": 4}, "env.action_repeat 4, but 2 in a"),
        ({"env__shadows": True}, "env.shadows True, but False in a"),
        ({"obs": "both"}, "obs both, but pixels in a"),
        ({"env__size": 32}, "env.size 32, but 64 in a"),
        ({"env__camera": 1}, "env.camera 1, but None in a"),
        ({"env__kwargs": "{x: 1}"}, "env.kwargs {x: 1}, but None in a"),
    ],
)
def test_runs_that_see_other_episodes_are_refused(flags, difference):
    predict.check_alike([snapshot("a"), snapshot("b", seed=1, model__deter=17)])
    with pytest.raises(ConfigError, match=f"--logdir c: {difference}; all must have the same"):
        predict.check_alike([snapshot("a"), snapshot("b"), snapshot("c", **flags)])


def test_what_a_model_foresees(agent):
    rng = np.random.default_rng(0)
    episode = {
        "image": rng.integers(0, 256, (9, 64, 64, 3), dtype=np.uint8),
        "action": rng.uniform(-1, 1, (9, 2)).astype(np.float32),
        "reward": rng.normal(size=9).astype(np.float32),
        "discount": np.ones(9, np.float32),
    }
    window = Window(start=2, context=2, horizon=3, key=5)
    seen = predict.foresee("BIRD", agent, episode, window, seed=0)
    assert seen.images.shape == (5, 64, 64, 3)
    difference = seen.images.astype(float) - episode["image"][2:7]
    np.testing.assert_allclose(seen.errors, np.abs(difference).mean(-1) / 255, atol=1e-6)

    def changed(key, *rows):
        other = {**episode, key: episode[key].copy()}
        other[key][list(rows)] = 0
        images = predict.foresee("BIRD", agent, other, window, seed=0).images
        return [bool((a != b).any()) for a, b in zip(images, seen.images, strict=True)]

    # Images of the context alone, and actions from the first to the last step of the window.
    assert changed("image", 0, 1, 4, 5, 6, 7, 8) == [False] * 5
    assert changed("image", 3) == [False, True, True, True, True]
    assert changed("action", 0, 1, 7, 8) == [False] * 5
    assert changed("action", 5) == [False] * 3 + [True] * 2
    reseeded = predict.foresee("BIRD", agent, episode, window, seed=1)
    assert (reseeded.images != seen.images).any()


def drawn(columns):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    foresights = [
        Foresight(name, np.full((20, 64, 64, 3), i, np.uint8), np.full((20, 64, 64), i / 10))
        for i, name in enumerate(("BIRD\nseed 3", "Dreamer"))
    ]
    figure = predict.draw(truth, foresights, Window(10, 5, 15, 22), columns)
    (page,) = figure.axes
    return figure, page, truth


def test_the_figure_shows_truth_predictions_and_errors_in_columns():
    _, page, truth = drawn([10, 14, 22])
    texts = {text.get_text(): text for text in page.texts}
    wanted = {"Truth", "BIRD", "seed 3", "Dreamer", "error", "context", "prediction"}
    assert texts.keys() == wanted | {"t = 10", "t = 14", "t = 22", ""}
    assert texts["t = 22"].get_weight() == "bold" and texts["t = 14"].get_weight() == "normal"
    images = [image.get_array() for image in page.images]
    assert len(images) == 3 * 5
    for image, t in zip(images[:3], (10, 14, 22), strict=True):
        np.testing.assert_array_equal(image, truth[t])
    assert [image.flat[0] for image in images[3::3]] == [0, 0, 1, 0.1]
    assert {image.norm.vmax for image in page.images} == {0.1}  # one scale for all
    # The lines above are over the columns of their kind, with the boundary between them.
    (context, prediction) = (line.get_xdata() for line in page.lines)
    left, right = (image.get_extent()[:2] for image in page.images[1:3])
    assert context[1] == left[1] < prediction[0] == right[0]


def test_no_image_and_no_label_lies_over_another_or_outside():
    figure, page, _ = drawn(list(range(10, 30, 2)))
    figure.draw_without_rendering()
    boxes = [image.get_window_extent() for image in page.images]
    boxes += [text.get_window_extent() for text in page.texts if text.get_text()]
    for number, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
        for other in boxes[:number]:
            apart = box.x1 <= other.x0 or other.x1 <= box.x0
            assert apart or box.y1 <= other.y0 + 1 or other.y1 <= box.y0 + 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of one episode, and the same as another variant would have left it."""
    logdir = tmp_path_factory.mktemp("predict") / "bird"
    flags = ["--configs", "debug", "--task", TASK, "--steps", "60", "--precision", "float32"]
    result = command(*flags, "--env.time_limit", "60", "--logdir", logdir)
    assert result.returncode == 0, result.stderr
    other = shutil.copytree(logdir, logdir.with_name("dreamer"))
    config = Config.read(other / "config.yaml").replace(variant="dreamer")
    config.save(other / "config.yaml")
    folder = other / "checkpoints"
    arrays, header = checkpoint.load(checkpoint.newest_first(folder)[0])
    checkpoint.save(folder, 60, arrays, {**header, "variant": "dreamer"}, keep=1)
    return logdir, other


def test_the_command_line(runs, tmp_path):
    before = {path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*")}
    out = tmp_path / "new" / "fig.png"
    result = command("predict", "--logdir", *runs, "--out", out, "--horizon", 6)
    assert (result.returncode, result.stderr) == (0, "")
    chosen, written = result.stdout.splitlines()
    assert 5 + 3 <= int(chosen.split()[2].rstrip(",")) <= 28
    assert "at which the reward goes from " in chosen
    assert written == f"{out} and fig.gif"
    assert sorted(path.name for path in out.parent.iterdir()) == ["fig.gif", "fig.png"]
    assert imageio.imread(out).shape[1] > 1000
    frames = imageio.imread(out.with_suffix(".gif"), index=None)
    assert len(frames) == 11 and (frames[1:] != frames[:-1]).any((1, 2, 3)).all()
    assert before == {path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*")}


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--out", "a.png"], "the following arguments are required: --logdir"),
        (["--logdir", "{}", "--out", "taken.png"], "--out taken.gif: is a folder"),
        (["--logdir", "{}", "--out", "a.gif"], "--out a.gif: must end in .png or .pdf or .svg"),
        (["--logdir", "{}", "nope", "--out", "a.png"], "--logdir nope: no such folder"),
        (
            ["--logdir", "{}", "--out", "a.png", "--frame", "3"],
            "--frame 3: must be 12 to 23, where 5 frames of context and 15 of predictions fit",
        ),
        (["--logdir", "{}", "--out", "a.png", "--context", "0"], "--context 0: must be a whole"),
        (["--logdir", "{}", "--out", "a.png", "--horizon", "40"], "and an episode has 31"),
    ],
)
def test_bad_input_is_one_line(runs, flags, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.gif").mkdir()
    monkeypatch.setattr(predict, "start_worker", None)  # nothing is played
    assert main(["predict", *(flag.format(runs[0]) for flag in flags)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_run_of_another_environment_of_that_name_is_refused(runs, tmp_path, capsys):
    other = shutil.copytree(runs[1], tmp_path / "other")
    arrays, header = checkpoint.load(checkpoint.newest_first(other / "checkpoints")[0])
    observation, _, *rest = header["spec"]
    header["spec"] = [observation, 5, *rest]
    checkpoint.save(other / "checkpoints", 60, arrays, header, keep=1)
    line = ["predict", "--logdir", str(runs[0]), str(other), "--out", str(tmp_path / "a.png")]
    assert main(line) == 2
    assert "1 actions now, and was {'image': (64, 64, 3)}, 5 actions" in capsys.readouterr().err


def test_a_figure_that_is_not_drawn_leaves_no_folder(runs, tmp_path, capsys):
    logdir = shutil.copytree(runs[0], tmp_path / "run")
    settings = (logdir / "config.yaml").read_text()
    (logdir / "config.yaml").write_text(settings.replace("deter: 16", "deter: 17"))
    out = str(tmp_path / "new" / "folder" / "out.png")
    assert main(["predict", "--logdir", str(logdir), "--out", out]) == 1
    assert "the checkpoint is of other networks" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
