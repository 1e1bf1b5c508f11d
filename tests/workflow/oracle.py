"""Compute what a project's results must be, without its results, its run store or its workflow.

Run in a project's folder with `HETEROMARK_TRAINER=stub`: prints JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, "")

from heteromark.commands import stub
from heteromark.config.compose.composition import compose_run, load_params
from heteromark.config.compose.layers import resolve_sweep
from heteromark.runs.digest import config_digest

STATISTICS = {"iqm": statistics.mean, "mean": statistics.mean, "min": min}  # of two seeds


def main() -> None:
    params = load_params(Path(), None)
    base = Path(params.sweep.base_config) if params.sweep.base_config else None
    agents = resolve_sweep(params.sweep.agents, params, Path(), None, base, None)

    def figures(resolved, mode, seed, frames):
        config = compose_run(
            resolved.agent,
            params,
            mode,
            seed,
            Path(),
            overrides={"training": {"total_frames": frames}},
            agent_file=str(resolved.path),
        )
        with tempfile.TemporaryDirectory() as folder:
            summary = stub.train(config, Path(folder)).summary
        return config_digest(config), {
            "evaluation_return": summary.evaluation_return,
            "final_return": summary.final_return,
        }

    batch = agents[0].agent.n_steps
    rungs = [-(-frames // batch) * batch for frames in params.rungs]
    entrants = {each.agent.short_name: each for each in agents}
    metric, statistic = params.selection.metric, STATISTICS[params.selection.statistic]
    runs, scores, names_of = {}, {}, {}
    for number, frames in enumerate(rungs):
        scores = {}
        for name, resolved in sorted(entrants.items()):
            per_seed = {s: figures(resolved, "smoke", s, frames) for s in params.smoke.seeds}
            digest = next(iter(per_seed.values()))[0]
            if digest in names_of.values() and names_of.get(name) != digest:
                continue  # resolves to the same config as an earlier one
            names_of[name] = digest
            runs[name] = {
                str(seed): {"config_digest": digest, **found}
                for seed, (digest, found) in per_seed.items()
            }
            scores[name] = statistic([found[metric] for _, found in per_seed.values()])
        if number + 1 < len(rungs):
            best = sorted(scores, key=scores.get, reverse=True)
            kept = best[: max(1, len(scores) // params.sweep.halving.eta)]
            entrants = {name: entrants[name] for name in kept}
            names_of = {}
    winner = max(scores, key=scores.get)
    long = [
        figures(entrants[winner], "full", seed, params.full.total_frames)
        for seed in params.full.seeds
    ]
    best = max(found["evaluation_return"] for _, found in long)
    print(json.dumps({"runs": runs, "winner": winner, "score": scores[winner], "model": best}))


main()
