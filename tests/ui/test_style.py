"""Colours and dashes of configs."""

from __future__ import annotations

import pytest

from heteromark.ui.drawing.style import DASHES, styles_of
from heteromark.workflow.colours import PALETTE

KNOWN = [f"config{index:02}" for index in range(40)]


def test_config_keeps_its_colour_in_other_charts():
    alone = styles_of(["config03"], KNOWN)["config03"]
    among = styles_of(["config01", "config03", "config05"], KNOWN)["config03"]
    later = styles_of(["config03"], [*KNOWN, "new"])["config03"]
    assert alone.colour == among.colour == later.colour == PALETTE[3]


def test_two_configs_share_no_colour_while_one_is_free():
    styles = styles_of(["config00", "config07"], KNOWN)
    assert styles["config00"].colour == PALETTE[0]
    assert styles["config07"].colour == PALETTE[1]


@pytest.mark.parametrize("number", [2, 7, 12, 28])
def test_no_two_lines_look_alike(number):
    styles = styles_of(KNOWN[:number], KNOWN)
    assert len(set(styles.values())) == number


def test_few_lines_also_differ_in_dashes():
    styles = styles_of(["config00", "config04", "config08", "config12"], KNOWN)
    assert len({style.dash for style in styles.values()}) == len(DASHES)


def test_unknown_config_has_a_style():
    assert styles_of(["elsewhere"], KNOWN)["elsewhere"].colour in PALETTE
