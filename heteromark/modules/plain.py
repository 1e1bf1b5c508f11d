"""Networks, actors and losses on plain tensors, for the loops that run them thousands of times.

For small networks, TensorDict's dispatch takes longer than the arithmetic. What is made here of a
network or a LossModule gives the same numbers. A class that is not known here is not touched: it is
used as it is, and is slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import (
    ProbabilisticTensorDictModule,
    TensorDictModule,
    TensorDictModuleBase,
    TensorDictSequential,
)
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution
from torchrl.modules import MaskedCategorical, ProbabilisticActor
from torchrl.objectives import ClipPPOLoss, LossModule
from torchrl.objectives.multiagent import IPPOLoss, MAPPOLoss

from heteromark.loss.happo import HAPPOLoss, UnclippedLoss, aggregate_log_ratio
from heteromark.loss.value import ValueLoss

Tensors = Mapping[NestedKey, Tensor]
# Losses of a minibatch by name; the second argument says that all of its steps count.
PlainLoss = Callable[[Tensors, bool], dict[str, Tensor]]
_CLIPPED = (HAPPOLoss, UnclippedLoss, ClipPPOLoss, IPPOLoss, MAPPOLoss)


@dataclass(frozen=True)
class PlainNetwork:
    """What a TensorDictModule, or a sequence of them, computes.

    Attributes:
        steps: the modules in order, each with the keys that it reads and those that it writes.
    """

    steps: tuple[tuple[nn.Module, tuple[NestedKey, ...], tuple[NestedKey, ...]], ...]

    @classmethod
    def of(cls, network: nn.Module) -> PlainNetwork | None:
        """Return the network's plain form; None: a part of it is another kind of module."""
        parts = [*_parts(network)]
        if not all(_is_plain(part) for part in parts):
            return None
        return cls(tuple(_as_step(part) for part in parts))

    def __call__(self, entries: Tensors) -> dict[NestedKey, Tensor]:
        """Return the entries of a batch, and those that the network writes."""
        known = dict(entries)
        for module, read, written in self.steps:
            outputs = module(*[known.get(key) for key in read])
            if isinstance(outputs, Tensor):
                outputs = (outputs,)
            known.update(zip(written, outputs, strict=True))
        return known


def _as_step(part: Any) -> tuple[nn.Module, tuple[NestedKey, ...], tuple[NestedKey, ...]]:
    return part.module, tuple(part.in_keys), tuple(part.out_keys)


def _is_plain(part: Any) -> bool:
    """Whether a module does nothing but call another one with entries of a batch."""
    if type(part) is not TensorDictModule:
        return False
    return not (part._kwargs or part.method_kwargs) and part.method in (None, "__call__", "forward")


def _parts(network: Any) -> Iterator[Any]:
    if type(network) is TensorDictSequential:
        for each in network.module:
            yield from _parts(each)
    else:
        yield network


@dataclass(frozen=True)
class PlainActor:
    """What a ProbabilisticActor computes: a distribution, actions and their log-probabilities.

    Attributes:
        network: writes the distribution's parameters.
        head: chooses the action.
        memory: keys of hidden states that the network writes.
    """

    network: PlainNetwork
    head: ProbabilisticTensorDictModule
    memory: tuple[NestedKey, ...]

    @classmethod
    def of(cls, actor: Any) -> PlainActor | None:
        """Return the actor's plain form; None: a part of it is another kind of module."""
        if type(actor) is not ProbabilisticActor:
            return None
        *modules, head = actor.module
        network = PlainNetwork.of(TensorDictSequential(*modules))
        if network is None or not isinstance(head, ProbabilisticTensorDictModule):
            return None
        written = [key for _, _, keys in network.steps for key in keys]
        memory = tuple(key for key in written if key[0] == "next")
        return cls(network, head, memory)

    def distribution(self, entries: Tensors) -> Distribution:
        """Return the distribution of the actions."""
        return self._distribution(self.network(entries))

    def act(self, entries: Tensors, is_deterministic: bool = False) -> dict[NestedKey, Tensor]:
        """Choose actions; return them, their log-probabilities and the next hidden states.

        Args:
            entries: what the actor reads.
            is_deterministic: choose the most likely actions. Otherwise they are drawn.
        """
        known = self.network(entries)
        distribution = self._distribution(known)
        if is_deterministic:
            action = getattr(distribution, "deterministic_sample", None)
            action = distribution.mode if action is None else action
        else:
            action = distribution.rsample() if distribution.has_rsample else distribution.sample()
        return {
            self.head.out_keys[0]: action,
            self.head.log_prob_key: distribution.log_prob(action),
            **{key: known[key] for key in self.memory},
        }

    def _distribution(self, known: Tensors) -> Distribution:
        names = zip(self.head.dist_keys, self.head.in_keys, strict=True)
        parameters = {name: known[key] for name, key in names}
        if self.head.distribution_class in (MaskedCategorical, Categorical):
            return LeanCategorical(**parameters)
        made: Distribution = self.head.distribution_class(
            **parameters, **self.head.distribution_kwargs
        )
        return made


class LeanCategorical(Distribution):
    """A categorical distribution that computes its log-probabilities once.

    Args:
        logits: [..., n], of any offset.
        mask: bool [..., n], possible outcomes; None: all.
    """

    def __init__(self, logits: Tensor, mask: Tensor | None = None) -> None:
        if mask is not None:
            logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
        self.logits = logits.log_softmax(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return one outcome, [...]."""
        rows = self.logits.exp().flatten(0, -2)
        return torch.multinomial(rows, 1, True).view(self.logits.shape[:-1])

    @property
    def mode(self) -> Tensor:
        """The most likely outcome, [...]; of several, the first."""
        return self.logits.argmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.logits.gather(-1, value.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self.logits.exp() * self.logits).sum(-1)


class PlainPolicy(TensorDictModuleBase):
    """All actors of a run in one module that samples actions, for collectors.

    It writes actions, log-probabilities and hidden states, but not the distributions' parameters.
    """

    def __init__(self, actors: Mapping[str, TensorDictModuleBase], plain: list[PlainActor]) -> None:
        super().__init__()
        self.actors = nn.ModuleList(actors.values())  # so that their weights are found
        self._plain = plain
        self.in_keys = [*dict.fromkeys(key for each in actors.values() for key in each.in_keys)]
        self.out_keys = [
            key
            for each in plain
            for key in (each.head.out_keys[0], each.head.log_prob_key, *each.memory)
        ]

    def forward(self, batch: TensorDictBase) -> TensorDictBase:
        entries = {key: batch.get(key) for key in self.in_keys}
        for actor in self._plain:
            for key, tensor in actor.act(entries).items():
                batch.set(key, tensor)
        return batch


def plain_actors(actors: Mapping[str, TensorDictModuleBase]) -> list[PlainActor] | None:
    """Return the plain forms of all actors; None: one of them has none."""
    found = [PlainActor.of(actor) for actor in actors.values()]
    known = [actor for actor in found if actor is not None]
    return known if len(known) == len(found) else None


def as_policy(actors: Mapping[str, TensorDictModuleBase]) -> TensorDictModuleBase:
    """Return one module of all actors, in its plain form if there is one."""
    plain = plain_actors(actors)
    return TensorDictSequential(*actors.values()) if plain is None else PlainPolicy(actors, plain)


def plain_loss(loss: LossModule, network: nn.Module) -> PlainLoss | None:
    """Return the losses of a LossModule as a function; None: its class is not known here.

    Args:
        loss: made by `LossFactory`.
        network: the actor or critic that it trains.
    """
    if type(loss) is ValueLoss:
        critic = PlainNetwork.of(network)
        return None if critic is None else _value_loss(loss, critic)
    actor = PlainActor.of(network)
    if type(loss) not in _CLIPPED or actor is None:
        return None
    return _clipped_loss(loss, actor)


def _clipped_loss(loss: ClipPPOLoss, actor: PlainActor) -> PlainLoss:
    keys, counts_key = loss.tensor_keys, loss.loss_mask_key
    factor_key = getattr(keys, "factor", None)
    low, high = (float(bound) for bound in loss._clip_bounds)
    entropy_coefficient = float(loss.entropy_coeff) if loss.entropy_bonus else 0.0

    def losses(entries: Tensors, all_count: bool) -> dict[str, Tensor]:
        counts, advantage = entries[counts_key], entries[keys.advantage]
        shape = advantage.shape[:-1]
        if factor_key is not None:
            advantage = advantage * entries[factor_key]
        distribution = actor.distribution(entries)
        change = distribution.log_prob(entries[keys.action]) - entries[keys.sample_log_prob]
        if change.dim() > len(shape):
            change = aggregate_log_ratio(change, loss.action_aggregation)
        advantage = advantage.squeeze(-1)
        gain = torch.min(change.exp() * advantage, change.clamp(low, high).exp() * advantage)
        found = {"loss_objective": _mean(-gain, counts, all_count)}
        if entropy_coefficient:
            entropy = loss._get_entropy(distribution, shape).squeeze(-1)
            found["loss_entropy"] = _mean(-entropy_coefficient * entropy, counts, all_count)
        return found

    return losses


def _value_loss(loss: ValueLoss, critic: PlainNetwork) -> PlainLoss:
    keys, counts_key = loss.tensor_keys, loss.loss_mask_key

    def losses(entries: Tensors, all_count: bool) -> dict[str, Tensor]:
        value = critic(entries)[keys.value]
        before = entries[keys.value_before] if loss.clip_epsilon is not None else None
        distance = loss.distance(value, entries[keys.value_target], before)
        mean = _mean(distance.squeeze(-1), entries[counts_key], all_count)
        return {"loss_critic": loss.coefficient * mean}

    return losses


def _mean(loss: Tensor, counts: Tensor, all_count: bool) -> Tensor:
    """Return the mean over the steps that count."""
    if all_count:
        return loss.sum() / loss.numel()
    mask = counts.to(loss.dtype)
    return (loss * mask).sum() / mask.sum()


def shuffled(data: TensorDict, epochs: int, size: int) -> Iterable[dict[NestedKey, Tensor]]:
    """Yield the minibatches of all epochs, each a new order of the rows.

    Args:
        data: [rows, ...].
        epochs: passes over the rows.
        size: rows of a minibatch; the last one of an epoch may have fewer.
    """
    entries: dict[Any, Tensor] = {key: data.get(key) for key in data.keys(True, True)}
    order = torch.randperm(len(data), device=data.device)
    for _ in range(epochs):
        *earlier, last = order.split(size)
        for rows in earlier:
            yield {key: tensor.index_select(0, rows) for key, tensor in entries.items()}
        # TorchRL's sampler too draws the next order with an epoch's last minibatch.
        order = torch.randperm(len(data), device=data.device)
        yield {key: tensor.index_select(0, last) for key, tensor in entries.items()}
