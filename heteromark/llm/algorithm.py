"""GRPO and AT-GRPO: update the weights of a team of text policies from one iteration's responses.

Each policy is trained on all responses of its roles. Advantages compare responses to the same
prompt (see `llm.rollout`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from tensordict import TensorDict

from heteromark.algorithm.learner import Diverged, Learner
from heteromark.config.models.run import RunConfig
from heteromark.import_paths import Registry
from heteromark.llm.advantage import GroupAdvantage, group_advantage
from heteromark.llm.batches import concatenate
from heteromark.llm.loss import GroupRelativeLoss
from heteromark.llm.out_of_memory import explain_out_of_memory
from heteromark.llm.policies.base import TextPolicy, text_policies
from heteromark.llm.policies.prompt import PromptPolicy
from heteromark.llm.rollout import Rollout
from heteromark.llm.update import GroupRelativeUpdate, judge_by_group
from heteromark.modules.optimizer import set_learning_rates
from heteromark.seeds import stream_seed


class LanguageModelAlgorithm:
    """Updates policies on rollouts.

    Subclasses override `judge` to compute other advantages, or `make_loss` to use another loss.

    Args:
        config: config of the run.
        learner: holds the policies as actors. Policies without trainable weights have no optimizer
            and are not updated.
    """

    def __init__(self, config: RunConfig, learner: Learner) -> None:
        self.config = config
        self.policies: Mapping[str, TextPolicy] = text_policies(learner.actors)
        self.optimizers = learner.actor_optimizers
        self._losses = {name: self.make_loss(name) for name in self.optimizers}
        self._update = GroupRelativeUpdate(
            config.grpo,
            epochs=config.training.num_epochs,
            max_length=config.generation.max_response_length,
            max_grad_norm=config.training.max_grad_norm,
            judge=self.judge,
        )

    def judge(self, batch: TensorDict) -> GroupAdvantage:
        """Return how much better each response is than the others to the same prompt.

        Args:
            batch: `[responses]` with reward and group_id; equal prompts have the same group_id.
        """
        return judge_by_group(batch, scale=self.config.grpo.normalization != "dr_grpo")

    def make_loss(self, name: str) -> GroupRelativeLoss:
        """Create the loss of a policy. Its output must have the keys of `GroupRelativeLoss`."""
        grpo, overrides = self.config.grpo, self.config.loss.groups
        clip = overrides[name].clip_epsilon if name in overrides else None
        clip = clip or self.config.loss.clip_epsilon
        return GroupRelativeLoss(self.policies[name], clip, grpo.clip_high or clip, grpo.beta)

    def state_dict(self) -> dict[str, Any]:
        """Return what an exact resume needs besides the learner: nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""

    def update(self, rollout: Rollout, iteration: int) -> dict[str, float]:
        """Update every policy on its responses.

        Args:
            rollout: sampled with the current weights.
            iteration: counted from 0; sets the learning rate and seeds the order of responses.

        Returns:
            Metrics named `quantity/policy`, and learning_rate. The values are NaN for a policy
            without responses.

        Raises:
            Diverged: A loss, gradient or weight is not finite.
            OutOfMemory: The responses of a micro-batch do not fit in memory.
        """
        config = self.config
        rate = set_learning_rates(config, self.optimizers.values(), iteration)
        metrics: dict[str, float] = {}
        for number, (name, optimizer) in enumerate(self.optimizers.items()):
            batches = [step.batch for step in rollout.steps if config.policy_of(step.role) == name]
            if batches:
                seed = stream_seed(config.seed, "minibatches", iteration, number)
                generator = torch.Generator().manual_seed(seed)
                batch = concatenate(batches)
                update = replace(self._update, minibatch_size=self._minibatch_size(len(batch)))
                try:
                    with explain_out_of_memory(config, f"updating policy {name}"):
                        measured = update(
                            self.policies[name], self._losses[name], optimizer, batch, generator
                        )
                except Diverged as diverged:
                    raise diverged.of(f"policy {name}", iteration) from diverged
                self._require_finite_weights(name, iteration)
            else:
                measured = dict.fromkeys(self._update.measured(self._losses[name]), math.nan)
            metrics |= {
                f"{quantity}/{name}": value
                for quantity, value in measured.items()
                if quantity != "flat_share"  # `rollout_metrics` reports it per role
            }
        return metrics | self._credit_wordings(rollout, iteration) | {"learning_rate": rate}

    def _credit_wordings(self, rollout: Rollout, iteration: int) -> dict[str, float]:
        """Add this iteration's rewards to the prompt wordings that earned them.

        Only policies that are trained by prompt selection have such wordings.

        Returns:
            best_wording/role: index of the wording with the highest mean reward so far.
        """
        metrics: dict[str, float] = {}
        for step in rollout.steps:
            policy = self.policies[self.config.policy_of(step.role)]
            if isinstance(policy, PromptPolicy):
                wording = policy.wording_index(step.role, iteration)
                policy.credit(step.role, wording, step.batch["reward"])
        for policy in self.policies.values():
            if isinstance(policy, PromptPolicy):
                for role, texts in policy.wordings.items():
                    metrics[f"best_wording/{role}"] = texts.index(policy.best(role))
        return metrics

    def _minibatch_size(self, responses: int) -> int:
        """Return the responses per optimizer step.

        The number of steps per epoch equals frames_per_batch / minibatch_size of the config.
        """
        frames = self.config.collector.frames_per_batch
        return math.ceil(responses * self.config.replay_buffer.minibatch_size / frames)

    def _require_finite_weights(self, name: str, iteration: int) -> None:
        for key, weight in self.policies[name].trained_parameters().items():
            if not weight.isfinite().all():
                raise Diverged(
                    f"weight {key} of policy {name} is not finite in iteration {iteration + 1}"
                )


ALGORITHMS: Registry[type[LanguageModelAlgorithm]] = Registry(
    "agent.algorithm", base=LanguageModelAlgorithm
)


@ALGORITHMS.register("GRPO")
class GRPO(LanguageModelAlgorithm):
    """Compares the responses to one prompt with each other.

    Source: Shao et al., DeepSeekMath, 2024.
    """


@ALGORITHMS.register("AT-GRPO")
class ATGRPO(GRPO):
    """GRPO for a team: a group is one role's responses in one turn.

    Source: AT-GRPO ("Stronger-MAS", arXiv 2510.11062).
    """


def rollout_metrics(rollout: Rollout) -> dict[str, float | int]:
    """Return the metrics of an iteration's rollout.

    Returns:
        Over the continued episodes (tree sampling continues each problem from the best candidate):
        episodes, episode_return, episode_length (rounds), win_rate. Also pass_at_1, the share of
        the last role's responses in the first round that solved the problem, i.e. the success rate
        of a single attempt. Per role: reward, response_length (tokens), cut_off (share of responses
        truncated at the maximum length), flat_share (share of groups whose rewards are all equal).
    """
    episodes = rollout.episodes
    first = [step for step in rollout.steps if step.turn == 0]
    last_role = first[-1].role
    metrics: dict[str, float | int] = {
        "episodes": len(episodes),
        "episode_return": _mean([episode.reward for episode in episodes]),
        "episode_length": _mean([episode.turns for episode in episodes]),
        "win_rate": _mean([episode.is_solved for episode in episodes]),
        "pass_at_1": _mean(
            [solved for step in first if step.role == last_role for solved in step.solved]
        ),
    }
    for role in dict.fromkeys(step.role for step in rollout.steps):
        batches = [step.batch for step in rollout.steps if step.role == role]
        rewards = torch.cat([batch["reward"] for batch in batches])
        groups = torch.cat([batch["group_id"] for batch in batches])
        measured = {
            "reward": rewards,
            "response_length": torch.cat([batch["response_mask"].sum(-1) for batch in batches]),
            "cut_off": torch.cat([batch["is_cut_off"] for batch in batches]),
        }
        for name, values in measured.items():
            metrics[f"{name}/{role}"] = values.double().mean().item()
        metrics[f"flat_share/{role}"] = group_advantage(rewards, groups).flat_share
    return metrics


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
