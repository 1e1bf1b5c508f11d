"""Configs of language-model agents: conflicts, keys without effect, and run digests."""

import pytest
from pydantic import ValidationError
from text_config import make_text_config

from heteromark.config.errors import faults_of
from heteromark.config.models.run import RunConfig
from heteromark.config.models.tasks import TASK_CONFIGS, TASK_ROLES
from heteromark.config.rules.effect import ineffective_key_faults, why_ignored
from heteromark.config.rules.kinds import run_faults
from heteromark.llm.tasks.registry import TASKS
from heteromark.runs.digest import run_digest

TEAM = {"algorithm": "AT-GRPO", "model__policies": "role"}


def test_configs_and_tasks_agree_on_roles():
    assert set(TASK_ROLES) == set(TASK_CONFIGS)
    for name, roles in TASK_ROLES.items():
        assert tuple(TASKS[name].roles) == roles


def test_the_algorithm_determines_which_roles_act():
    alone, team = make_text_config(), make_text_config(**TEAM)
    assert (alone.turn_order, alone.policy_names) == (("reasoner",), ("team",))
    assert team.turn_order == team.policy_names == ("tool", "reasoner")
    refining = make_text_config(
        **TEAM, environment__text__turn_order=["tool", "reasoner", "tool", "reasoner"]
    )
    assert refining.policy_names == ("tool", "reasoner")


def test_frames_per_problem_are_responses_times_rounds():
    config = make_text_config(
        environment__text__max_turns=2,
        collector__frames_per_batch=24,
        replay_buffer__minibatch_size=24,
        grpo__num_generations=4,
    )
    assert (config.frames_per_problem, config.problems_per_batch) == (8, 3)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            {"env_type": "skirmish"},
            "agent.algorithm = 'GRPO': GRPO trains language-model agents, but environment math has "
            "env_type skirmish; choose an environment with env_type text, such as math or plan_path",
        ),
        (
            {"grpo__num_generations": 3},
            "collector.frames_per_batch = 16: must be a multiple of 3, the responses per problem: "
            "grpo.num_generations (3) times environment.text.max_turns (1). Nearest valid: 15 or "
            "18; usually set by agent.n_steps",
        ),
        (
            {"environment__text__turn_order": ["tool", "reasonr"]},
            "environment.text.turn_order = 'reasonr': task math has no such role. Did you mean "
            "reasoner? Its roles: tool, reasoner",
        ),
        ({"environment__text__turn_order": []}, "must name at least one role, or be null"),
        (
            {"environment__text__templates": {"critic": "{question}"}},
            "environment.text.templates = 'critic': task math has no such role",
        ),
        (
            {"environment__text__system_prompts": {"resoner": "Be brief."}},
            "environment.text.system_prompts = 'resoner': task math has no such role. Did you mean "
            "reasoner?",
        ),
        (
            {**TEAM, "model__roles": {"tool": "helper"}},
            "has no policy for reasoner in the turn order; give each role a policy",
        ),
        (
            {**TEAM, "model__by_policy": {"reasonr": {"kind": "mlp"}}},
            "model.by_policy = 'reasonr': no role uses this policy. Did you mean reasoner?",
        ),
        (
            {"generation__max_prompt_length": 200},
            "model.tiny.max_length = 128: must be at least 206: generation.max_prompt_length (200) "
            "plus generation.max_response_length (6)",
        ),
        ({"model__tiny__num_heads": 3}, "must be a multiple of 6, twice model.tiny.num_heads"),
        (
            {"training__num_batches": 3},
            "training.total_frames = 32: must be 48 with training.num_batches=3 and "
            "training.epochs=1",
        ),
        ({"collector_type": "multi_sync"}, "collector_type = 'multi_sync': must be sync"),
        (
            {"environment__text__task": "chess"},
            "must be one of math, plan_path, sokoban, sudoku, code, search; or your own import path",
        ),
        ({"grpo__num_generations": 1}, "grpo.num_generations = 1: must be greater than or equal"),
        ({"generation__temperature": 0}, "generation.temperature = 0"),
        ({"grpo__filter_ratio": 0}, "grpo.filter_ratio = 0"),
        ({"model__trust_remote_code": "perhaps"}, "model.trust_remote_code = 'perhaps'"),
        ({"model__lora_rnk": 3}, "model.lora_rnk = 3: unknown key. Did you mean model.lora_rank?"),
    ],
)
def test_conflicts_are_reported_with_the_key_to_change(overrides, expected):
    try:
        faults = run_faults(make_text_config(**overrides), "f")
    except ValidationError as error:
        faults = faults_of(error, RunConfig, "f")
    assert expected in "\n".join(map(str, faults))


def test_all_conflicts_are_reported_at_once():
    config = make_text_config(**TEAM, grpo__num_generations=3, model__roles={"tool": "a"})
    keys = [fault.key for fault in run_faults(config)]
    assert keys == ["collector.frames_per_batch", "model.roles"]


@pytest.mark.parametrize(
    ("overrides", "given"),
    [
        ({}, {"policy.hidden_sizes": [3]}),
        ({}, {"loss.gamma": 0.5}),
        ({}, {"environment.text.sudoku.holes": 3}),
        ({}, {"model.lora_rank": 3}),
        ({}, {"model.dtype": "bfloat16"}),
        ({}, {"model.warm_up.learning_rate": 0.1}),
        ({"model__warm_up__steps": 2}, {"model.warm_up.mistakes": 0.5}),
        ({"model__path": "some/model"}, {"model.warm_up.steps": 2}),
        ({}, {"model.chat_template": "none"}),
        (
            {"model__path": "some/model", "model__chat_template": "none"},
            {"model.enable_thinking": True},
        ),
        ({}, {"grpo.filter_ratio": 0.3}),
        ({}, {"environment.text.max_prompt_length": 77}),
        ({}, {"evaluation.opponent": "random"}),
        ({"evaluation__preset": "greedy"}, {"evaluation.deterministic": False}),
        ({**TEAM, "model__roles": {"tool": "a", "reasoner": "b"}}, {"model.policies": "shared"}),
    ],
)
def test_a_key_without_effect_is_not_in_the_digest_and_a_fault_if_set(overrides, given):
    config = make_text_config(**overrides)
    assert [fault.key for fault in ineffective_key_faults(config, given, "f")] == list(given)
    flat = {key.replace(".", "__"): value for key, value in given.items()}
    assert run_digest(make_text_config(**{**overrides, **flat})) == run_digest(config)


@pytest.mark.parametrize(
    "overrides",
    [
        {"grpo__alpha": 0.5},
        {"grpo__sampling": "chain"},
        {"grpo__filter_method": "median"},
        {"generation__temperature": 0.9},
        {"model__specialization": "lora"},
        {"model__tiny__seed": 1},
        {"model__path": "some/model"},
        {"environment__text__system_prompts": {"reasoner": "Be brief."}},
        {"model__warm_up": {"steps": 2}},
        {"environment__text__resample_freq": 2},
        {"environment__text__epoch_size": 2},
        {"environment__text__math__max_operand": 8},
        {"environment__text__templates": {"reasoner": "{question}"}},
        {"scheduler": {"decay": "cosine"}},
        {"evaluation__passes": 2},
        {"optimizer__betas": (0.9, 0.99)},
    ],
)
def test_a_key_with_effect_makes_another_run(overrides):
    assert run_digest(make_text_config(**overrides)) != run_digest(make_text_config())


def test_mistakes_in_the_warm_up_make_another_run_of_a_team():
    team = {**TEAM, "model__warm_up__steps": 2}
    assert run_digest(make_text_config(**team, model__warm_up__mistakes=0.5)) != run_digest(
        make_text_config(**team)
    )


def test_equivalent_settings_make_the_same_run():
    team = make_text_config(**TEAM)
    assert run_digest(team) == run_digest(
        make_text_config(
            **TEAM,
            environment__text__turn_order=["tool", "reasoner"],
            model__roles={"tool": "tool", "reasoner": "reasoner"},
        )
    )


def test_files_count_by_their_content(tmp_path):
    def digest(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        settings = {"source": "file", "file": str(tmp_path / name)}
        return run_digest(make_text_config(environment__text__math=settings))

    line = '{"question": "1+1", "answer": 2}\n'
    assert digest("a.jsonl", line) == digest("b.jsonl", line) != digest("a.jsonl", line * 2)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    before = run_digest(make_text_config(model__path=str(folder)))
    (folder / "config.json").write_text("{ }")
    assert run_digest(make_text_config(model__path=str(folder))) != before


def test_hyperparameters_of_the_other_kind_are_ignored():
    agent = make_text_config().agent
    for key in ("gamma", "ppo.ent_coef", "network.net_arch", "happo.agent_order"):
        assert "without a critic" in why_ignored(agent, key)
    for key in ("learning_rate", "ppo.clip_range", "grpo.beta", "llm.lora_rank", "n_epochs"):
        assert not why_ignored(agent, key)
    happo = agent.model_copy(update={"algorithm": "HAPPO"})
    assert "does not train language models" in why_ignored(happo, "grpo.beta")
    assert not why_ignored(happo, "gamma")
