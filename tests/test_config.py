import copy
import pickle
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from dreamer_bird.config import CONFIG_FILE, NEWER, RULES, Config, differences, load
from dreamer_bird.envs.tasks import TASKS
from dreamer_bird.errors import ConfigError, nearest

SOURCE = YAML(typ="safe", pure=True).load(CONFIG_FILE)

# Refused values, and the settings that refuse them: wrong types, and just outside a range.
_REFUSED = {
    "0": """steps envs devices threads env.action_repeat env.time_limit replay.capacity replay.batch
        train.prefill train.updates train.eval_every train.save_every train.keep train.max_skipped
        worker.timeout env.size train.every model.state_layers model.state_std model.depth
        model.deter model.stoch model.hidden model.reward_layers model.discount_layers model.units
        model.lr
        model.clip actor.layers actor.units actor.init_std actor.min_std actor.mean_scale actor.lr
        actor.clip value.layers value.units value.lr value.clip objective.horizon
        objective.discount env.shadows
        model.standardize model.decode_steps objective.imagine_starts planner.horizon
        planner.iterations planner.candidates planner.elites""",
    "1": """xla train.overlap replay.length objective.horizon objective.weight_value_loss
        model.discount_head""",
    "-1": """seed worker.restarts actor.learning_starts train.prefill_steps model.free_nats
        model.kl_scale model.discount_scale objective.confidence_clip""",
    "-1e-8": "train.expl_amount model.lr objective.alpha objective.lambda",
    "1.01": "objective.discount objective.lambda objective.confidence_clip steps",
    "x": """steps seed model.lr env.shadows replay.capacity task variant precision objective.entropy
        obs model.conv_act""",
    "nan": "steps model.lr train.expl_amount objective.lambda",
    "inf": "steps model.lr train.expl_amount model.clip",
    "1e400": "steps model.lr",
    "1e308": "worker.timeout replay.length objective.horizon",
    "null": "steps model.lr env.shadows task variant",
    "true": "steps model.lr",
    "": "steps model.lr env.shadows task variant logdir env.camera env.kwargs",
    "[1]": "env.kwargs",
    "{": "env.kwargs",
    "3: 4": "env.kwargs",
    "2147483648": "seed",
    "502": "replay.length",
    "1001": "env.action_repeat",
    "72": "env.size",  # no multiple of 16
    "144": "env.size",
}
REFUSED = [(key, value) for value, keys in _REFUSED.items() for key in keys.split()]
REFUSED += [
    ("logger", "wandb,tensorbord"),
    ("steps", True),
    ("model.lr", False),
    ("steps", [3]),
    ("logdir", ["a"]),
    ("task", None),
]


def edited(path: Path, **blocks: object) -> Path:
    """Write configs.yaml with some of its sections updated."""
    tree = copy.deepcopy(SOURCE)
    for section, block in blocks.items():
        tree[section].update(block)
    YAML(typ="safe", pure=True).dump(tree, path)
    return path


def test_the_defaults_are_the_paper_s_and_what_it_does_not_say_dreamer_s():
    paper = {
        **{"model.deter": 300, "model.stoch": 40, "objective.horizon": 15},
        **{"model.reward_layers": 3, "actor.layers": 3, "value.layers": 3},
        **{"model.lr": 6e-4, "actor.lr": 8e-5, "value.lr": 8e-5},
        **{"model.clip": 100.0, "actor.clip": 100.0, "value.clip": 100.0},
        **{"objective.discount": 0.99, "objective.lambda": 0.95, "env.action_repeat": 2},
        **{"replay.batch": 50, "replay.length": 50, "replay.capacity": 100_000},
        **{"train.prefill": 5, "train.updates": 100, "train.expl_amount": 0.3},
    }
    dreamer = {
        **{"model.units": 400, "actor.units": 400, "value.units": 400, "model.depth": 32},
        **{"model.free_nats": 3.0, "model.kl_scale": 1.0, "model.discount_scale": 10.0},
        **{"actor.init_std": 5.0, "actor.min_std": 1e-4, "actor.mean_scale": 5.0},
        **{"model.conv_act": "relu", "env.size": 64, "train.eval_every": 10_000},
    }
    assert (paper | dreamer).items() <= load().flatten().items()


@pytest.mark.parametrize(
    ("variant", "alpha", "entropy", "clip"),
    [("bird", 1e-8, "gaussian", 1), ("soft_bird", 0.2, "tanh", 0), ("dreamer", 0, "gaussian", 0)],
)
def test_what_makes_a_variant(variant, alpha, entropy, clip):
    objective = load({"variant": variant}).objective
    assert (objective.alpha, objective.entropy, objective.confidence_clip) == (alpha, entropy, clip)
    assert not objective.weight_value_loss


def test_precedence_is_defaults_variant_presets_flags():
    assert load().objective.alpha == 1e-8  # the block of bird, over the default of 0
    assert load({"variant": "dreamer"}).objective.alpha == 0.0
    assert load({"variant": "bird"}, ["bird_release"]).objective.entropy == "tanh"
    assert load(presets=["cpu"]).model.depth == 8
    assert load(presets=["cpu", "debug"]).model.depth == 4
    assert load(presets=["debug", "cpu"]).model.depth == 8
    assert load({"model.depth": "9"}, ["cpu", "debug"]).model.depth == 9
    assert load({"variant": "soft_bird", "objective.alpha": 0.5}).objective.alpha == 0.5


def test_a_preset_may_choose_the_variant_and_a_flag_overrules_it(tmp_path):
    path = edited(tmp_path / "configs.yaml", presets={"soft": {"variant": "soft_bird"}})
    assert load({}, ["soft"], path).objective.alpha == 0.2
    config = load({"variant": "dreamer"}, ["soft"], path)
    assert (config.variant, config.objective.alpha) == ("dreamer", 0.0)


@pytest.mark.parametrize("variant", SOURCE["variants"])
@pytest.mark.parametrize("preset", [None, *SOURCE["presets"]])
def test_every_variant_and_preset_resolves(variant, preset):
    config = load({"variant": variant}, [preset] if preset else [])
    values = config.flatten()
    assert config.variant == variant
    assert values.keys() == RULES.keys()
    for block in (SOURCE["variants"][variant], SOURCE["presets"].get(preset, {})):
        for key, value in Config(block).flatten().items():
            overruled = preset and key in Config(SOURCE["presets"][preset]).flatten()
            assert values[key] == value or (block is SOURCE["variants"][variant] and overruled)


def test_types_of_the_rules_are_those_of_the_defaults():
    for key, value in Config(SOURCE["defaults"]).flatten().items():
        assert type(value) is RULES[key].kind or (value is None and RULES[key].nullable), key


def test_no_setting_hides_a_method():
    names = {part for key in RULES for part in key.split(".")}
    assert not names & set(dir(Config))


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("steps", "1e5", 100_000),
        ("steps", 1e5, 100_000),
        ("steps", "250", 250),
        ("seed", "0", 0),
        ("seed", 2**31 - 1, 2**31 - 1),
        ("model.lr", "3e-4", 3e-4),
        ("model.clip", "7", 7.0),
        ("model.free_nats", 0, 0.0),
        ("env.shadows", "false", False),
        ("env.shadows", "True", True),
        ("replay.capacity", "null", None),
        ("replay.capacity", "1000", 1000),
        ("replay.length", "501", 501),
        ("replay.length", 2, 2),
        ("objective.horizon", "2", 2),
        ("objective.discount", "1", 1.0),
        ("objective.lambda", "0", 0.0),
        ("objective.lambda", "1", 1.0),
        ("precision", 32, "float32"),
        ("precision", "16", "float16"),
        ("precision", "bf16", "bfloat16"),
        ("logdir", "out", "out"),
    ],
)
def test_values_are_converted_to_their_type(key, given, expected):
    value = load({key: given}).flatten()[key]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_accepted(task):
    assert load({"task": task, "seed": 3}).logdir == f"logdir/{task}/bird/3"


def test_logdir_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert load({"logdir": "~/runs"}).logdir == "/home/someone/runs"


def test_every_setting_has_refused_values():
    assert {key for key, _ in REFUSED} == RULES.keys()


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_bad_values_are_refused_by_name(key, value):
    with pytest.raises(ConfigError) as caught:
        load({key: value})
    message = str(caught.value)
    assert message.startswith(f"--{key} ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"steps": "-5"},
            "--steps -5: must be a whole number of at least 1 and at most 1000000000",
        ),
        ({"model.lr": "0"}, "--model.lr 0: must be a number above 0"),
        (
            {"objective.discount": "1.5"},
            "--objective.discount 1.5: must be a number above 0 and at most 1",
        ),
        ({"env.shadows": None}, "--env.shadows null: must be true or false"),
        (
            {"replay.capacity": "x"},
            "--replay.capacity x: must be a whole number of at least 1, or null",
        ),
        ({"variant": "brid"}, "--variant brid: unknown; did you mean bird?"),
        (
            {"task": "dmc_walker_rum"},
            "--task dmc_walker_rum: unknown; did you mean dmc_walker_run?",
        ),
        (
            {"objective.entropy": "x"},
            "--objective.entropy x: unknown; choose from gaussian, tanh",
        ),
        ({"modle.lr": "1"}, "unknown flag --modle.lr: did you mean --model.lr?"),
        ({"model": {"dpeth": 3}}, "unknown flag --model.dpeth: did you mean --model.depth?"),
        (
            {"env.time_limit": "90", "replay.length": "47"},
            "--replay.length 47: an episode has 46 frames",
        ),
        ({"model.decode_steps": "51"}, "--model.decode_steps 51: a sequence has 50 steps"),
        (
            {"objective.imagine_starts": "51"},
            "--objective.imagine_starts 51: a sequence has 50 steps",
        ),
        ({"planner.candidates": 50}, "--planner.elites 100: at most --planner.candidates 50"),
        ({"model.conv_act": "gelu"}, "--model.conv_act gelu: unknown; did you mean elu?"),
        *(
            (
                {"env.kwargs": text},
                f"--env.kwargs {text}: must be a mapping in JSON or YAML, with a space after each "
                "colon: '{goal: 3, noise: [0.1, 0.2]}'",
            )
            for text in ("goal", "{goal:3}", "{maze: [{goal:3}]}", "[[1]]: 3", "&a {b: *a}")
        ),
        (
            {"env.camera": "1", "task": "gym_CartPole-v1"},
            "--env.camera: of dmc_ tasks; others may take one by --env.kwargs",
        ),
        (
            {"env.time_limit": "90", "env.action_repeat": "91"},
            "--env.action_repeat 91: longer than --env.time_limit 90",
        ),
    ],
)
def test_messages(flags, message):
    with pytest.raises(ConfigError) as caught:
        load(flags)
    assert str(caught.value) == message


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"^--configs cpuu: unknown; did you mean cpu\?$"):
        load(presets=["cpuu"])
    with pytest.raises(ConfigError, match=r"^--configs planet: is a variant: --variant planet$"):
        load(presets=["planet"])


@pytest.mark.parametrize(
    ("name", "names", "words"),
    [
        ("lr", ["a.lr", "b.lr", "b.clip"], "did you mean --a.lr or --b.lr?"),
        ("lr", ["a.lr", "b.lr", "c.lr"], "did you mean --a.lr, --b.lr or --c.lr?"),
        ("zzz", ["abc", "def"], "choose from --abc, --def"),
        ("zzz", [f"abc{i}" for i in range(50)], "--help-all lists the valid ones"),
    ],
)
def test_nearest(name, names, words):
    assert nearest(name, names, "--") == words


def test_what_help_all_does_not_list_is_listed_as_far_as_a_line_goes():
    names = [f"abc{i}" for i in range(50)]
    assert nearest("zzz", names[:45]) == f"choose from {', '.join(names[:45])}"
    assert nearest("zzz", names) == f"choose from {', '.join(names[:45])} and 5 more"


@pytest.mark.parametrize(
    ("section", "block", "message"),
    [
        (
            "presets",
            {"mine": {"model": {"dpeth": 3}}},
            "presets.mine: unknown key model.dpeth: did you mean model.depth?",
        ),
        (
            "presets",
            {"mine": {"model": {"depth": 0}}},
            "presets.mine: model.depth 0: must be a whole number of at least 1 and at most 16384",
        ),
        ("presets", {"mine": 3}, "presets.mine: must be a mapping, not 3"),
        (
            "variants",
            {"bird": {"objective": {"alhpa": 1}}},
            "variants.bird: unknown key objective.alhpa: did you mean objective.alpha?",
        ),
        (
            "defaults",
            {"stpes": 3},
            "defaults: unknown key stpes: did you mean steps?",
        ),
        ("defaults", {"env": {"shadows": True}}, "defaults: missing env.time_limit"),
    ],
)
def test_a_bad_key_in_the_file_is_refused_with_its_place(tmp_path, section, block, message):
    path = edited(tmp_path / "configs.yaml", **{section: block})
    with pytest.raises(ConfigError) as caught:
        load(path=path)
    assert str(caught.value).startswith(f"{path}, {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults:\n  steps: [1\n", "configs.yaml, line 3: "),
        ("a: 1\na: 2\n", 'configs.yaml, line 2: found duplicate key "a"'),
        ("a: \x01\n", "configs.yaml: unacceptable character"),
        ("a: 2024-13-45\n", "configs.yaml: month must be in 1..12"),
        ("a: !!bool x\n", "configs.yaml: 'x'"),
        ("a: !!int ''\n", "configs.yaml: "),
        ("? [[a]]\n: 1\n", "configs.yaml: unhashable type"),
        (f"a: {'[' * 2000}", "configs.yaml: maximum recursion depth exceeded"),
        ("- 1\n", "configs.yaml: must be a mapping, not [1]"),
        ("", "configs.yaml: must hold defaults, variants and presets, not []"),
        ("defualts: {}\n", "configs.yaml: must hold defaults, variants and presets, not ['def"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "configs.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path=path)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"missing.yaml: No such file or directory$"):
        load(path=tmp_path / "missing.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ConfigError, match=r"binary.yaml: 'utf-8' codec can't decode"):
        Config.read(binary)
    endless = tmp_path / "endless.yaml"
    endless.write_text("model: &all {deter: *all}")
    with pytest.raises(ConfigError, match=r"endless.yaml: a mapping holds itself$"):
        Config.read(endless)


def test_config_is_a_frozen_mapping():
    config = load()
    assert config.objective["lambda"] == 0.95
    assert config["model"]["lr"] == config.model.lr == 6e-4
    assert dict(config.env) == {
        "action_repeat": 2,
        "time_limit": 1000,
        "size": 64,
        "shadows": True,
        "camera": None,
        "kwargs": None,
    }
    for change in (
        lambda: setattr(config, "steps", 1),
        lambda: setattr(config.model, "lr", 1.0),
        lambda: delattr(config.model, "lr"),
    ):
        with pytest.raises(AttributeError, match="frozen"):
            change()
    with pytest.raises(AttributeError, match="no_such"):
        _ = config.no_such
    assert config == load()


def test_a_key_of_others_may_be_called_like_a_method():
    config = Config({"items": [1], "keys": {"flatten": 2}, "kind": "List"})
    assert config.flatten() == {"items": [1], "keys.flatten": 2, "kind": "List"}
    assert (config["items"], config.kind, Config(config)) == ([1], "List", config)


def test_a_task_that_is_not_here_is_refused_unless_nobody_plays_it():
    with pytest.raises(ConfigError, match="there is no module gone"):
        load({"task": "gone:Arm"})
    assert load({"task": "gone:Arm"}, known_task=False).task == "gone:Arm"


def test_a_config_is_detached_from_what_made_it():
    tree = {"model": {"lr": 1.0}}
    config = Config(tree)
    tree["model"]["lr"] = 2.0
    assert config.model.lr == 1.0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_are_equal_and_frozen(copied):
    config = load(presets=["cpu"])
    twin = copied(config)
    assert twin.flatten() == config.flatten()
    with pytest.raises(AttributeError):
        twin.model.lr = 1.0


def test_save_and_read_round_trip(tmp_path):
    flags = {"replay.capacity": None, "logdir": "null: #x", "model.clip": 1e22, "actor.lr": 1e-8}
    config = load(flags, ["debug"])
    path = tmp_path / "config.yaml"
    path.write_text("an older file")
    config.save(path)
    saved = Config.read(path)
    assert saved == config
    assert [type(v) for v in saved.flatten().values()] == [
        type(v) for v in config.flatten().values()
    ]
    assert list(saved.flatten()) == list(config.flatten())
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("steps: 3\n")
    with pytest.raises(Exception, match="cannot represent"):
        Config({"steps": object()}).save(path)
    assert Config.read(path) == {"steps": 3}


def test_differences_name_what_forbids_a_resume():
    saved = load({"model.deter": 200, "variant": "dreamer"})
    new = load({"model.deter": 128, "variant": "dreamer", "replay.capacity": "null"})
    assert differences(saved, new) == [
        "replay.capacity: saved 100000, now null",
        "model.deter: saved 200, now 128",
    ]
    assert differences(Config({"a": {"b": 1}}), Config({"c": True})) == [
        "a.b: saved 1, now nothing",
        "c: saved nothing, now true",
    ]


def test_a_setting_that_a_run_does_not_have_is_a_difference():
    settings = {key: value for key, value in load().flatten().items() if key != "model.deter"}
    assert differences(Config(settings), load()) == ["model.deter: saved nothing, now 300"]


def test_a_run_from_before_a_setting_that_is_null_can_be_resumed():
    settings = load({"env.time_limit": 500}).flatten()
    saved = {key: settings[key] for key in settings.keys() - NEWER}
    assert differences(Config(saved), load(saved)) == []
    assert differences(Config(saved), load(saved | {"env.camera": 1})) == [
        "env.camera: saved nothing, now 1"
    ]


@pytest.mark.parametrize(
    "task, action_repeat, discount_head, limit, debug",
    [
        ("dmc_walker_walk", 2, False, 1000, 200),
        ("dmc_lqr_lqr_2_1", 2, True, 1000, 200),
        ("atari_pong", 4, True, 108_000, 200),
        ("gym_CartPole-v1", 1, True, None, None),
        ("random:Random", 1, True, None, None),
    ],
)
def test_what_is_null_follows_from_the_task(
    monkeypatch, task, action_repeat, discount_head, limit, debug
):
    monkeypatch.setattr("dreamer_bird.envs.tasks.PathFinder.find_spec", lambda *_: True)
    config = load({"task": task})
    assert config.env.time_limit == limit
    # Of a limit of its own a preset knows nothing, but who gives a flag may.
    assert load({"task": task}, ["debug"]).env.time_limit == debug
    assert load({"task": task, "env.time_limit": 90}, ["debug"]).env.time_limit == 90
    assert config.env.action_repeat == action_repeat
    assert config.model.discount_head is discount_head
    assert config.train.every == 1000
    assert config.logdir == f"logdir/{task.replace(':', '_')}/bird/0"
    chosen = load({"task": task, "env.action_repeat": 5, "model.discount_head": "false"})
    assert (chosen.env.action_repeat, chosen.model.discount_head) == (5, False)


def test_a_block_follows_at_least_one_agent_step():
    config = load({"task": "gym_Pendulum-v1", "env.action_repeat": 2000})
    assert config.train.every == 2000


def test_what_a_resume_may_change_is_no_difference():
    changed = {"steps": 5, "logdir": "x", "train.eval_every": 7, "train.save_every": 7}
    assert differences(load(), load(changed | {"train.max_skipped": 7})) == []
