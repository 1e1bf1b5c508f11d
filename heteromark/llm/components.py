"""Build the training components of language-model agents from a run's config."""

from __future__ import annotations

import torch

from heteromark.algorithm.learner import Learner
from heteromark.config.models.components import OptimizerOverride
from heteromark.config.models.run import RunConfig
from heteromark.llm.algorithm import ALGORITHMS, rollout_metrics
from heteromark.llm.collector import RolloutCollector
from heteromark.llm.evaluator import TeamEvaluator
from heteromark.llm.tasks.registry import make_task
from heteromark.llm.team import make_team
from heteromark.modules.optimizer import make_optimizer
from heteromark.training.components import Components


def language_model_components(config: RunConfig, device: torch.device) -> Components:
    """Build the components of a run; see `training.components.Kind.components`."""
    task = make_task(config.environment)
    team, policies = make_team(config, task, device)
    optimizers = {}
    for name, policy in policies.items():
        weights = list(policy.trained_parameters().values())
        if weights:
            override = config.optimizer.groups.get(name, OptimizerOverride())
            settings = config.optimizer.model_copy(update=override.model_dump(exclude_none=True))
            optimizers[name] = make_optimizer(config.optimizer_type, settings, weights)
    learner = Learner(actors=policies, actor_optimizers=optimizers)
    return Components(
        learner=learner,
        collector=RolloutCollector(config, task, team, device),
        algorithm=ALGORITHMS[config.agent.algorithm](config, learner),
        evaluator=TeamEvaluator(config, task, team, device),
        measure=rollout_metrics,
        device=device,
    )
