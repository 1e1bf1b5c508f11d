"""A made-up knowledge base, questions that combine its facts, and a search over its passages."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

MAX_DRAWS = 1_000
# What is told of each kind of entity, and of which kind that is.
RELATIONS = {
    "land": {"capital": "town", "ruler": "person"},
    "town": {"founder": "person", "port": "town"},
    "person": {"birthplace": "town", "teacher": "person"},
}
_CONSONANTS, _VOWELS, _LAST = "bdfgklmnprstvz", "aeiou", "klmnrs"
_OF_EVERY_SENTENCE = ("the", "of", "is")
_WORD = re.compile("[a-z]+")


@dataclass(frozen=True)
class Knowledge:
    """Facts and the passages that tell them.

    Attributes:
        facts: by entity, in the order of the passages: by relation, the entity that is told.
    """

    facts: dict[str, dict[str, str]]

    @cached_property
    def passages(self) -> list[str]:
        """One for each entity."""
        return [
            " ".join(f"The {relation} of {name} is {told}." for relation, told in facts.items())
            for name, facts in self.facts.items()
        ]

    @cached_property
    def names(self) -> list[str]:
        """The entities, in the order of their passages."""
        return list(self.facts)

    def search(self, query: str, n_passages: int) -> list[int]:
        """The numbers of the passages that fit a query best, best first; none that does not fit.

        Each different word of the query that a passage has adds the word's inverse document
        frequency, the more the oftener it is there, with diminishing returns: BM25 (Robertson and
        Zaragoza, 2009) without its correction for length, as all passages are equally long. Words
        of every sentence add nothing. Of equals, the first passages are found.
        """
        scores: dict[int, float] = {}
        for word in dict.fromkeys(_WORD.findall(query.lower())):
            found = self._occurrences.get(word, {})
            for number, times in found.items():
                rarity = math.log1p(len(self.names) / len(found))
                scores[number] = scores.get(number, 0.0) + rarity * times / (times + 1)
        best = sorted(scores, key=lambda number: (-scores[number], number))
        return best[:n_passages]

    @cached_property
    def _occurrences(self) -> dict[str, dict[int, int]]:
        """By word: how often it occurs, by the numbers of the passages where it does."""
        occurrences: dict[str, dict[int, int]] = {}
        for number, passage in enumerate(self.passages):
            for word, times in Counter(_WORD.findall(passage.lower())).items():
                if word in _OF_EVERY_SENTENCE:
                    continue
                occurrences.setdefault(word, {})[number] = times
        return occurrences


@dataclass(frozen=True)
class Question:
    """A question, and how to come by its answer.

    Attributes:
        text: the question.
        path: the entities whose passages must be known, in this order.
        answer: the entity that the last of them tells.
    """

    text: str
    path: tuple[str, ...]
    answer: str


def draw_knowledge(generator: random.Random, n_entities: int) -> Knowledge:
    """Random facts about entities with random names; 4 or more."""
    n_lands = n_entities // 5
    n_towns = (n_entities - n_lands) // 2
    kinds = ["land"] * n_lands + ["town"] * n_towns
    kinds += ["person"] * (n_entities - len(kinds))
    words = {word for relations in RELATIONS.values() for word in relations}
    names: dict[str, None] = {}
    while len(names) < n_entities:
        name = _draw_name(generator)
        if name.lower() not in words:
            names[name] = None
    kind_of = dict(zip(names, kinds, strict=True))
    facts = {
        name: {
            relation: generator.choice([x for x in names if x != name and kind_of[x] == told])
            for relation, told in RELATIONS[kind].items()
        }
        for name, kind in kind_of.items()
    }
    return Knowledge(dict(generator.sample(list(facts.items()), n_entities)))


def _draw_name(generator: random.Random) -> str:
    syllables = [generator.choice(_CONSONANTS) + generator.choice(_VOWELS) for _ in range(2)]
    return ("".join(syllables) + generator.choice(_LAST)).capitalize()


def draw_question(
    generator: random.Random, n_entities: int, hops: int
) -> tuple[Knowledge, Question]:
    """A question for which so many facts must be combined, and the knowledge base that has them.

    No entity on the way to the answer occurs twice, so that each fact is told by another passage.

    Raises:
        ValueError: there is hardly any such question.
    """
    for _ in range(MAX_DRAWS):
        knowledge = draw_knowledge(generator, n_entities)
        path = [generator.choice(knowledge.names)]
        relations = []
        for _ in range(hops):
            relation, told = generator.choice(list(knowledge.facts[path[-1]].items()))
            relations.append(relation)
            path.append(told)
        if len(set(path)) == len(path):
            asked = " ".join(f"the {relation} of" for relation in reversed(relations))
            text = f"Who or what is {asked} {path[0]}?"
            return knowledge, Question(text, tuple(path[:-1]), path[-1])
    raise ValueError(
        f"search has no question of {hops} hops over {n_entities} entities among {MAX_DRAWS:,} "
        "draws: raise entities or lower hops"
    )
