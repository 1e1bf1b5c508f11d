"""Text from configs and records is never shown as markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from heteromark.ui.drawing.html import (
    caption,
    card,
    duration,
    heading,
    list_card,
    literal,
    number,
    share,
    verbatim,
)

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "**bold** _it_ ~~gone~~ # no heading",
    "$\\frac{1}{2}$",
    ":material/home: :smile: :red[red]",
    "a -> b -- c",
    "`code` ``more`` ```",
    "`",
    "&lt;b&gt;",
    "</div><h1>out</h1>",
    '" onmouseover="alert(1)',
]


class ParsedHtml(HTMLParser):
    """The tags and the text of an HTML fragment."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize(
    "page",
    [
        lambda text: heading(text, small=text),
        lambda text: card(text, {text: text}),
        lambda text: list_card(text, [("good", text)]),
        caption,
        verbatim,
    ],
)
def test_text_never_changes_the_tags(page, nasty):
    plain, parsed = ParsedHtml(page("plain")), ParsedHtml(page(nasty))
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in plain.tags]
    assert all(set(names) <= {"class"} for _, names in parsed.tags)
    assert nasty in parsed.text


@pytest.mark.parametrize("nasty", NASTY)
def test_markdown_is_one_code_span(nasty):
    markdown = literal(nasty)
    fence = len(markdown) - len(markdown.lstrip("`"))
    assert markdown.endswith("`" * fence)
    inner = markdown[fence:-fence]
    # CommonMark: a code span ends at the next run of backticks with the same length.
    assert "`" * fence not in inner.replace("`" * (fence + 1), "")
    assert inner.strip() == nasty


def test_lines_are_joined():
    assert literal("a\n\n# b") == "`a # b`"
    assert literal("") == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "-"), (float("nan"), "-"), (1234.5, "1,234.50"), (-0.125, "-0.12")],
)
def test_numbers(value, expected):
    assert number(value) == expected


def test_shares_and_durations():
    assert (share(0.834), share(None)) == ("83%", "-")
    assert (duration(3723.4), duration(59.6), duration(None)) == ("1:02:03", "0:01:00", "-")
    assert duration(360_000) == "100:00:00"
