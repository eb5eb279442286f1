"""The update that XLA compiles, on the CPU: the same numbers, and loops that are loops."""

import re
import warnings

import numpy as np
import pytest
import tensorflow as tf
from sizes import ACTIONS, BATCH, LENGTH

from dreamer_bird.agent import agent as agent_module
from dreamer_bird.agent.precision import resolve_xla
from dreamer_bird.config import load
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.errors import ConfigError, RunError

STATE = Spec({"state": (3,)}, ACTIONS)
SMALL = {"obs": "state", "model__reward_layers": 1, "model__state_layers": 1}
SMALL |= {"actor__layers": 1, "value__layers": 1, "variant": "bird"}


def weights(agent):
    return {name: variable.numpy() for name, variable in agent.named_variables().items()}


@pytest.fixture
def state_batch(batch):
    state = np.random.default_rng(0).normal(size=(BATCH, LENGTH, 3)).astype(np.float32)
    return {key: batch[key] for key in ("action", "reward", "discount")} | {"state": state}


def test_a_compiled_update_gives_the_numbers_of_a_plain_one(make_agent, state_batch, seed):
    # Steps drawn at random too.
    flags = {**SMALL, "model__decode_steps": 2, "objective__imagine_starts": 2}
    plain, compiled = (make_agent(STATE, **flags, xla=xla) for xla in ("false", "true"))
    assert (plain.compiled, compiled.compiled) == (False, True)
    for update in range(2):
        one, two = (agent.train_step(state_batch, seed + update) for agent in (plain, compiled))
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-5, err_msg=name)
    ours, theirs = map(weights, (plain, compiled))
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4, err_msg=name)
    assert compiled.traces == 1
    # Real and imagined steps, forwards and backwards, are four loops, and nothing is a branch.
    update = compiled._traced["update"]
    inside = update.experimental_get_compiler_ir(state_batch, seed, True)(stage="hlo")
    assert re.findall(r" (while|conditional)\(", inside) == 4 * ["while"]
    # Variables are its arguments in one order: XLA's cache knows the program again by its text.
    arguments = re.search(r"^ENTRY .*?\((arg0.*?)\) ->", inside, re.MULTILINE)[1]
    shapes = [
        [*map(int, filter(None, text.split(",")))] for text in re.findall(r"\[(.*?)\]", arguments)
    ]
    variables = [variable.shape.as_list() for variable in compiled.named_variables().values()]
    assert shapes[-len(variables) :] == variables


def test_a_compiled_update_in_float16_skips_what_overflows_and_goes_on(
    make_agent, state_batch, seed
):
    agent = make_agent(STATE, **SMALL, xla="true", precision="float16")
    scale = agent.optimizers["model"].loss_scale
    scale.assign(2.0**100)
    before = weights(agent)
    assert agent.train_step(state_batch, seed)["skipped_updates"] == 1
    after = weights(agent)
    assert scale.numpy() == 2.0**99
    model = [
        name for name in before if name.startswith(("rssm", "state_", "model_optimizer/first"))
    ]
    for name in model:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    scale.assign(2.0)
    assert agent.train_step(state_batch, seed)["skipped_updates"] == 0
    changed = weights(agent)
    assert all((changed[name] != after[name]).any() for name in model if name.endswith("kernel"))


@pytest.mark.parametrize("variant", ["bird", "planet"])
def test_a_compiled_policy_acts_as_a_plain_one(make_agent, seed, variant):
    plan = {f"planner__{key}": 4 for key in ("horizon", "candidates", "elites")}
    flags = {**SMALL, **plan, "variant": variant}
    obs = {"state": np.ones((2, 3), np.float32)}
    plain, compiled = (make_agent(STATE, **flags, xla=xla) for xla in ("false", "true"))
    for training in (True, False):
        acts = [agent.act(obs, None, seed, training)[0] for agent in (plain, compiled)]
        np.testing.assert_allclose(*acts, rtol=1e-4, atol=1e-5)
    arguments = obs, compiled.initial(2), seed, True
    assert compiled._traced["policy"].experimental_get_compiler_ir(*arguments)(stage="hlo")
    with pytest.raises(ValueError, match="jit_compile=True"):
        plain._traced["policy"].experimental_get_compiler_ir(*arguments)


@pytest.fixture
def broken_xla(monkeypatch):
    """Want XLA everywhere but with "false", and have all that it compiles fail; return how.

    As TensorFlow does, it traces a program before it has XLA compile it, if `new`.
    """
    traced = []

    def fails(*_):
        traced.extend([True] * fails.new)
        raise tf.errors.InternalError(None, None, "libdevice not found\nand more")

    def trace(self):
        work(self)
        self._traced = dict.fromkeys(self._traced, fails) if self.compiled else self._traced

    work = agent_module.Agent._trace
    fails.new, fails.experimental_get_tracing_count = True, lambda: len(traced)
    monkeypatch.setattr(agent_module, "resolve_xla", lambda setting, replicas: setting != "false")
    monkeypatch.setattr(agent_module.Agent, "_trace", trace)
    return fails


CALLS = {
    "learns": lambda agent, batch, seed: agent.train_step(batch, seed)["model_loss"],
    "acts": lambda agent, batch, seed: agent.act({"state": batch["state"][0]}, None, seed, True)[0],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_where_xla_fails_auto_goes_on_without_it_and_true_does_not(
    make_agent, state_batch, seed, broken_xla, call
):
    auto, true, false = (make_agent(STATE, **SMALL, xla=xla) for xla in ("auto", "true", "false"))
    with pytest.raises(tf.errors.InternalError):
        call(true, state_batch, seed)
    broken_xla.new = False  # compiled before: another failure
    with pytest.raises(tf.errors.InternalError):
        call(auto, state_batch, seed)
    broken_xla.new = True  # the first program, or a later one, as when the actor joins
    with pytest.warns(
        UserWarning, match=r"compile here \(libdevice not found\): it goes on without"
    ):
        found = call(auto, state_batch, seed)
    np.testing.assert_array_equal(found, call(false, state_batch, seed))
    assert not auto.compiled


@pytest.mark.parametrize("xla", ["auto", "false"])
def test_too_little_memory_is_a_line_that_names_a_setting(
    make_agent, state_batch, seed, broken_xla, monkeypatch, xla
):
    def fails(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nand more")

    def trace(self):
        with_xla(self)
        self._traced = self._traced if self.compiled else dict.fromkeys(self._traced, fails)

    with_xla = agent_module.Agent._trace
    fails.experimental_get_tracing_count = lambda: 0
    monkeypatch.setattr(agent_module.Agent, "_trace", trace)
    agent = make_agent(STATE, **SMALL, xla=xla)
    told = r"\(OOM when allocating\): a smaller --replay.batch"
    # Where XLA fails too, it goes on without first.
    with warnings.catch_warnings(), pytest.raises(RunError, match=told):
        warnings.simplefilter("ignore")
        agent.train_step(state_batch, seed)
    assert not agent.compiled


@pytest.mark.parametrize(
    ("setting", "gpus", "replicas", "compiled"),
    [
        *(("auto", 1, 1, True), ("auto", 0, 1, False), ("auto", 2, 2, False)),
        *(("true", 0, 1, True), ("false", 1, 1, False)),
    ],
)
def test_auto_compiles_on_one_gpu_alone(monkeypatch, setting, gpus, replicas, compiled):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"] * gpus)
    assert resolve_xla(setting, replicas) is compiled


@pytest.mark.parametrize("given", ["true", True, "True"])
def test_the_setting_is_a_word_or_a_bool_of_yaml(given):
    assert load({"xla": given}).xla == "true"
    with pytest.raises(ConfigError, match="choose from auto, true, false"):
        load({"xla": "on"})
