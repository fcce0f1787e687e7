"""What survives of long conversations in small windows, beside two baselines; a table, and JSON as the last line.

    make bench-summarizer [DATA=folder]

The real service is asked over gRPC, with the demo model's tokenizer, by extraction alone; nothing is fitted to the
folder. A budget is what may be left of the conversation, in tokens of the prompt; the question comes on top of it.
"Unknown": the conversation is condensed behind a last turn that says nothing, and asked about afterwards. Every
question weighs the same, however many messages carry its evidence.
"""

import argparse
import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from fitting_measures.baselines import Bm25, pairs, tail
from fitting_measures.service import Fit, Service, serving
from fitting_measures.survival import Tally, mean
from fitting_measures.talks import KINDS, Talk, read_talks
from tokenizers import Tokenizer

BUDGETS: Final = ("25", "10", "4096")
WAYS: Final = ("known", "unknown", "tail", "pairs")
NEUTRAL: Final = "Go on."
NEXT_TURNS: Final = 8
"""Of each chat whose further turns are timed."""
_TOKENIZER: Final = Path(__file__).parents[1] / "engine/src/stream_engine/demo"


class Bench:
    """Everything that is measured over a folder."""

    def __init__(self, service: Service, tokenizer: Tokenizer) -> None:
        self.tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
        self.over = 0
        self.unfit = 0
        self.first_ms: dict[str, list[float]] = defaultdict(list)
        self.next_ms: list[float] = []
        self._service = service
        self._tokenizer = tokenizer

    async def talk(self, talk: Talk) -> None:
        """Measure one conversation in every way and budget."""
        sizes = self._service.sizes(talk.messages)
        whole = self._service.tokens(talk.messages)
        asked = [self._service.sizes([{"content": question.text}])[0] for question in talk.questions]
        search = Bm25(talk.messages, sizes)
        seen = False
        for budget in BUDGETS:
            room = int(budget) if budget == "4096" else whole * int(budget) // 100
            for question, tokens in zip(talk.questions, asked, strict=True):
                fit = await self._service.fit(talk.messages, question.text, room + tokens, talk.id)
                self._check(fit)
                if not seen and fit.method != "METHOD_UNCHANGED":
                    self.first_ms[talk.kind].append(fit.took_ms)
                    seen = True
                self.tallies["known", budget].add(talk, question, fit.sent)
                self.tallies["bm25", budget].add(talk, question, search.keep(room, question.text))
            frame = self._service.sizes([{"content": NEUTRAL}])[0]
            blind = await self._service.fit(talk.messages, NEUTRAL, room + frame, talk.id)
            self._check(blind)
            sents = {
                "unknown": blind.sent,
                "tail": tail(talk.messages, sizes, room),
                "pairs": pairs(talk.messages, sizes, room, self._cut),
            }
            for way, sent in sents.items():
                for question in talk.questions:
                    self.tallies[way, budget].add(talk, question, sent)

    async def next_turns(self, talk: Talk) -> None:
        """Time one more turn after another, each with the answer of the one before it."""
        users = [at for at, message in enumerate(talk.messages) if message["role"] == "user"][-NEXT_TURNS - 1 :]
        for number, at in enumerate(users):
            history = talk.messages[:at]
            window = self._service.tokens(history) // 4
            fit = await self._service.fit(history, talk.messages[at]["content"], window, f"turns {talk.id}")
            if number:  # the first one has seen nothing of the chat yet
                self.next_ms.append(fit.took_ms)

    def _check(self, fit: Fit) -> None:
        if fit.messages:
            self.over += max(self._service.tokens(fit.messages) - fit.window, 0)
        else:
            self.unfit += 1

    def _cut(self, text: str, tokens: int) -> str:
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return str(self._tokenizer.decode(ids[: max(tokens, 0)]))

    def result(self) -> dict[str, Any]:
        """Build the last line."""
        ways = {way: {budget: self.tallies[way, budget].row() for budget in BUDGETS} for way in WAYS}
        stale = [mark for budget in BUDGETS for mark in self.tallies["known", budget].stale]
        return {
            **ways,
            "tokens_over_budget": self.over,
            "stale_fact_rate": mean(stale),
            "next_turn_p50_ms": quantile(self.next_ms, 50),
        }

    def table(self) -> None:
        """Print everything, and what the last line has no place for."""
        print(f"{'':8} {'':>6}  evidence recall (in its own line alone) | answer string recall")
        print(f"{'':8} {'budget':>6}  " + " ".join(f"{kind:>22}" for kind in KINDS))
        for budget in BUDGETS:
            for way in (*WAYS, "bm25"):
                tally = self.tallies[way, budget]
                cells = (
                    f"{_text(mean(tally.evidence[kind]))} ({_text(mean(tally.strict[kind]))}) |"
                    f" {_text(mean(tally.answers[kind]))}"
                    for kind in KINDS
                )
                print(f"{way:8} {budget:>6}  " + " ".join(f"{cell:>22}" for cell in cells))
        for kind, took in self.first_ms.items():
            print(f"first time, {kind}: p50 {quantile(took, 50)} ms, p99 {quantile(took, 99)} ms")
        print(
            f"one more turn, chats of the usual length: p50 {quantile(self.next_ms, 50)} ms,"
            f" p99 {quantile(self.next_ms, 99)} ms; {self.unfit} did not fit at all"
        )


def quantile(values: Sequence[float], percent: int) -> float | None:
    """Return a percentile; None of nothing."""
    return round(float(np.percentile(values, percent)), 2) if values else None


def _text(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


async def main() -> None:
    """Measure a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=_TOKENIZER, help="a folder with tokenizer.json")
    options = parser.parse_args()
    talks = read_talks(options.folder)
    began = time.perf_counter()
    async with serving(options.tokenizer) as service:
        bench = Bench(service, Tokenizer.from_file(str(options.tokenizer / "tokenizer.json")))
        for talk in talks:
            if talk.kind == "long_chat" and talk.window:
                await bench.next_turns(talk)
        for talk in talks:
            await bench.talk(talk)
    bench.table()
    questions = sum(len(talk.questions) for talk in talks)
    print(f"{len(talks)} conversations, {questions} questions, {time.perf_counter() - began:.0f} s")
    print(json.dumps(bench.result()))


if __name__ == "__main__":
    asyncio.run(main())
