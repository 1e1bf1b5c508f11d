"""How prompts become tokens: as bare text, or as messages in the chat template of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

# Marks the places at which text is tokenized in pieces. A private character: a text that contains
# it loses it.
_BREAK = "\ue000"
_THOUGHT, _END_OF_THOUGHT = "<think>", "</think>"


class PromptFormat:
    """Turns prompts into tokens, and the tokens of a response into the text that a task reads.

    Without a template, a prompt is bare text, as base models expect it. With a template, it is a
    conversation: an optional system message, the prompt as the user's message, and the beginning of
    the model's turn.

    Text that spells a control token, such as the end of a turn, stays text: it does not become that
    token. So a teammate's words cannot end a turn or forge one.

    Args:
        tokenizer: pads on the left.
        template: a Jinja template as in transformers; None: bare text.
        thinks: whether the template may ask the model to think before it answers.
        end_ids: tokens that end a response besides the tokenizer's end token and the template's end
            of turn.

    Attributes:
        end_ids: all tokens that end a response, sorted.

    Raises:
        ValueError: the template cannot render a user's message.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: str | None = None,
        thinks: bool = False,
        end_ids: Iterable[int] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.thinks = thinks
        self._control = self._control_tokens()
        self._end_of_thought = tokenizer.get_added_vocab().get(_END_OF_THOUGHT)
        self._merges_system = False
        ends = {tokenizer.eos_token_id, *end_ids}
        if template is not None:
            try:
                start = self._rendered([_message("user", "a")], asks=True)
            except TemplateError as error:
                raise ValueError(f"its chat template fails: {error}") from error
            self._starts_with_thought = start.rfind(_THOUGHT) > start.rfind(_END_OF_THOUGHT)
            self._merges_system = not self._takes_system_message()
            ends |= self._ends_of_turn()
        self.end_ids = tuple(sorted(ends))

    def pieces(self, prompt: str, system: str = "") -> list[str]:
        """Return a prompt as it is sent, in the pieces that are tokenized separately.

        Args:
            prompt: the text of a prompt.
            system: text that comes before it; empty: none. If the template has no system message,
                it becomes the beginning of the user's message.
        """
        prompt, system = self._broken(prompt), self._broken(system)
        if system and (self.template is None or self._merges_system):
            prompt, system = f"{system}\n\n{prompt}", ""
        if self.template is None:
            return prompt.split(_BREAK)
        messages = [_message("system", system.strip())] if system else []
        messages.append(_message("user", prompt.strip()))
        return self._rendered(messages, asks=True).split(_BREAK)

    def encode(self, prompts: Sequence[Sequence[str]]) -> list[list[int]]:
        """Return the tokens of prompts, given as `pieces`.

        Bare text gets the tokens that the tokenizer adds to every text. A template writes them.
        """
        encode, is_bare = self.tokenizer, self.template is None
        firsts = encode([first for first, *_ in prompts], add_special_tokens=is_bare).input_ids
        return [
            first + [token for piece in rest for token in self._tokens(piece)]
            for first, (_, *rest) in zip(firsts, prompts, strict=True)
        ]

    def read(self, response: Sequence[int]) -> tuple[str, str]:
        """Return a response as text, without the token that ends it, and what a task reads of it.

        A task reads what follows the thought, and nothing if the thought does not end.
        """
        ids = list(response)
        if ids and ids[-1] in self.end_ids:
            ids.pop()
        whole, end = self._text(ids), self._end_of_thought
        if self.template is None or end is None:
            return whole, whole
        if end in ids:
            return whole, self._text(ids[len(ids) - ids[::-1].index(end) :]).lstrip()
        return whole, "" if self._starts_with_thought or _THOUGHT in whole else whole

    def _control_tokens(self) -> re.Pattern[str] | None:
        """Return the pattern of tokens that text must not become; None: there is none.

        These are the special tokens, and those that the template writes. Other added tokens, such
        as runs of blanks, are text.
        """
        if getattr(self.tokenizer, "split_special_tokens", False):
            return None
        special, template = set(self.tokenizer.all_special_tokens), self.template or ""
        for token in self.tokenizer.added_tokens_decoder.values():
            text = str(token.content)
            if token.special or (text.strip() and text in template):
                special.add(text)
        longest_first = sorted(special, key=lambda text: (-len(text), text))
        return re.compile("|".join(map(re.escape, longest_first))) if special else None

    def _broken(self, text: str) -> str:
        """Return text with a break inside each control token that it spells."""
        text = text.replace(_BREAK, "")
        if self._control is None:
            return text
        parts = []
        while found := self._control.search(text):
            cut = found.start() + 1
            parts.append(text[:cut])
            text = text[cut:]
        return _BREAK.join([*parts, text])

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids if text else []

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _rendered(self, messages: Sequence[dict[str, str]], asks: bool) -> str:
        render: Any = self.tokenizer.apply_chat_template
        return render(
            list(messages),
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=asks,
            enable_thinking=self.thinks,
        )

    def _takes_system_message(self) -> bool:
        try:
            messages = [_message("system", _BREAK), _message("user", "a")]
            return _BREAK in self._rendered(messages, asks=True)
        except TemplateError:
            return False

    def _ends_of_turn(self) -> set[int]:
        """Return the token that the template writes after the model's turn, if any."""
        try:
            messages = [_message("user", "a"), _message("assistant", _BREAK)]
            after = self._rendered(messages, asks=False).rpartition(_BREAK)[2]
        except TemplateError:
            return set()
        found = self._control and self._control.match(after.lstrip())
        return {self.tokenizer.get_added_vocab()[found[0]]} if found else set()


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}
