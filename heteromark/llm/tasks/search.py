"""Search: a searcher finds passages, a reasoner answers a question by combining their facts."""

from __future__ import annotations

import random

from heteromark.config.models.tasks import SearchConfig
from heteromark.llm.tasks.base import MALFORMED, Reward, Role, Task, TurnProblem, last_line
from heteromark.llm.tasks.registry import TASKS
from heteromark.llm.tasks.search_knowledge import Knowledge, Question, draw_question

# A reasoner's last line with this prefix is a query. A reasoner that works alone needs it.
SEARCH = "search:"

ROLES = {
    "searcher": Role(
        (
            "{question}\nFound:\n{passages}\nNext query:\n",
            "Help to answer a question by searching.\n"
            "{question}\n"
            "Known so far:\n{passages}\n"
            "Think if you like. The last line is the query, such as one name:\n",
            "Question: {question}\n"
            "Passages:\n{passages}\n"
            "Not the answer: {wrong}\n"
            "What should be looked up now? Last line: a name or a few words.\n",
        )
    ),
    "reasoner": Role(
        (
            f"{{question}}\nFound:\n{{passages}}\nAnswer with one name, or {SEARCH} and a query:\n",
            "Answer the question from the passages.\n"
            "{question}\n"
            "Passages:\n{passages}\n"
            "Think if you like. The last line is one name and nothing else"
            f" (or {SEARCH} and a query, to see more passages):\n",
            "Question: {question}\n"
            "Passages:\n{passages}\n"
            "Not the answer: {wrong}\n"
            f"Last line: the name that is the answer, or {SEARCH} and the name to look up.\n",
        )
    ),
}


class SearchProblem(TurnProblem):
    """A question about a knowledge base, the passages found, and the wrong answers so far.

    Args:
        knowledge: the knowledge base.
        question: the question and its answer.
        n_passages: maximum number of passages per search.
    """

    roles = ROLES

    def __init__(self, knowledge: Knowledge, question: Question, n_passages: int) -> None:
        self._knowledge, self._question, self._n_passages = knowledge, question, n_passages
        self._found: tuple[int, ...] = ()
        self._wrong: tuple[str, ...] = ()
        self._is_solved = False

    @property
    def key(self) -> str:
        return "\n".join([self._question.text, *self._knowledge.passages])

    @property
    def is_solved(self) -> bool:
        return self._is_solved

    def fields(self, role: str) -> dict[str, str]:
        self.check_role(role)
        passages = self._knowledge.passages
        return {
            "question": self._question.text,
            "passages": "\n".join(passages[number] for number in self._found) or "nothing",
            "wrong": ", ".join(self._wrong) or "none",
        }

    def act(self, role: str, response: str) -> Reward:
        self.check_turn(role)
        line = last_line(response)
        if role == "searcher":
            return self._search(line)
        if line[: len(SEARCH)].lower() == SEARCH:
            return self._search(line[len(SEARCH) :].strip())
        return self._answer(line)

    def demonstration(self, role: str) -> str:
        self.check_role(role)
        if role == "reasoner":
            return self._question.answer
        return next(iter(self._missing()), self._question.answer)

    def _search(self, query: str) -> Reward:
        """Add passages; the reward is the share of needed passages that are newly found."""
        if not query:
            return MALFORMED
        missing = len(self._missing())
        best = self._knowledge.search(query, self._n_passages)
        self._found = tuple(dict.fromkeys([*self._found, *best]))
        found_now = missing - len(self._missing())
        return Reward(found_now / len(self._question.path), local=0.0)

    def _answer(self, answer: str) -> Reward:
        """Check an answer; the reward is 1 if it is exactly the right name."""
        names = {name.casefold(): name for name in self._knowledge.names}
        name = names.get(answer.casefold())
        if name is None:
            return MALFORMED
        self._is_solved = name == self._question.answer
        if not self._is_solved:
            self._wrong = tuple(dict.fromkeys([*self._wrong, name]))
        return Reward(float(self._is_solved), local=0.0)

    def _missing(self) -> list[str]:
        """Return the entities on the path to the answer whose passages are missing, in order."""
        found = {self._knowledge.names[number] for number in self._found}
        return [name for name in self._question.path if name not in found]


@TASKS.register("search")
class SearchTask(Task):
    """Questions with a new knowledge base each, so that answers cannot be memorised.

    Args:
        config: the number of entities, facts to combine and passages per search.
    """

    name = "search"
    roles = ROLES

    def __init__(self, config: SearchConfig) -> None:
        self._config = config

    def draw(self, generator: random.Random) -> SearchProblem:
        config = self._config
        knowledge, question = draw_question(generator, config.entities, config.hops)
        return SearchProblem(knowledge, question, config.passages)
