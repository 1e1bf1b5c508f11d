"""Skirmish: battles of small teams as in SMACv2, in plain torch, without StarCraft II."""

from heteromark.environment.skirmish.env import SkirmishEnv
from heteromark.environment.skirmish.parallel import SkirmishParallelEnv
from heteromark.environment.skirmish.smac_api import SkirmishSMAC

__all__ = ["SkirmishEnv", "SkirmishParallelEnv", "SkirmishSMAC"]
