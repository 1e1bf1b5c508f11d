"""Grouping of agents."""

from __future__ import annotations

import pytest

from heteromark.environment.groups import group_agents

AGENTS = ["marine_0", "medivac_0", "marine_1", "scout"]


def test_by_prefix():
    assert group_agents(AGENTS) == {
        "marine": ("marine_0", "marine_1"),
        "medivac": ("medivac_0",),
        "scout": ("scout",),
    }


def test_by_agent():
    assert group_agents(AGENTS, "agent") == {agent: (agent,) for agent in AGENTS}


def test_explicit_groups_keep_their_order():
    groups = {"b": ["scout", "marine_1"], "a": ["marine_0", "medivac_0"]}
    assert list(group_agents(AGENTS, "prefix", groups).items()) == [
        ("b", ("scout", "marine_1")),
        ("a", ("marine_0", "medivac_0")),
    ]


def test_split_groups_are_named_by_their_agents():
    assert group_agents(AGENTS, split=True) == {
        agent: (agent,) for agent in ("marine_0", "marine_1", "medivac_0", "scout")
    }
    with pytest.raises(ValueError, match="cannot be called 'state'"):
        group_agents(["state"], groups={"all": ["state"]}, split=True)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"all": [*AGENTS, "ghost"]}, "names unknown agent 'ghost'"),
        ({"all": AGENTS[:3]}, "leaves out scout"),
        ({"next": AGENTS}, "cannot be called 'next'"),
        ({"all": AGENTS, "more": ["scout"]}, "'scout' in group 'all' and in group 'more'"),
    ],
)
def test_invalid_groups_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        group_agents(AGENTS, "prefix", groups)
