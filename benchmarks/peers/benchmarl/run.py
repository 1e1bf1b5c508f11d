"""Time BenchMARL's MAPPO on simple_spread, in a separate virtual environment.

    python run.py --iterations 3
    python run.py --versions

Prints JSON as its last line: the seconds of collection, of training and in total for every
iteration; with --versions, the versions of the packages. `benchmarks/throughput.py` calls this
script. For its packages, see requirements.txt in this folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import types
import warnings
from importlib import metadata

import mpe2.simple_spread_v3
import torch

# TorchRL 0.11 looks for the MPE tasks in this module of PettingZoo, but they have moved to MPE2. So
# replace the module by one with the measured task. This runs at import, because worker processes
# import this file, too.
sys.modules["pettingzoo.utils.all_modules"] = types.SimpleNamespace(
    all_environments={"simple_spread_v3": mpe2.simple_spread_v3}
)
# The C++ extension of TorchRL 0.11 does not work with this torch; it is not needed here.
warnings.filterwarnings("ignore")

from benchmarl.algorithms import MappoConfig  # noqa: E402
from benchmarl.environments import PettingZooTask  # noqa: E402
from benchmarl.experiment import Callback, Experiment, ExperimentConfig  # noqa: E402
from benchmarl.models.mlp import MlpConfig  # noqa: E402

VERSIONED = ("benchmarl", "torch", "torchrl", "tensordict", "pettingzoo", "mpe2", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--iterations", type=int, default=3, help="number of timed iterations")
    parser.add_argument("--envs", type=int, default=20, help="copies of the environment")
    parser.add_argument("--frames", type=int, default=4000, help="frames of one iteration")
    parser.add_argument("--epochs", type=int, default=5, help="passes over the frames")
    parser.add_argument("--minibatch", type=int, default=4000, help="frames of one minibatch")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 128], help="layer sizes")
    parser.add_argument("--max-cycles", type=int, default=25, help="frames of an episode")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument(
        "--parallel", action="store_true", help="one process per copy (parallel_collection)"
    )
    parser.add_argument("--versions", action="store_true", help="only print the versions")
    arguments = parser.parse_args()
    if arguments.versions:
        print(json.dumps({name: metadata.version(name) for name in VERSIONED}))
        return
    torch.set_num_threads(arguments.threads)
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        make_experiment(arguments, folder, stopwatch).run()
    print(json.dumps(stopwatch.iterations[1:]))  # the first iteration allocates memory


class Stopwatch(Callback):
    """Record BenchMARL's timers, which it passes to its loggers after every iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.iterations: list[dict[str, float]] = []

    def on_setup(self) -> None:
        log = self.experiment.logger.log
        ended = time.perf_counter()

        def log_and_record(values: dict[str, float], step: int | None = None) -> None:
            nonlocal ended
            log(values, step=step)
            if "timers/iteration_time" in values:
                now = time.perf_counter()
                self.iterations.append(
                    {
                        "collection": values["timers/collection_time"],
                        "training": values["timers/training_time"],
                        "iteration": now - ended,
                    }
                )
                ended = now

        self.experiment.logger.log = log_and_record


def make_experiment(arguments: argparse.Namespace, folder: str, stopwatch: Stopwatch) -> Experiment:
    """Make an experiment with BenchMARL's defaults and our sizes, without evaluation and files."""
    task = PettingZooTask.SIMPLE_SPREAD.get_from_yaml()
    task.config["max_cycles"] = arguments.max_cycles
    config = ExperimentConfig.get_from_yaml()
    config.prefer_continuous_actions = False
    config.parallel_collection = arguments.parallel
    config.max_n_iters, config.max_n_frames = arguments.iterations + 1, None
    config.on_policy_n_envs_per_worker = arguments.envs
    config.on_policy_collected_frames_per_batch = arguments.frames
    config.on_policy_n_minibatch_iters = arguments.epochs
    config.on_policy_minibatch_size = arguments.minibatch
    config.evaluation = config.render = config.create_json = False
    config.loggers = []
    config.save_folder = folder
    actor, critic = (
        MlpConfig(
            num_cells=arguments.hidden,
            layer_class=torch.nn.Linear,
            activation_class=torch.nn.Tanh,
        )
        for _ in range(2)
    )
    return Experiment(
        task=task,
        algorithm_config=MappoConfig.get_from_yaml(),
        model_config=actor,
        critic_model_config=critic,
        seed=0,
        config=config,
        callbacks=[stopwatch],
    )


if __name__ == "__main__":
    main()
