"""A fictional knowledge base, questions that combine its facts, and a search over its passages."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

MAX_DRAWS = 1_000
# The relations of each kind of entity, and the kind of entity that each relation points to.
RELATIONS = {
    "land": {"capital": "town", "ruler": "person"},
    "town": {"founder": "person", "port": "town"},
    "person": {"birthplace": "town", "teacher": "person"},
}
_CONSONANTS, _VOWELS, _LAST = "bdfgklmnprstvz", "aeiou", "klmnrs"
_STOP_WORDS = ("the", "of", "is")
_WORD = re.compile("[a-z]+")


@dataclass(frozen=True)
class Knowledge:
    """Facts and their passages.

    Attributes:
        facts: by entity, in the order of the passages: the related entity of each relation.
    """

    facts: dict[str, dict[str, str]]

    @cached_property
    def passages(self) -> list[str]:
        """The passages, one per entity."""
        return [
            " ".join(f"The {relation} of {name} is {other}." for relation, other in facts.items())
            for name, facts in self.facts.items()
        ]

    @cached_property
    def names(self) -> list[str]:
        """The entities, in the order of their passages."""
        return list(self.facts)

    def search(self, query: str, n_passages: int) -> list[int]:
        """Return the indices of the best-matching passages, best first; only matching ones.

        The score is BM25 (Robertson and Zaragoza, 2009) without the length correction, as all
        passages are equally long: each distinct word of the query adds its inverse document
        frequency, weighted by its count in the passage with diminishing returns. Stop words add
        nothing. Ties go to the first passage.
        """
        scores: dict[int, float] = {}
        for word in dict.fromkeys(_WORD.findall(query.lower())):
            matches = self._occurrences.get(word, {})
            for number, times in matches.items():
                rarity = math.log1p(len(self.names) / len(matches))
                scores[number] = scores.get(number, 0.0) + rarity * times / (times + 1)
        best = sorted(scores, key=lambda number: (-scores[number], number))
        return best[:n_passages]

    @cached_property
    def _occurrences(self) -> dict[str, dict[int, int]]:
        """For each word, its count in every passage that contains it, by the passage's index."""
        occurrences: dict[str, dict[int, int]] = {}
        for number, passage in enumerate(self.passages):
            for word, times in Counter(_WORD.findall(passage.lower())).items():
                if word in _STOP_WORDS:
                    continue
                occurrences.setdefault(word, {})[number] = times
        return occurrences


@dataclass(frozen=True)
class Question:
    """A question and the path to its answer.

    Attributes:
        text: the question.
        path: the entities whose passages are needed, in this order.
        answer: the entity that the last of these passages names.
    """

    text: str
    path: tuple[str, ...]
    answer: str


def draw_knowledge(generator: random.Random, n_entities: int) -> Knowledge:
    """Draw random facts about entities with random names; at least 4 entities."""
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
            relation: generator.choice([x for x in names if x != name and kind_of[x] == target])
            for relation, target in RELATIONS[kind].items()
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
    """Draw a question that combines `hops` facts, and its knowledge base.

    No entity on the path to the answer occurs twice, so every fact is in a different passage.

    Raises:
        ValueError: No such question was found in `MAX_DRAWS` draws.
    """
    for _ in range(MAX_DRAWS):
        knowledge = draw_knowledge(generator, n_entities)
        path = [generator.choice(knowledge.names)]
        relations = []
        for _ in range(hops):
            relation, entity = generator.choice(list(knowledge.facts[path[-1]].items()))
            relations.append(relation)
            path.append(entity)
        if len(set(path)) == len(path):
            chain = " ".join(f"the {relation} of" for relation in reversed(relations))
            text = f"Who or what is {chain} {path[0]}?"
            return knowledge, Question(text, tuple(path[:-1]), path[-1])
    raise ValueError(
        f"search found no question with {hops} hops over {n_entities} entities in {MAX_DRAWS:,} "
        "draws: raise entities or lower hops"
    )
