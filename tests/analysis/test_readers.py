"""Logs of neighbours, as their programs write them."""

import gzip
import json

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary import Writer
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from dreamer_bird.analysis.logs import LogError, read_logs
from dreamer_bird.cli import main

SCORES = [{"task": "dmc_ball_in_cup_catch", "method": "v3", "seed": 0, "xs": [0, 9], "ys": [1, 2]}]
# The path of a file, its text, and of each run in it task, method, seed, key, steps and returns.
FILES = [
    (
        "dmc_walker_walk/dreamerv3/2/metrics.jsonl",
        '{"step": 1000, "episode/score": 55.5, "episode/length": 501}\n{"step": 1004, "fps": 3}\n',
        [("dmc_walker_walk", "dreamerv3", "2", "train/return", [1000], [55.5])],
    ),
    (
        "dreamerv3/dmc_walker_walk/scores.jsonl",
        '{"step": 1000, "episode/score": 55.5}\n{"step": 2000, "episode/score": 60}\n',
        [("dmc_walker_walk", "dreamerv3", "0", "train/return", [1000, 2000], [55.5, 60])],
    ),
    (
        "dmc_walker_walk/dreamerv2/1/metrics.jsonl",
        '{"step": 10000, "train_return": 40.0}\n{"step": 10000, "eval_return": 44.5}\n',
        [("dmc_walker_walk", "dreamerv2", "1", "test/return", [10000], [44.5])],
    ),
    (
        "tdmpc2/walker-walk.csv",
        "step,reward,seed\n0,24.5,2\n100000,947.5,2\n0,12.5,1\n",
        [
            ("dmc_walker_walk", "tdmpc2", "2", "test/return", [0, 100000], [24.5, 947.5]),
            ("dmc_walker_walk", "tdmpc2", "1", "test/return", [0], [12.5]),
        ],
    ),
    (
        "tdmpc2/lift-cube.csv",
        "step,reward,seed\n0,24.5,2\n",
        [("lift-cube", "tdmpc2", "2", "test/return", [0], [24.5])],
    ),
    (  # a run's own file, whose steps are an agent's: two of the suite's to one
        "walker-walk/1/td/eval.csv",
        "step,episode_reward\n0.0,24.5\n50000.0,947.5\n",
        [("dmc_walker_walk", "td", "1", "test/return", [0, 100000], [24.5, 947.5])],
    ),
    (
        "exp_local/2021.10.10/101010_task=cup_catch,seed=3/eval.csv",
        "episode,episode_length,episode_reward,frame,step,total_time\n"
        "0.0,500.0,0.5,0.0,0.0,1.2\n20.0,500.0,81.5,20000.0,10000.0,179.1\n",
        [("dmc_cup_catch", "exp_local", "3", "test/return", [0, 20000], [0.5, 81.5])],
    ),
    (
        "exp/task=cup_catch,seed=3/train.csv",
        "buffer_size,episode,episode_length,episode_reward,fps,frame,step,total_time\n"
        "500.0,1.0,500.0,9.5,80.0,1000.0,500.0,12.5\n",
        [("dmc_cup_catch", "exp", "3", "train/return", [1000], [9.5])],
    ),
    (
        "curves/dmc_cup_catch.csv",
        ",agent,task,seed,frame,episode_reward,hour\n0,DrQ-v2,cup_catch,1,0,0.5,0.1\n",
        [("dmc_cup_catch", "DrQ-v2", "1", "test/return", [0], [0.5])],
    ),
    (
        "sac/7/monitor.csv",
        '#{"t_start": 1.0, "env_id": "Pendulum-v1"}\nr,l,t\n-1200.5,200,1.3\n-900.5,150,2.3\n',
        [("gym_Pendulum-v1", "sac", "7", "train/return", [200, 350], [-1200.5, -900.5])],
    ),
    (
        "scores/v3.json",
        json.dumps(SCORES),
        [("dmc_cup_catch", "v3", "0", "test/return", [0, 9], [1, 2])],
    ),
]


def read(*paths, **given):
    """Return of each run task, method, seed, key, steps and returns."""
    return [
        (log.task, log.method, log.seed, log.return_key, *(part.tolist() for part in log.curve()))
        for log in read_logs(paths, **given)
    ]


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "text", "runs"), FILES, ids=[name for name, _, _ in FILES])
def test_a_neighbours_log_is_read_alone_packed_and_in_its_folder(tmp_path, name, text, runs):
    path = write(tmp_path, name, text)
    assert read(path) == read(tmp_path) == runs
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert read(tmp_path) == runs


def test_monitors_of_one_run_are_merged_by_the_time_of_their_episodes(tmp_path):
    for number, start in enumerate((100.0, 90.0)):
        rows = "".join(f"{number}.5,{10 + number},{t}\n" for t in (1, 2))
        text = f'#{{"t_start": {start}, "env_id": null}}\nr,l,t\n{rows}'
        write(tmp_path, f"dmc_walker_walk/sac/3/{number}.monitor.csv", text)
    ((*names, steps, values),) = read(tmp_path)
    assert names == ["dmc_walker_walk", "sac", "3", "train/return"]
    assert (steps, values) == ([11, 22, 32, 42], [1.5, 1.5, 0.5, 0.5])


def test_a_monitor_to_which_a_resumed_run_appends_goes_on(tmp_path):
    rows = "1,10,5\n2,10,9\n3,10,4\n4,10,6\n"  # time begins again with the third
    for start in ("7.0", "null"):
        path = write(tmp_path, "ppo/monitor.csv", f'#{{"t_start": {start}}}\nr,l,t\n{rows}')
        assert [run[4:] for run in read(path)] == [([10, 20, 30, 40], [1, 2, 3, 4])]


def test_a_monitor_of_no_usable_return_has_no_curve(tmp_path):
    path = write(tmp_path, "ppo/monitor.csv", "#{}\nr,l,t\n1e300,1,0.0\n")
    (log,) = read_logs([path])
    assert [*log.curves] == ["train/length"]


def test_only_what_tdmpc2_names_counts_agent_steps(tmp_path):
    text = "step,episode_reward\n1000,1\n"
    for name, step in (("eval.csv", 2000), ("results.csv", 1000), ("progress.csv", 1000)):
        path = write(tmp_path, f"walker_walk/x/0/{name}", text)
        assert [run[4:] for run in read(path)] == [([step], [1])]


def test_the_task_of_drqv2_is_in_its_configuration(tmp_path):
    write(tmp_path, "runs/1/.hydra/config.yaml", "task_name: walker_walk\nseed: 3\n")
    write(tmp_path, "runs/1/eval.csv", "frame,episode_reward\n1000,1\n")
    ((task, _, seed, *_),) = read(tmp_path)
    assert (task, seed) == ("dmc_walker_walk", "3")


def test_a_table_of_a_byte_order_mark_alone_is_no_log(tmp_path):
    write(tmp_path, "notes.csv", "\ufeff")
    path = write(tmp_path, "metrics.jsonl", '{"step": 1, "test/return": 1}\n')
    assert len(read(tmp_path)) == 1
    path.unlink()
    with pytest.raises(LogError, match="no log in it or below"):
        read_logs([tmp_path])


def write_events(folder, scalars):
    """As PyTorch's writer does: numbers, and something that is none."""
    writer = EventFileWriter(str(folder))
    for step, tag, value in scalars:
        event = Event(step=step, wall_time=1.0)
        event.summary.value.add(tag=tag, simple_value=value)
        event.summary.value.add(tag="image").image.height = 3
        writer.add_event(event)
    writer.close()


def test_event_files_are_read_with_numbers_as_tensors_and_plain(tmp_path):
    write_events(tmp_path / "Pendulum-v1/PPO_2", [(5, "rollout/ep_rew_mean", -2.5)])
    writer = Writer(str(tmp_path / "dmc_walker_walk/mine/1"))
    writer.add_scalar("scalars/eval_return", 3.5, step=8)
    writer.close()
    assert read(tmp_path) == [
        ("gym_Pendulum-v1", "PPO", "2", "train/return", [5], [-2.5]),
        ("dmc_walker_walk", "mine", "1", "test/return", [8], [3.5]),
    ]


def test_a_run_that_was_stopped_has_several_event_files_and_the_last_counts(tmp_path):
    write_events(tmp_path, [(1, "train_return", 1), (2, "train_return", 2)])
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "events.out.tfevents.1.host")
    write_events(tmp_path, [(2, "train_return", 5), (3, "train_return", 6)])
    assert [run[4:] for run in read(tmp_path)] == [([1, 2, 3], [1, 5, 6])]


def test_event_files_within_a_run_are_not_a_second_one(tmp_path):
    write_events(tmp_path / "walker-walk/1/drq/tb", [(1, "eval/episode_reward", 7)])
    write(tmp_path, "walker-walk/1/drq/eval.csv", "frame,episode_reward,step\n2,9,1\n")
    assert [run[5] for run in read(tmp_path)] == [[9]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("eval.csv", "frame,episode_reward,step\n2,9,1\n4,10"),
        ("eval.csv", "frame,episode_reward,step\n2,9,1\nabc,1,2\n"),
        ("monitor.csv", "#{}\nr,l,t\n9,2,1\n4,"),
    ],
)
def test_a_half_written_row_is_dropped_and_told(tmp_path, name, text):
    path = write(tmp_path, name, text)
    with pytest.warns(UserWarning, match=rf"{name}: dropped 1 of 2 lines"):
        (run,) = read(path)
    assert run[4:] == ([2], [9])


def test_a_half_written_event_is_dropped_and_told(tmp_path):
    write_events(tmp_path, [(1, "train_return", 1), (2, "train_return", 2)])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="dropped 1 of 3 records"):
        assert [run[4:] for run in read(path)] == [([1], [1])]


def test_another_format_is_refused_in_one_line_that_names_those_known(tmp_path, capsys):
    for name, text in {"notes.txt": "hello\n", "table.csv": "a,b\n1,2\n"}.items():
        assert main(["compare", str(write(tmp_path, name, text))]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert all(word in line for word in (name, "DreamerV3", "TD-MPC2", "monitor.csv", "event"))
    (tmp_path / "empty").mkdir()
    for path in (tmp_path, tmp_path / "empty"):  # tables that are no logs are none to be told of
        with pytest.raises(LogError, match=r"no log in it or below; formats known: .*DrQ-v2"):
            read_logs([path])


def test_a_packed_log_that_is_cut_off_is_refused_in_a_line(tmp_path):
    path = tmp_path / "metrics.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"step": 1, "a": 1}\n' * 1000)[:-20])
    with pytest.raises(LogError, match=r"metrics\.jsonl\.gz: "):
        read_logs([path])


def test_what_is_a_return_can_be_told(tmp_path, capsys):
    theirs = write(tmp_path, "walker_walk/x/0/metrics.jsonl", '{"step": 100, "my_score": 7}\n')
    ours = write(tmp_path, "walker_walk/bird/0/metrics.jsonl", '{"step": 100, "test/return": 9}\n')
    with pytest.raises(
        LogError, match=r"no returns under a name that is known; --returns .*my_scor"
    ):
        read(theirs)
    assert read(theirs, ours, returns=["my_score"])[0][3:] == ("test/return", [100], [7])
    assert main(["compare", "--json", "--returns", "my_score", str(theirs), str(ours)]) == 0
    methods = json.loads(capsys.readouterr().out)["tasks"][0]["methods"]
    assert {method["method"] for method in methods} >= {"x", "bird"}


def test_one_task_under_two_names_is_one_table_with_its_published_rows(tmp_path, capsys):
    write(tmp_path, "c/ball_in_cup_catch/bird/0/metrics.jsonl", '{"step": 9, "test/return": 1}\n')
    scores = write(tmp_path, "v3.json", json.dumps(SCORES))
    assert main(["compare", "--json", str(tmp_path / "c"), str(scores)]) == 0
    (task,) = json.loads(capsys.readouterr().out)["tasks"]
    assert task["task"] == "dmc_cup_catch"
    names = {method["method"] for method in task["methods"]}
    assert {"bird", "v3"} < names and any("published" in name for name in names)


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (["a1", "a2"], True),
        (["run-x1-h", "run-x2-h", "b"], True),
        (["dreamerv2", "dreamerv3"], False),
        (["bird", "dreamer"], False),
        (["a1", "a2", "a1/5"], False),
        (["bird,seed=1", "bird,seed=2"], False),
    ],
)
def test_methods_that_look_like_seeds_are_told_with_the_mend(tmp_path, recwarn, folders, told):
    for folder in folders:
        name = f"walker_walk/{folder}/metrics.jsonl"
        write(tmp_path, name, '{"step": 9, "test/return": 1}\n')
    read_logs([tmp_path])
    lines = [str(item.message) for item in recwarn]
    assert [("on dmc_walker_walk" in line and "NAME=FOLDER" in line) for line in lines] == [
        True
    ] * told
