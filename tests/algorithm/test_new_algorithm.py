"""A new built-in algorithm with its own setting takes three files: code, table row, YAML."""

from __future__ import annotations

import pytest
from projects import copy_project

TOY = '''"""MAPPO with scaled advantages."""

from heteromark.algorithm.base import ALGORITHMS
from heteromark.algorithm.ppo import SimultaneousPPO


@ALGORITHMS.register("Toy")
class Toy(SimultaneousPPO):
    def update_actors(self, batch):
        for group in self.learner.groups:
            scaled = self.config.agent.toy.strength * batch[group, "advantage"]
            batch.set((group, "advantage"), scaled)
        return super().update_actors(batch)
'''
SETTINGS = '''class ToyConfig(Frozen):
    """Settings of Toy."""

    strength: float = Field(1.0, gt=0, description="Factor of the advantages.")


class AlgorithmSettings(Frozen):
    """The sections of an agent config that apply to some algorithms only."""

    toy: ToyConfig = ToyConfig()
'''
ROW = 'ROWS = (\n    AlgorithmRow("Toy", "mappo", NETWORKS, "algorithm.toy", critic="team", section="toy"),\n'
AGENT = "agent_id: toy_agent\nalgorithm: Toy\nn_steps: 64\nbatch_size: 64\nn_epochs: 1\ntoy: {strength: 0.5}\n"
TRAIN = ("python", "-m", "heteromark", "train", "--agent-config", "config/agents/toy_agent_v1.yaml")


@pytest.mark.slow
def test_a_built_in_algorithm_takes_three_files(tmp_path):
    project = copy_project(tmp_path / "project")
    table = project.read("heteromark/config/models/algorithms.py")
    start = table.index("class AlgorithmSettings(Frozen)")
    end = table.index("    happo: HAPPOConfig")
    table = table[:start] + SETTINGS + table[end:]
    project.write("heteromark/algorithm/toy.py", TOY)
    project.write("heteromark/config/models/algorithms.py", table.replace("ROWS = (\n", ROW))
    project.write("config/agents/toy_agent_v1.yaml", AGENT)

    def trained(*options: str) -> str:
        short = ("--total-timesteps", "64", "--set", "evaluation.episodes=2", "--num-envs", "4")
        return project.run(*TRAIN, *short, *options).stdout.splitlines()[0]

    first, second = trained(), trained("--set", "toy.strength=0.25")
    assert first.startswith("completed: ")
    assert "(trained)" in first
    assert first.split()[1] != second.split()[1]  # the coefficient is part of a run's identity
    assert trained("--set", "toy.strength=0.5").split()[1:4] == [first.split()[1], "(found", "in"]
    refused = project.run(
        *("python", "-m", "heteromark", "train", "--set", "toy.strength=2"),
        *("--agent-config", "config/agents/ppo_agent_v1.yaml"),
        check=False,
    )
    assert "toy.strength: has no effect: ppo_agent_v1 is MaskablePPO, not Toy" in refused.stderr
    hydra = ("python", "-m", "heteromark.training.factory_train", "agent=toy_agent_v1")
    shown = project.run(*hydra, "agent.toy.strength=0.125", "--dry-run", own_process=True).stdout
    assert "strength: 0.125" in shown
