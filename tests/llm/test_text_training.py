"""Test training of language-model agents: loop, records and reproducibility."""

import csv
import importlib.util
import itertools
import json
import re
import shutil
import statistics

import pytest
import torch
from engine_config import make_config
from text_config import TINY, make_text_config

from heteromark.commands.launch import RunFailed, train_run
from heteromark.config.compose.composition import load_params
from heteromark.config.rules.packages import package_faults
from heteromark.llm.out_of_memory import OutOfMemory, explain_out_of_memory
from heteromark.llm.policies.backbone import BackboneError, tiny_backbone
from heteromark.llm.policies.language_model import LanguageModelPolicy
from heteromark.runs.checkpoints import checkpoint_files
from heteromark.runs.record import WALL_CLOCK_COLUMNS, RunRecord
from heteromark.training import loop
from heteromark.training.components import ComponentFactory
from heteromark.training.device import arithmetic_of

# Warmed up, because there is nothing to learn from malformed responses only.
TEAM = {
    "environment__text": {"task": "plan_path", "plan_path": {"size": 3}},
    "model__warm_up": {"steps": 30, "batch_size": 16, "learning_rate": 1e-2, "ramp": 0},
    "algorithm": "AT-GRPO",
    "model__specialization": "lora",
    "model__policies": "role",
    "model__lora_rank": 2,
}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("HETEROMARK_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def rows_of(folder):
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in WALL_CLOCK_COLUMNS} for row in rows]


def weights_of(folder):
    actors = torch.load(folder / "checkpoint.pt", weights_only=True)["actors"]
    return {f"{name}.{key}": value for name, part in actors.items() for key, value in part.items()}


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_team_trains_evaluates_and_records(tmp_path):
    outcome = loop.train(make_text_config(**TEAM), tmp_path / "run")
    assert outcome.status == "completed"
    first = rows_of(tmp_path / "run")[0]
    assert float(first["episodes"]) == 4  # 16 frames: 4 problems of 4 responses
    for role in ("tool", "planner"):
        for quantity in ("reward", "response_length", "flat_share", "kl_approx", "grad_norm"):
            assert first[f"{quantity}/{role}"], (quantity, role)
    report = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert report["episodes"] == len(report["returns"]) == 5


def test_two_identical_runs_are_bit_identical(tmp_path):
    config = make_text_config(**TEAM)
    for name in ("one", "other"):
        loop.train(config, tmp_path / name)
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "other")
    assert_same_weights(weights_of(tmp_path / "one"), weights_of(tmp_path / "other"))


@pytest.mark.slow
def test_two_runs_on_two_threads_are_bit_identical(tmp_path):
    """Use batches large enough that threads share gradients of prompts with several responses."""
    frames = 512
    config = make_text_config(
        **TEAM,
        training__num_threads=2,
        training__total_frames=2 * frames,
        agent__n_steps=frames,
        agent__batch_size=frames,
        collector__frames_per_batch=frames,
        replay_buffer__minibatch_size=frames,
        environment__num_parallel_envs=64,
        grpo__num_generations=8,
        model__tiny={"hidden_size": 64, "num_layers": 1, "num_heads": 2, "max_length": 128},
    )
    with arithmetic_of(config, "cpu"):
        for number in range(3):
            torch.use_deterministic_algorithms(False)  # the run itself must enable them
            loop.train(config, tmp_path / str(number))
    for number in (1, 2):
        assert rows_of(tmp_path / str(number)) == rows_of(tmp_path / "0")
        assert_same_weights(weights_of(tmp_path / str(number)), weights_of(tmp_path / "0"))


@pytest.mark.parametrize("team", [{}, TEAM], ids=["full", "adapters"])
def test_a_stopped_run_resumes_exactly(tmp_path, team):
    config = make_text_config(**team, training__total_frames=64, grpo__beta=0.1)
    loop.train(config, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(frames, *_):
        if frames == 48:
            raise Stop

    with pytest.raises(Stop):
        loop.train(config, tmp_path / "stopped", on_progress=stop)
    assert [file.iteration for file in checkpoint_files(tmp_path / "stopped")] == [2, 1]
    loop.train(config, tmp_path / "stopped")
    assert rows_of(tmp_path / "stopped") == rows_of(tmp_path / "whole")
    assert_same_weights(weights_of(tmp_path / "stopped"), weights_of(tmp_path / "whole"))


def test_every_role_is_trained_and_seeds_differ():
    changed = {}
    for seed in (0, 1):
        components = ComponentFactory(make_text_config(**TEAM, seed=seed)).create()
        policies = components.learner.actors
        before = {
            name: [weight.clone() for weight in policy.trained_parameters().values()]
            for name, policy in policies.items()
        }
        for iteration in range(3):
            components.algorithm.update(components.collector.collect(), iteration)
        for name, policy in policies.items():
            after = policy.trained_parameters().values()
            assert any(not torch.equal(*pair) for pair in zip(before[name], after, strict=True)), (
                name
            )
        changed[seed] = [w.clone() for w in policies["tool"].trained_parameters().values()]
    assert any(not torch.equal(*pair) for pair in zip(*changed.values(), strict=True))


def test_without_specialization_nothing_is_trained(tmp_path):
    config = make_text_config(model__specialization="none")
    components = ComponentFactory(config).create()
    before = {
        key: value.clone()
        for key, value in components.learner.actors["team"].model.state_dict().items()
    }
    metrics = components.algorithm.update(components.collector.collect(), 0)
    assert set(metrics) == {"learning_rate"}
    after = components.learner.actors["team"].model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert loop.train(config, tmp_path / "run").status == "completed"


def test_the_prompt_with_the_highest_reward_is_selected(tmp_path):
    config = make_text_config(
        **TEAM | {"model__specialization": "prompt"},
        model__tiny=TINY | {"max_length": 320},
        generation__max_prompt_length=300,
        training__total_frames=9 * 16,
    )
    components = ComponentFactory(config).create()
    policy = components.learner.actors["tool"]
    kept = {key: value.clone() for key, value in policy.model.state_dict().items()}
    earned: dict[str, list[float]] = {}
    pairs = set()
    for iteration in range(9):
        rollout = components.collector.collect()
        components.algorithm.update(rollout, iteration)
        pairs.add(tuple(step.prompts[0].rpartition("\n")[0][-12:] for step in rollout.steps[:2]))
        for step in rollout.steps:
            if step.role == "tool":
                [wording] = {re.sub(r"(?m)^[.#AG]+\n", "", prompt) for prompt in step.prompts}
                earned.setdefault(wording, []).extend(step.batch["reward"].tolist())
    assert len(pairs) == 9  # all combinations of the tool's and the planner's wordings
    assert all(torch.equal(value, kept[key]) for key, value in policy.model.state_dict().items())
    means = {wording: statistics.fmean(rewards) for wording, rewards in earned.items()}
    assert len(means) == 3
    best = max(means, key=means.get)
    assert re.sub(r"\{grid\}\n", "", policy.best("tool")) == best
    assert policy.means("tool") == pytest.approx(list(means.values()))

    loop.train(config, tmp_path / "run")
    loaded = ComponentFactory(config).create().learner.actors["tool"]
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["actors"]["tool"]
    loaded.load_state_dict(saved)
    assert loaded.best("tool") == policy.best("tool")


def test_a_perceptron_trains_beside_a_language_model(tmp_path):
    mixed = TEAM | {"model__by_policy": {"tool": {"kind": "mlp", "hidden_sizes": [16]}}}
    config = make_text_config(**mixed)
    components = ComponentFactory(config).create()
    kinds = {name: type(policy).__name__ for name, policy in components.learner.actors.items()}
    assert kinds == {"tool": "NetworkPolicy", "planner": "AdapterPolicy"}
    for name in ("one", "other"):
        assert loop.train(config, tmp_path / name).status == "completed"
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "other")
    assert_same_weights(weights_of(tmp_path / "one"), weights_of(tmp_path / "other"))
    assert rows_of(tmp_path / "one")[0]["grad_norm/tool"]


def test_a_tiny_model_is_warmed_up_once_for_all_runs(tmp_path, store):
    warm = {"model__warm_up": {"steps": 3, "batch_size": 4}}
    first, second = (
        ComponentFactory(make_text_config(**warm, seed=seed)).create() for seed in (0, 1)
    )
    cold = ComponentFactory(make_text_config()).create()
    states = [each.learner.actors["team"].state_dict() for each in (first, second, cold)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])
    [kept] = (store / "models").glob("*.pt")
    shutil.rmtree(store / "models")
    again = ComponentFactory(make_text_config(**warm)).create()
    assert [file.name for file in (store / "models").glob("*.pt")] == [kept.name]
    state = again.learner.actors["team"].state_dict()
    assert all(torch.equal(state[key], states[0][key]) for key in state)


def test_a_warm_up_is_identified_by_the_content_of_its_demonstrations(tmp_path, store):
    """Check that the file's content counts, not its name."""
    questions = tmp_path / "questions.jsonl"

    def kept(text: str) -> set[str]:
        questions.write_text(text)
        settings = {"source": "file", "file": str(questions)}
        warm = {"steps": 2, "batch_size": 4}
        config = make_text_config(environment__text__math=settings, model__warm_up=warm)
        ComponentFactory(config).create()
        return {file.name for file in (store / "models").glob("*.pt")}

    lines = "".join(f'{{"question": "{n}+1", "answer": {n + 1}}}\n' for n in range(100))
    first = kept(lines)
    assert kept(lines) == first
    assert len(kept(lines.replace("+1", "+01"))) == 2


@pytest.mark.parametrize("architecture", ["gemma3", "qwen3"])
def test_a_model_from_a_folder_is_trained(tmp_path, architecture):
    """Use a folder from `save_pretrained`; the hub provides the same files by name."""
    made = tiny_backbone(architecture, **TINY | {"max_length": 512})
    made.model.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    settings = {"model__path": str(tmp_path / "model"), "model__wording": 1} | {
        "model__specialization": "lora",
        "generation__max_prompt_length": 400,
    }
    config = make_text_config(**settings)
    assert loop.train(config, tmp_path / "run").status == "completed"
    components = ComponentFactory(config).create()
    policy = components.learner.actors["team"]
    base = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value
        for name, value in policy.model.state_dict().items()
    }
    assert all(torch.equal(base[name], value) for name, value in made.model.state_dict().items())
    for step in components.collector.collect().steps:
        assert all("Answer with" in prompt for prompt in step.prompts)  # the long wording
    too_long = make_text_config(**settings | {"generation__max_prompt_length": 510})
    with pytest.raises(BackboneError, match=r"generation\.max_prompt_length \(510\) plus .*512"):
        ComponentFactory(too_long).create()


def test_epoch_size_repeats_problems_and_resample_freq_keeps_them():
    def keys(**text):
        settings = {f"environment__text__{key}": value for key, value in text.items()}
        collector = ComponentFactory(make_text_config(**settings)).create().collector
        return [
            [problem.key for problem in collector.problems(0, "training", iteration)]
            for iteration in range(6)
        ]

    fresh = keys()
    assert len({tuple(each) for each in fresh}) == 6
    again = keys(epoch_size=2)
    assert again[0] == again[2] == again[4] != again[1] == again[3]
    staying = keys(resample_freq=3)
    assert staying[0] == staying[1] == staying[2] != staying[3] == staying[5]


def test_the_learning_rate_warms_up_and_decays():
    config = make_text_config(
        training__total_frames=160, scheduler={"decay": "cosine", "warmup_ratio": 0.2}
    )
    components = ComponentFactory(config).create()
    rollout = components.collector.collect()
    rates = [components.algorithm.update(rollout, i)["learning_rate"] for i in range(10)]
    assert rates[0] < rates[1] < rates[2] == 1e-2
    assert all(now > after for now, after in itertools.pairwise(rates[2:]))
    assert 0 < rates[-1] < 1e-3


def test_the_projects_params_apply_to_language_models():
    params = load_params(overrides={"grpo": {"num_generations": 4}})
    assert params.hyperparameter_overrides() == {"grpo": {"num_generations": 4}}


def test_out_of_memory_fails_the_run_and_names_settings_to_lower(tmp_path, monkeypatch, store):
    """Make an impossible allocation in the second iteration."""
    config = make_text_config(training__total_frames=64)
    sampled = LanguageModelPolicy._sample
    calls = []

    def greedy(self, *arguments, **settings):
        calls.append(1)
        if len(calls) > 4:  # two chunks of problems per iteration
            torch.empty(2**50)
        return sampled(self, *arguments, **settings)

    monkeypatch.setattr(LanguageModelPolicy, "_sample", greedy)
    with pytest.raises(RunFailed, match=r"ran out of memory while sampling responses: lower "):
        train_run(config)
    [folder] = (store / "runs").iterdir()
    record = RunRecord.read(folder)
    assert record.status == "failed"
    for setting in ("grpo.micro_batch_size (256)", "model.specialization=lora"):
        assert setting in record.reason
    [kept, _] = checkpoint_files(folder)
    assert kept.iteration == 2
    assert kept.is_whole(kept.path.read_bytes())
    monkeypatch.undo()
    monkeypatch.setenv("HETEROMARK_STORE", str(store))
    record, _ = train_run(config)
    assert (record.status, record.attempts) == ("completed", 2)


def test_a_gpu_out_of_memory_is_reported_like_the_cpus():
    config = make_text_config(model__specialization="lora")
    raised = pytest.raises(OutOfMemory, match="CUDA ran out of memory while waiting: lower")
    with raised as caught, explain_out_of_memory(config, "waiting"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    assert "specialization" not in str(caught.value)
    with pytest.raises(RuntimeError, match="shape"), explain_out_of_memory(config, "waiting"):
        raise RuntimeError("shape mismatch")


def test_missing_packages_are_reported_with_the_install_command(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else found(name)
    )
    [fault] = package_faults(make_text_config())
    assert "language-model agents need peft; install with `pip install" in str(fault)
    assert not package_faults(make_config())
