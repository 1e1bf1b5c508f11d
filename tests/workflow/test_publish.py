"""The files of a run that are published."""

from __future__ import annotations

import pytest

from heteromark.workflow.publish import publish_run

FILES = ("checkpoint.pt", "config.yaml", "evaluation.json", "run.json")


@pytest.mark.parametrize("has_best", [True, False])
def test_a_model_has_the_best_weights_only_if_its_run_has_them(tmp_path, has_best):
    run, model = tmp_path / "run", tmp_path / "model"
    run.mkdir()
    for name in (*FILES, "metrics.csv", "train.log", *(["best.pt"] if has_best else [])):
        (run / name).write_text(f"this run's {name}")
    model.mkdir()
    (model / "best.pt").write_text("an earlier model's")
    publish_run(run, model)
    published = {path.name: path.read_text() for path in model.iterdir()}
    expected = (*FILES, "best.pt") if has_best else FILES
    assert published == {name: f"this run's {name}" for name in expected}
