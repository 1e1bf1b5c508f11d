"""GRPO and AT-GRPO: what a team of text policies said in one iteration becomes updated weights.

Every policy is trained on what the roles that it speaks for said, all of it at once; the groups
that responses are judged in are those of one prompt (see `llm.rollout`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from tensordict import TensorDict

from heteromark.algorithm.learner import Diverged, Learner
from heteromark.config.models.run import RunConfig
from heteromark.import_paths import Registry
from heteromark.llm.advantage import GroupAdvantage, group_advantage
from heteromark.llm.batches import concatenate
from heteromark.llm.loss import GroupRelativeLoss
from heteromark.llm.out_of_memory import memory_told
from heteromark.llm.policies.base import TextPolicy
from heteromark.llm.policies.prompt import PromptPolicy
from heteromark.llm.rollout import Rollout
from heteromark.llm.update import GroupRelativeUpdate, judge_by_group
from heteromark.modules.optimizer import set_learning_rates
from heteromark.seeds import stream_seed


class LanguageModelAlgorithm:
    """Updates policies on rollouts. A subclass may judge responses otherwise, or by another loss.

    Args:
        config: the run.
        learner: policies as actors; those without weights of their own have no optimizer, and are
            left as they are.
    """

    def __init__(self, config: RunConfig, learner: Learner) -> None:
        self.config = config
        self.policies: Mapping[str, TextPolicy] = learner.actors
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
        """How much better each response is than the others to its prompt.

        Args:
            batch: `[responses]` with reward and group_id, which is equal for equal prompts.
        """
        return judge_by_group(batch, scale=self.config.grpo.normalization != "dr_grpo")

    def make_loss(self, name: str) -> GroupRelativeLoss:
        """The loss of a policy; its output is that of `GroupRelativeLoss`."""
        grpo, overrides = self.config.grpo, self.config.loss.groups
        clip = overrides[name].clip_epsilon if name in overrides else None
        clip = clip or self.config.loss.clip_epsilon
        return GroupRelativeLoss(self.policies[name], clip, grpo.clip_high or clip, grpo.beta)

    def update(self, rollout: Rollout, iteration: int) -> dict[str, float]:
        """Update every policy on its responses.

        Args:
            rollout: of the policies as they are.
            iteration: counted from 0; sets the learning rate, and seeds the order of responses.

        Returns:
            metrics named `quantity/policy`, and learning_rate; NaN for a policy that said nothing.

        Raises:
            Diverged: a loss, gradient or weight is not finite.
            OutOfMemory: too many responses are computed at once, or too long ones.
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
                    with memory_told(config, f"policy {name} was updated"):
                        told = update(
                            self.policies[name], self._losses[name], optimizer, batch, generator
                        )
                except Diverged as diverged:
                    raise diverged.of(f"policy {name}", iteration) from diverged
                self._require_finite_weights(name, iteration)
            else:
                told = dict.fromkeys(self._update.measured(self._losses[name]), math.nan)
            metrics |= {
                f"{quantity}/{name}": value
                for quantity, value in told.items()
                if quantity != "flat_share"  # which `rollout_metrics` tells by role
            }
        return metrics | self._credit_wordings(rollout, iteration) | {"learning_rate": rate}

    def _credit_wordings(self, rollout: Rollout, iteration: int) -> dict[str, float]:
        """Count what this iteration's wordings earned, where some are to be chosen among."""
        metrics: dict[str, float] = {}
        for step in rollout.steps:
            policy = self.policies[self.config.policy_of(step.role)]
            if isinstance(policy, PromptPolicy):
                policy.credit(step.role, policy.tried(step.role, iteration), step.batch["reward"])
        for policy in self.policies.values():
            if isinstance(policy, PromptPolicy):
                for role, texts in policy.wordings.items():
                    metrics[f"best_wording/{role}"] = texts.index(policy.best(role))
        return metrics

    def _minibatch_size(self, responses: int) -> int:
        """Responses of an optimizer step: as many steps per epoch as the config's frames make."""
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
    """Responses to one prompt are judged beside each other.

    Source: Shao et al., DeepSeekMath, 2024.
    """


@ALGORITHMS.register("AT-GRPO")
class ATGRPO(GRPO):
    """The same for a team: a group is one role's responses in one turn.

    Source: AT-GRPO ("Stronger-MAS", arXiv 2510.11062).
    """


def rollout_metrics(rollout: Rollout) -> dict[str, float | int]:
    """What the work on an iteration's problems was like.

    Returns:
        episodes, episode_return, episode_length (rounds), win_rate: of the lines of work that the
        team went on with, which with tree sampling are those of the best candidates;
        pass_at_1: of the first round's last responses, the share that solved their problem: what
        one attempt at each would;
        by role: reward, response_length (tokens), cut_off (share of responses that the longest
        length ended), and flat_share (of groups whose rewards are all equal).
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
