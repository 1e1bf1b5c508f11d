"""Train BenchMARL's MAPPO on a task of VMAS, in a separate virtual environment with BenchMARL.

    python train.py REQUEST.json

`benchmarks/published.py` calls this script. The request has the keys

    task         name of BenchMARL's task, such as BALANCE, with its own settings
    values       experiment settings that differ from BenchMARL's defaults
    frames       frames to train, over all copies
    seed
    evaluate_at  frames after which the greedy policy plays `episodes` episodes
    episodes
    threads      threads of torch

Prints JSON as its last line: "curve", the [frames, mean return per agent of the episodes that
ended] of every iteration, and "evaluations", [frames, mean return]. For its packages, see
requirements.txt in this folder.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

# The C++ extension of TorchRL 0.11 does not work with this torch; it is not needed here.
warnings.filterwarnings("ignore")

from benchmarl.algorithms import MappoConfig  # noqa: E402
from benchmarl.environments import VmasTask  # noqa: E402
from benchmarl.experiment import Experiment, ExperimentConfig  # noqa: E402
from benchmarl.models.mlp import MlpConfig  # noqa: E402

_COLLECTED = "collection/reward/episode_reward_mean"
_EVALUATED = "eval/reward/episode_reward_mean"


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(request["threads"])
    config = ExperimentConfig.get_from_yaml()
    for name, value in request["values"].items():
        if not hasattr(config, name):
            sys.exit(f"BenchMARL's experiment has no setting {name!r}")
        setattr(config, name, value)
    size = config.on_policy_collected_frames_per_batch
    config.max_n_iters, config.max_n_frames = None, request["frames"]
    config.evaluation, config.evaluation_episodes = True, request["episodes"]
    config.evaluation_interval = size  # in frames; `evaluate` skips those that nobody asked for
    config.render = False
    config.create_json = True  # without it and loggers, an evaluation records nothing
    config.loggers = []
    with tempfile.TemporaryDirectory() as folder:
        config.save_folder = folder
        experiment = Experiment(
            task=getattr(VmasTask, request["task"]).get_from_yaml(),
            algorithm_config=MappoConfig.get_from_yaml(),
            model_config=MlpConfig.get_from_yaml(),
            critic_model_config=MlpConfig.get_from_yaml(),
            seed=request["seed"],
            config=config,
        )
        curve: list[tuple[int, float]] = []
        evaluations: list[tuple[int, float]] = []
        log, evaluate = experiment.logger.log, experiment._evaluation_loop

        def log_and_record(values: dict[str, Any], step: int | None = None) -> None:
            log(values, step=step)
            if _COLLECTED in values:
                curve.append((experiment.total_frames, float(values[_COLLECTED])))
            if _EVALUATED in values:
                evaluations.append((experiment.total_frames, float(values[_EVALUATED])))

        def evaluate_if_asked() -> None:
            now = experiment.total_frames
            if any(now - size < point <= now for point in request["evaluate_at"]):
                evaluate()

        experiment.logger.log = log_and_record
        experiment._evaluation_loop = evaluate_if_asked
        experiment.run()
    print(json.dumps({"curve": curve, "evaluations": evaluations}))


if __name__ == "__main__":
    main()
