"""Train the demo model and write it.

    python engine/train_demo.py --conversations F --questions F [F ...] --python-docs D [--compile]

Two stages: `base` learns the language from everything, `tune` then learns to answer shortly, to call functions and to
pass on what is too hard. Needs, in an environment of its own: torch 2.13, numpy, tokenizers, gguf, safetensors. Runs on
a GPU where torch finds one, else on the CPU. See src/stream_engine/demo/MODEL_CARD.md for the data and their licences.
"""

from __future__ import annotations

import argparse
import logging
import random
import time as clock
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from train import conversations, export, optimise, python_docs, questions, tokens, tool_calls, written
from train.network import Llama, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer
    from torch import Tensor
    from train.prose import Conversation

Rows = list[tuple[list[int], list[bool]]]
"""Conversations as token ids and, beside each id, whether the assistant wrote it."""

log = logging.getLogger("train_demo")
HERE = Path(__file__).parent
CARD = {
    "name": "STREAM demo",
    "description": "A very small chat model for demonstrations. Its answers are not to be believed.",
    "license": "cc-by-sa-4.0",
    "author": "The STREAM authors",
}


@dataclass(frozen=True)
class Batch:
    """Token ids `[rows, time + 1]`, loss weights `[rows, time]` and positions `[rows, time]`."""

    ids: Tensor
    weights: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Stage:
    """A stage of training: how much of each source it sees, in which order and how fast it learns."""

    name: str
    rate: float
    """Peak learning rate."""
    plateau: float
    """Share of the steps at the peak; after them the rate falls in a line."""
    end: float
    """Rate of the last step as a share of the peak."""
    chats: int
    """How often each chat is used per epoch, each time cut at other places."""
    documentation: float
    """Share of the questions from the documentation."""
    repeat: int
    facts: int
    loose: float
    """See `written.load`."""
    calls: int
    """Conversations with function calls."""
    exam: int
    """How often each exam question is used."""


BASE = Stage(
    "base", rate=4e-3, plateau=0.5, end=1 / 3, chats=2, documentation=1.0, repeat=6, facts=1, loose=0.0, calls=0, exam=0
)
TUNE = Stage(
    "tune",
    rate=4e-3 / 3,
    plateau=0.2,
    end=0.02,
    chats=1,
    documentation=0.25,
    repeat=10,
    facts=4,
    loose=0.25,
    calls=1500,
    exam=1,
)


def corpus(options: argparse.Namespace, stage: Stage) -> list[Conversation]:
    """Return the conversations of a stage."""
    seed, share_alike = options.seed, not options.no_share_alike
    chats: list[Conversation] = []
    for again in range(stage.chats):
        chats += conversations.load(options.conversations, seed + again, share_alike=share_alike)
    docs = python_docs.load(options.python_docs, seed) if options.python_docs else []
    docs = docs if stage.documentation == 1 else docs[:: round(1 / stage.documentation)]
    own = written.load(HERE / "train" / "written.txt", seed, stage.repeat, stage.facts, stage.loose)
    calls = list(tool_calls.conversations(seed, stage.calls))
    exam = questions.load(options.questions, seed, share_alike=share_alike) * stage.exam
    found = (chats, docs, own, calls, exam)
    log.info("%d chats, %d documentation, %d written, %d with calls, %d exam questions", *map(len, found))
    return [talk for part in found for talk in part]


def batches(rows: Rows, options: argparse.Namespace, context: int) -> Iterator[Batch]:
    """Yield batches without end: conversations shuffled per epoch, packed one after the other.

    A quarter of the rows gets a jump in their positions, so that distances up to `context` are seen in training.
    """
    rng = random.Random(options.seed)  # noqa: S311  (a seed, so that training can be repeated)
    ids: list[int] = []
    spoken: list[bool] = []
    made = 0
    while True:
        for index in rng.sample(range(len(rows)), len(rows)):
            ids += rows[index][0]
            spoken += rows[index][1]
            # Every tenth batch has few long rows instead of many short ones.
            count, time = (options.rows // 4, options.time * 4) if made % 10 == 9 else (options.rows, options.time)
            need = count * (time + 1)
            if len(ids) < need:
                continue
            table = torch.tensor(ids[:need]).view(count, time + 1)
            said = torch.tensor(spoken[:need]).view(count, time + 1)[:, 1:]
            ids, spoken = ids[need:], spoken[need:]
            positions = torch.arange(time).repeat(count, 1)
            for row in range(0, count, 4):
                positions[row, rng.randrange(1, time) :] += int((context - time) * rng.random() ** 2)
            made += 1
            yield Batch(table, torch.where(said, 1.0, options.prompt_weight), positions)


class Objective(nn.Module):
    """The weighted mean of the next-token losses; one module, so that torch.compile fuses all of it."""

    def __init__(self, network: Llama) -> None:
        """Wrap the network to be trained."""
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor, positions: Tensor, weights: Tensor) -> Tensor:
        """Return the loss of a batch, see `Batch`."""
        logits = self.network(ids[:, :-1], positions).flatten(0, 1).float()
        losses = functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
        return (losses * weights.flatten()).sum() / weights.sum()


def learning_rate(stage: Stage, step: int, steps: int) -> float:
    """Return the rate of a step: a rise over 40 steps, the plateau, a fall in a line."""
    left = (1 - step / steps) / (1 - stage.plateau)
    return stage.rate * min(1.0, (step + 1) / 40, stage.end + (1 - stage.end) * left)


def train(network: Llama, source: Iterator[Batch], stage: Stage, steps: int, options: argparse.Namespace) -> None:
    """Train for `steps` steps, counted from the checkpoint if there is one."""
    device = next(network.parameters()).device.type
    objective = Objective(network)
    run = torch.compile(objective, dynamic=False) if options.compile else objective
    optimisers = optimise.make(network, stage.rate)
    started, spent, first = clock.monotonic(), 0.0, 0
    checkpoint: Path | None = options.checkpoint
    if checkpoint and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        first, spent = state["step"], state["spent"]
        for _ in range(first):
            next(source)
        log.info("continuing at step %d", first)
    for step in range(first, steps):
        batch = next(source)
        now = learning_rate(stage, step, steps)
        with torch.autocast(device, torch.bfloat16):
            loss = run(batch.ids.to(device), batch.positions.to(device), batch.weights.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = now
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if step % 25 == 0 or step == steps - 1:
            total = spent + clock.monotonic() - started
            log.info("step %d loss %.3f rate %.5f minutes %.1f", step, loss.item(), now, total / 60)
        if checkpoint and step % 200 == 199:
            state = {"network": network.state_dict(), "optimisers": [o.state_dict() for o in optimisers]}
            torch.save({**state, "step": step + 1, "spent": spent + clock.monotonic() - started}, checkpoint)


def train_stage(network: Llama, tokenizer: Tokenizer, stage: Stage, steps: int, options: argparse.Namespace) -> None:
    """Train the network on the conversations of a stage."""
    rows = [tokens.encode(tokenizer, talk) for talk in corpus(options, stage)]
    log.info("%s: %d conversations, %d tokens", stage.name, len(rows), sum(len(ids) for ids, _ in rows))
    train(network, batches(rows, options, network.shape.context), stage, steps, options)


def arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--conversations", type=Path, help="conversations_dev.jsonl of the data folder")
    add("--python-docs", type=Path, help="folder of Python's documentation sources (*.rst, *.rst.txt)")
    add("--questions", type=Path, nargs="*", default=[], help="queries_dev.jsonl, stream_labels_dev.jsonl")
    add("--out", type=Path, default=HERE / "src" / "stream_engine" / "demo", help="folder of demo.gguf")
    add("--hf-dir", type=Path, help="also write a Hugging Face folder here")
    add("--weights", type=Path, help="begin with this Hugging Face folder, after the stage base")
    add("--no-share-alike", action="store_true", help="leave out the rows under CC-BY-SA-4.0")
    add("--seed", type=int, default=7)
    add("--steps", type=int, default=1600, help="steps of the stage base")
    add("--tune-steps", type=int, default=300)
    add("--rows", type=int, default=16, help="sequences of a batch")
    add("--time", type=int, default=256, help="tokens of a sequence")
    add("--prompt-weight", type=float, default=0.3, help="loss weight of tokens that the assistant did not write")
    add("--vocab", type=int, default=4096)
    add("--threads", type=int, default=1)
    add("--compile", action="store_true", help="use torch.compile (needs a C++ compiler)")
    add("--checkpoint", type=Path, help="file of the stage base, saved every 200 steps")
    options = parser.parse_args()
    if (options.tune_steps or not options.weights) and not options.conversations:
        parser.error("--conversations is needed for training")
    return options


def main() -> None:
    """Train, then write demo.gguf, the tokenizer files and, if asked, the Hugging Face folder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.weights:
        network, tokenizer = export.read_hf(options.weights)
    else:
        tokenizer = tokens.train((turn.text for talk in corpus(options, BASE) for turn in talk), options.vocab)
        network = Llama(Shape(vocab=tokenizer.get_vocab_size()))
    network = network.to(device)
    log.info("parameters: %d", sum(p.numel() for p in network.parameters()))
    if not options.weights:
        train_stage(network, tokenizer, BASE, options.steps, options)
    options.checkpoint = None
    if options.tune_steps:
        train_stage(network, tokenizer, TUNE, options.tune_steps, options)
    options.out.mkdir(parents=True, exist_ok=True)
    tokens.save(tokenizer, options.out, network.shape.context)
    export.write_gguf(options.out / "demo.gguf", network, tokenizer, CARD)
    log.info("wrote %s, %d bytes", options.out / "demo.gguf", (options.out / "demo.gguf").stat().st_size)
    if options.hf_dir:
        export.write_hf(options.hf_dir, network, tokenizer)


if __name__ == "__main__":
    main()
