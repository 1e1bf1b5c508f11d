"""ComponentFactory: the same config gives the same components; a config that does not fit fails."""

from __future__ import annotations

import pytest
import torch
from engine_config import make_config

from heteromark.training.components import ComponentFactory
from heteromark.training.device import resolve_device


def test_initial_weights_depend_on_the_seed():
    def first_layer(seed):
        actors = ComponentFactory(make_config(seed=seed)).create().learner.actors
        return next(actors["listener"].parameters())

    assert (first_layer(0) == first_layer(0)).all()
    assert (first_layer(0) != first_layer(1)).any()


def test_threads_are_as_configured():
    ComponentFactory(make_config(training__num_threads=1)).create()
    assert torch.get_num_threads() == 1


def test_a_loss_of_another_algorithm_is_rejected():
    with pytest.raises(ValueError, match=r"loss_type = 'ippo': selects IPPO, but .* is HAPPO"):
        ComponentFactory(make_config(loss_type="ippo")).create()


RELAY = {"algorithm": "IPPO", "environment__task": "toy_environments:ToyRelay"}


@pytest.mark.parametrize(
    ("evaluation", "environment", "message"),
    [
        ({"opponent": "random"}, {}, "evaluation.opponent is random, but .* at once.*=null"),
        ({"seat": "first"}, {}, "evaluation.seat is first, but .* at once.* evaluation.seat=null"),
        (
            {"opponent": "heuristic"},
            RELAY,
            "evaluation.opponent is heuristic, but there is no built-in heuristic for 'relay' .*random",
        ),
    ],
)
def test_an_evaluation_that_does_not_fit_is_rejected_before_training(
    evaluation, environment, message
):
    config = make_config(evaluation=evaluation, **environment)
    with pytest.raises(ValueError, match=message):
        ComponentFactory(config).create()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported():
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(
        ValueError, match=r"device is cuda, but torch sees no CUDA GPU.*device=auto"
    ):
        resolve_device("cuda")
