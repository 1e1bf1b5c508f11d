"""All components of a run of language-model agents, from its config."""

from __future__ import annotations

import torch

from heteromark.algorithm.base import Learner
from heteromark.config.models.components import OptimizerOverride
from heteromark.config.models.run import RunConfig
from heteromark.llm.algorithm import TextAlgorithm, rollout_metrics
from heteromark.llm.collector import TextCollector
from heteromark.llm.evaluator import TextEvaluator
from heteromark.llm.policies.base import TextPolicy
from heteromark.llm.policies.factory import TextPolicyFactory
from heteromark.llm.rollout import Team
from heteromark.llm.tasks.base import Task
from heteromark.llm.tasks.registry import make_task, templates_of, turn_order_of
from heteromark.modules.loss import Losses
from heteromark.modules.optimizer import make_optimizer
from heteromark.modules.policy import Policies
from heteromark.training.components import Components


def make_team(
    config: RunConfig, task: Task, device: torch.device
) -> tuple[Team, dict[str, TextPolicy]]:
    """The team that works on a task, and its policies by name.

    Raises:
        ValueError: roles, prompts or models do not fit.
    """
    text = config.environment.text
    order = turn_order_of(task, text, alone=config.agent.algorithm == "GRPO")
    templates = templates_of(task, text, config.model.wording)
    policies = TextPolicyFactory(config, task, order, templates, device).create()
    team = Team(
        turn_order=order,
        policies={role: policies[config.policy_of(role)] for role in order},
        templates=templates,
        max_turns=text.max_turns,
        team_weight=config.grpo.alpha,
        max_prompt_length=config.generation.max_prompt_length,
        max_response_length=config.generation.max_response_length,
    )
    return team, policies


def text_components(config: RunConfig, device: torch.device) -> Components:
    """What the loop works with, for language-model agents.

    Raises:
        ValueError, ModuleNotFoundError: the config does not fit the task or the models.
    """
    task = make_task(config.environment)
    team, policies = make_team(config, task, device)
    optimizers = {}
    for name, policy in policies.items():
        weights = list(policy.trained_parameters().values())
        if weights:
            override = config.optimizer.groups.get(name, OptimizerOverride())
            own = config.optimizer.model_copy(update=override.model_dump(exclude_none=True))
            optimizers[name] = make_optimizer(config.optimizer_type, own, weights)
    learner = Learner(
        groups={},
        policies=Policies(actors=policies, critics={}),
        losses=Losses(actors={}, critics={}),
        actor_optimizers=optimizers,
        critic_optimizers={},
        actor_buffers={},
        critic_buffers={},
        value_norms={},
    )
    return Components(
        learner=learner,
        collector=TextCollector(config, task, team, device),
        algorithm=TextAlgorithm(config, policies, optimizers),
        evaluator=TextEvaluator(config, task, team, device),
        measure=rollout_metrics,
        device=device,
    )
