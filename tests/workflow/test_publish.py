"""The files of a run that are published."""

from __future__ import annotations

import pytest

from heteromark.workflow.publish import _stamped, publish_run

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


def test_no_stamp_vouches_for_files_of_other_inputs(tmp_path):
    """Whenever a step is killed: with old parameters again, Snakemake would trust the old stamp."""
    for digest in ("a", "b"):
        with _stamped(tmp_path, digest, {"of": digest}):
            assert not [*tmp_path.glob("inputs-*.json")]
            (tmp_path / "table.csv").write_text(digest)
        assert [path.name for path in tmp_path.glob("inputs-*.json")] == [f"inputs-{digest}.json"]
    with pytest.raises(KeyboardInterrupt), _stamped(tmp_path, "c", {}):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
