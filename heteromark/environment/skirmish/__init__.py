"""Skirmish: battles of small teams as in SMACv2, in plain torch, without StarCraft II."""

from heteromark.environment.skirmish.env import SkirmishEnv

__all__ = ["SkirmishEnv"]
