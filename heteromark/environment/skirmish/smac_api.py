"""One Skirmish battle with the API of the StarCraft Multi-Agent Challenge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish.battles import Battles
from heteromark.environment.skirmish.env import checked_settings
from heteromark.environment.skirmish.moments import View
from heteromark.seeds import stream_seed


class SkirmishSMAC:
    """A battle for code written for SMAC or SMACv2; agents are slots.

    `seed` determines all episodes.

    Args:
        scenario: see `SkirmishEnv`.
        seed: seed of the episodes.
        settings: the fields of `SkirmishConfig`.

    Attributes:
        n_agents, n_actions, episode_limit: see SMAC.

    Raises:
        ValueError: see `SkirmishEnv`; later, an illegal action.
    """

    def __init__(self, scenario: str = "10gen_terran", seed: int = 0, **settings: Any) -> None:
        given = {"check_actions": True, "continuing_episode": False, **settings}
        config: SkirmishConfig = checked_settings({"scenario": scenario, **given})
        self._reports_timeouts = config.continuing_episode
        # always True for the simulation, so that it reports timeouts
        self._battles = Battles(config.model_copy(update={"continuing_episode": True}), 1)
        self._battles.reseed([stream_seed(seed)])
        self._view: View | None = None
        layout = self._battles.layout
        self.n_agents, self.n_actions = layout.n_agents, layout.n_actions
        self.episode_limit = self._battles.scenario.episode_limit
        self._stats = {"battles_won": 0, "battles_game": 0, "battles_draw": 0, "restarts": 0}

    def reset(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Start an episode; return observations and state."""
        self._view = self._battles.reset()
        return self.get_obs(), self.get_state()

    def step(self, actions: Sequence[int]) -> tuple[float, bool, dict[str, Any]]:
        """Step the battle; return the team's reward, whether the episode is over, and the info.

        The info has "battle_won", "dead_allies" and "dead_enemies"; with `continuing_episode` also
        "episode_limit" if time ran out.
        """
        view, outcome = self._battles.step(torch.as_tensor([[int(action) for action in actions]]))
        self._view = view
        alive = self._battles.moment.units.alive[:, 0]
        timeout, won = bool(outcome.truncated), bool(outcome.won)
        info = {
            "battle_won": won,
            "dead_allies": int((~alive[: self.n_agents]).sum()),
            "dead_enemies": int((~alive[self.n_agents :]).sum()),
        }
        if timeout and self._reports_timeouts:
            info["episode_limit"] = True
        over = bool(outcome.terminated) or timeout
        self._stats["battles_game"] += over
        self._stats["battles_won"] += won
        self._stats["battles_draw"] += timeout
        return float(outcome.reward), over, info

    def get_obs(self) -> list[np.ndarray]:
        """Return each agent's observation, float32 [observation_size]."""
        return list(self._seen().observation[0].numpy())

    def get_obs_agent(self, agent_id: int) -> np.ndarray:
        return self.get_obs()[agent_id]

    def get_obs_size(self) -> int:
        return self._battles.layout.observation_size

    def get_state(self) -> np.ndarray:
        """Return the global state, float32 [state_size]."""
        return self._seen().state[0].numpy()

    def get_state_size(self) -> int:
        return self._battles.layout.state_size

    def get_avail_actions(self) -> list[list[int]]:
        """Return each agent's action mask: 1 for legal actions, else 0."""
        return self._seen().offered[0].int().tolist()

    def get_avail_agent_actions(self, agent_id: int) -> list[int]:
        return self.get_avail_actions()[agent_id]

    def get_total_actions(self) -> int:
        return self.n_actions

    def get_env_info(self) -> dict[str, int]:
        """Return sizes with SMAC's names."""
        return {
            "state_shape": self.get_state_size(),
            "obs_shape": self.get_obs_size(),
            "n_actions": self.n_actions,
            "n_agents": self.n_agents,
            "episode_limit": self.episode_limit,
        }

    def get_stats(self) -> dict[str, float]:
        """Return the counts of battles so far, and the win rate."""
        games = self._stats["battles_game"]
        return {**self._stats, "win_rate": self._stats["battles_won"] / games if games else 0.0}

    def close(self) -> None:
        """Do nothing; there is nothing to close."""

    def _seen(self) -> View:
        if self._view is None:
            raise RuntimeError("the battle has not started: call reset() first")
        return self._view
