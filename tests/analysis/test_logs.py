"""Reading logs: what others wrote, what a crash left, and who wrote it."""

import gzip
import json
import math
import warnings

import numpy as np
import pytest

from dreamer_bird.analysis import curves, readers
from dreamer_bird.analysis.curves import read_lines
from dreamer_bird.analysis.logs import LogError, having, read_logs, title


def points(curve):
    return list(zip(curve.step.tolist(), curve.value.tolist(), strict=True))


def read(path):
    """Read one log that must not cause a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (log,) = read_logs([path])
    return log


def write_file(tmp_path, text, name="metrics.jsonl"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_values_that_are_not_finite_or_no_numbers_are_left_out(tmp_path):
    path = write_file(
        tmp_path,
        '{"step": 1, "a": 1.5, "b": Infinity, "c": null}\n'
        '{"step": 2, "a": NaN, "b": -Infinity, "c": "7"}\n'
        '{"step": 3, "a": -2, "b": 4, "c": true, "d": [1, NaN], "e": {"f": 1}}\n'
        '{"step": 4, "NaN": 1, "a":NaN}\n',
    )
    log = read(path)
    assert points(log.curve("a")) == [(1, 1.5), (3, -2)]
    assert points(log.curve("b")) == [(3, 4)]
    assert set(log.curves) == {"a", "b", "NaN"}


def test_the_last_value_written_for_a_step_counts_even_among_lines_of_other_keys(tmp_path):
    path = write_file(
        tmp_path,
        '{"step": 3, "a": 1}\n{"step": 1, "a": 2, "b": 0}\n{"step": 2, "a": 3}\n'
        '{"step": 1, "a": 4}\n{"step": 1, "a": 5, "b": 1}\n{"a": 6, "step": 3}\n',
    )
    log = read(path)
    assert points(log.curve("a")) == [(1, 5), (2, 3), (3, 6)]
    assert points(log.curve("b")) == [(1, 1)]


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_are_no_errors(tmp_path):
    text = (
        b'\xef\xbb\xbf{"step": 1, "a": 1}\r\n\r\n  \n{"step": 2.0, "a": 2}\r\n{"step": 3, "a": 3}'
    )
    assert points(read(write_file(tmp_path, text)).curve("a")) == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"not json", "words"),
        (b"[1, 2]", "a list"),
        (b"7", "a number"),
        (b'{"a": 1}', "no step"),
        (b'{"step": null, "a": 1}', "null step"),
        (b'{"step": "5", "a": 1}', "text step"),
        (b'{"step": true, "a": 1}', "boolean step"),
        (b'{"step": -1, "a": 1}', "negative step"),
        (b'{"step": NaN, "a": 1}', "step not a number"),
        (b'{"step": 1, "a": 1}{"step": 2, "a": 2}', "two on a line"),
        (b'{"step": 1, "a": 1}, {"step": 2, "a": 2}', "a comma between"),
        (b"\0\0\0", "zeros"),
        (b"\xff\xfe", "no utf-8"),
    ],
)
def test_a_broken_line_is_dropped_and_told(tmp_path, line, name):
    good = b'{"step": 5, "a": 1}\n'
    path = write_file(tmp_path, good + line + b'\n{"step": 6, "a": 2}\n')
    with pytest.warns(UserWarning, match=r"metrics\.jsonl: dropped 1 of 3 lines") as caught:
        (log,) = read_logs([path])
    assert len(caught) == 1
    assert points(log.curve("a")) == [(5, 1), (6, 2)]


def test_a_last_line_cut_off_is_dropped_and_told(tmp_path):
    path = write_file(tmp_path, '{"step": 5, "a": 1}\n{"step": 6, "a": 2}\n{"step": 7, "a"')
    with pytest.warns(UserWarning, match="dropped 1 of 3 lines"):
        (log,) = read_logs([path])
    assert points(log.curve("a")) == [(5, 1), (6, 2)]


def test_chunks_and_broken_lines_at_their_ends_change_nothing(tmp_path, monkeypatch):
    rows = [f'{{"step": {step}, "a": {step * 0.5}}}' for step in range(300)]
    rows.insert(100, "{")
    rows.insert(200, '{"step": 1, "a": Infinity}')
    path = write_file(tmp_path, "\n".join(rows))
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(curves, "_CHUNK", size)
        found, total, dropped = read_lines(path)
        assert (total, dropped) == (302, 1)
        expected = [(step, step * 0.5) for step in range(300)]
        assert points(found["a"]) == expected


def test_a_long_curve_is_thinned_to_means_that_keep_its_sum(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "LIMIT", 64)
    monkeypatch.setattr(curves, "_CHUNK", 256)
    values = np.random.default_rng(0).normal(size=1000)
    rows = (
        f'{{"step": {10 * step}, "a": {value!r}}}\n' for step, value in enumerate(values.tolist())
    )
    curve = read_lines(write_file(tmp_path, "".join(rows)))[0]["a"]
    assert 16 <= len(curve.step) <= 64
    assert np.all(np.diff(curve.step) > 0)
    width = 256  # 10,000 steps in at most 64 bins of a power of two
    bins = 10 * np.arange(1000) // width
    for index, (step, value) in enumerate(zip(*curve, strict=True)):
        inside = bins == index
        assert value == pytest.approx(values[inside].mean())
        assert step == int(np.mean(10 * np.flatnonzero(inside)))


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("dmc_cartpole_swingup_sparse/bird/3", ("dmc_cartpole_swingup_sparse", "bird", "3")),
        ("soft_bird/hopper_hop/seed_2", ("dmc_hopper_hop", "soft_bird", "2")),
        ("dmc_hopper_hop123/bird", ("dmc_hopper_hop", "bird", "123")),
        ("walker_walk-bird-seed4", ("dmc_walker_walk", "bird", "4")),
        ("dreamerv2/walker_run", ("dmc_walker_run", "dreamerv2", "0")),
        ("dmc_walker_run/bird/wide/1", ("dmc_walker_run", "bird/wide", "1")),
        ("dmc_humanoid_walk/dreamer/0", ("dmc_humanoid_walk", "dreamer", "0")),
        ("new/idea/7", ("unknown", "new/idea", "7")),
    ],
)
def test_task_method_and_seed_come_from_the_path(write_log, tmp_path, path, identity):
    write_log(f"logdir/{path}", [(1, 1)])
    log = read(tmp_path / "logdir")
    assert (log.task, log.method, log.seed) == identity


def test_the_name_of_a_single_file_tells_too(tmp_path):
    line = '{"step": 1, "test/return": 2}\n'
    log = read(write_file(tmp_path, line, "public_log_pendulum_swingup.jsonl"))
    assert (log.task, log.method, log.seed) == ("dmc_pendulum_swingup", "public_log", "0")
    log = read(write_file(tmp_path, line, "mine.jsonl"))
    assert (log.task, log.method) == ("unknown", "mine")


def test_the_saved_configuration_comes_first(write_log):
    path = write_log("dmc_walker_run/bird/1", [(1, 1)])
    text = "variant: soft_bird\ntask: dmc_hopper_hop\nseed: 5\nmodel:\n  lr: 0.0006\n"
    path.with_name("config.yaml").write_text(text)
    log = read(path)
    assert (log.task, log.method, log.seed) == ("dmc_hopper_hop", "soft_bird", "5")
    assert log.config["model.lr"] == 0.0006


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ("obs: pixels\nenv: {size: 64}", "bird"),
        ("seed: 2", "bird"),  # of a version that knew pixels of 64x64 alone
        ("obs: state\nenv: {size: 96}", "bird (state)"),  # it sees no images
        ("obs: both\nenv: {size: 64}", "bird (both)"),
        ("obs: pixels\nenv: {size: 96}", "bird (96x96)"),
        ("obs: both\nenv: {size: 32}", "bird (both, 32x32)"),
    ],
)
def test_what_observes_something_else_is_a_method_of_its_own(write_log, settings, method):
    path = write_log("dmc_walker_run/bird/1", [(1, 1)])
    path.with_name("config.yaml").write_text(f"variant: bird\n{settings}\n")
    assert read(path).method == method
    assert read(f"mine={path}").method == "mine"


def test_the_settings_of_another_program_leave_the_method_to_the_path(write_log):
    path = write_log("dmc_walker_run/theirs/1", [(1, 1)])
    path.with_name("config.yaml").write_text("obs: state\n")
    assert read(path).method == "theirs"


def test_a_broken_configuration_is_told_and_the_path_used(write_log):
    path = write_log("dmc_walker_run/bird/1", [(1, 1)])
    path.with_name("config.yaml").write_text("variant: [\n")
    with pytest.warns(UserWarning, match=r"config\.yaml.*going by the path"):
        (log,) = read_logs([path])
    assert (log.task, log.method, log.config) == ("dmc_walker_run", "bird", {})


def test_a_name_before_a_path_is_the_method(write_log):
    path = write_log("dmc_walker_run/bird/1", [(1, 1)])
    assert read(f"mine={path}").method == "mine"


def test_score_files_become_logs(tmp_path):
    entry = {"task": "dmc_walker_run", "method": "dreamer", "seed": "3"}
    entries = [
        {**entry, "xs": [2e5, 1e5, 3e5], "ys": [2, 1, math.inf]},
        {**entry, "seed": "4", "xs": [1e5, 2e5], "ys": [5, -math.inf]},
        {**entry, "method": "NaN", "xs": [1e5], "ys": [math.nan]},
    ]
    path = write_file(tmp_path, json.dumps(entries), "scores.json")
    with pytest.warns(UserWarning, match="dropped 1 of 3 entries"):
        first, second = read_logs([path])
    assert points(first.curve("test/return")) == [(100_000, 1), (200_000, 2)]
    assert (first.task, first.method, first.seed) == ("dmc_walker_run", "dreamer", "3")
    assert points(second.curve("test/return")) == [(100_000, 5)]
    assert (str(first.path), second.seed) == (f"{path}#0", "4")


def test_a_broken_entry_of_a_score_file_is_dropped_and_told(tmp_path):
    good = {"task": "t", "method": "m", "seed": "0", "xs": [1], "ys": [1]}
    entries = [good, {**good, "ys": [1, 2]}, {"task": "t"}, 5]
    path = write_file(tmp_path, json.dumps(entries), "scores.json")
    with pytest.warns(UserWarning, match="dropped 3 of 4 entries"):
        assert len(read_logs([path])) == 1


def test_a_fault_of_the_program_is_no_broken_entry(tmp_path, monkeypatch):
    entry = {"task": "t", "method": "m", "seed": "0", "xs": [1], "ys": [1]}
    path = write_file(tmp_path, json.dumps([entry]), "scores.json")
    monkeypatch.setattr(readers, "make_curve", lambda steps: None)
    with pytest.raises(TypeError):
        read_logs([path])


def test_a_log_is_read_once_and_in_any_depth(write_log, tmp_path):
    path = write_log("a/b/c/d/dmc_walker_run/bird/1", [(1, 1)])
    assert len(read_logs([tmp_path, path, path.parent])) == 1


def test_a_log_packed_beside_itself_is_one(write_log, tmp_path):
    path = write_log("dmc_walker_run/bird/1", [(1, 1)])
    path.with_name("metrics.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read(tmp_path).path == path


def test_links_to_folders_are_followed_and_those_that_lead_back_end(write_log, tmp_path):
    path = write_log("scratch/dmc_walker_run/bird/1", [(1, 1)])
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "run").symlink_to(path.parent)
    (chosen / "again").symlink_to(chosen)
    (chosen / "twice").symlink_to(path.parent)
    log = read(chosen)
    assert (log.path, log.method, log.seed) == (path, "bird", "1")


def test_two_logs_that_claim_to_be_one_run_are_told_once_for_all(write_log, tmp_path):
    for folder in "ab":
        for seed in (1, 2):
            write_log(f"{folder}/dmc_walker_run/bird/{seed}", [(1, 1)])
    told = r"both are bird on dmc_walker_run with seed 1; .*\(1 more like them\)"
    with pytest.warns(UserWarning, match=told) as caught:
        assert len(read_logs([tmp_path / "a", tmp_path / "b"])) == 4
    assert len(caught) == 1


def test_a_path_without_logs_is_told_and_fatal_only_alone(write_log, tmp_path):
    path = write_log("dmc_walker_run/bird/1", [(1, 1)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(LogError, match="empty: no log in it or below"):
        read_logs([tmp_path / "empty"])
    with pytest.warns(UserWarning) as caught:
        assert len(read_logs([tmp_path / "empty", path, tmp_path / "missing"])) == 1
    told = [str(item.message) for item in caught]
    assert "empty: no log in it or below; formats known" in told[0]
    assert told[1].endswith("missing: no such file or folder")


@pytest.mark.parametrize("text", ["", "\n\n", "hello\n", '{"step": 1}\n', "[1, 2", "[]"])
def test_a_file_without_a_number_is_no_log(tmp_path, text):
    with pytest.raises(LogError, match=r"metrics\.jsonl"):
        read_logs([write_file(tmp_path, text)])


def test_returns_are_those_of_evaluations_where_there_are_any(make_log):
    both = make_log({"train/return": [(1, 1)], "test/return": [(1, 2)]})
    assert points(both.curve()) == [(1, 2)]
    assert points(make_log({"train/return": [(1, 1)]}).curve()) == [(1, 1)]


def test_a_key_that_a_log_lacks_is_told_with_the_nearest(make_log):
    log, other = make_log({"model_loss": [(1, 1)]}), make_log({"div": [(1, 1)]}, seed=1)
    with pytest.raises(
        LogError, match="walker_walk/bird/0 has no modelloss: did you mean model_loss"
    ):
        log.curve("modelloss")
    with pytest.warns(UserWarning, match="bird/1 has no model_loss"):
        assert having([log, other], "model_loss") == [log]
    with pytest.raises(LogError, match="bird/0 has no returns"):
        having([log], "returns")


def test_titles():
    names = ("dreamer", "bird", "soft_bird", "d4pg", "x y", "soft_bird (state)")
    written = ["Dreamer", "BIRD", "Soft-BIRD", "D4PG", "x y", "Soft-BIRD (state)"]
    assert [title(name) for name in names] == written


def test_what_a_run_has_set_aside_is_no_log(write_log, tmp_path):
    write_log("dmc_walker_walk/bird/0", [(1000, 1.0)])
    write_log("dmc_walker_walk/bird/0/damaged", [(1000, 2.0)])
    (log,) = read_logs([tmp_path])
    assert log.curve().value.tolist() == [1.0]


def test_an_entry_of_scores_without_points_is_dropped(tmp_path):
    entry = {"task": "dmc_walker_walk", "method": "a", "seed": "0"}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps([entry | {"xs": [], "ys": []}]))
    with pytest.raises(LogError, match="none of its 1 entries"):
        read_logs([path])
    path.write_text(json.dumps([entry | {"xs": [], "ys": []}, entry | {"xs": [5], "ys": [1]}]))
    with pytest.warns(UserWarning, match="dropped 1 of 2 entries"):
        (log,) = read_logs([path])
    assert log.curve().value.tolist() == [1.0]


def test_numbers_that_no_network_computes_are_left_out(write_log):
    (log,) = read_logs([write_log("x", [(1000, 1e308), (2000, -1e308), (3000, 1e38)])])
    assert log.curve().step.tolist() == [3000]


def test_runs_of_one_method_with_other_settings_are_told(write_log, tmp_path, recwarn):
    for seed, repeat in enumerate((4, 8)):
        path = write_log(f"dmc_walker_walk/bird/{seed}", [(1, 1)])
        settings = f"variant: bird\nsteps: {seed}\nenv: {{action_repeat: {repeat}}}\n"
        path.with_name("config.yaml").write_text(settings)
    read_logs([tmp_path])
    (told,) = (str(each.message) for each in recwarn)
    assert told.startswith(
        "bird on dmc_walker_walk: runs differ in env.action_repeat (4, 8); NAME="
    )
