"""The user's file while everything runs."""

import asyncio
import contextlib

import pytest

from stream_cli.follow import follow


class Watched:
    """A file that is followed, and what came of it."""

    def __init__(self, path):
        self.path = path
        self.said = asyncio.Queue()
        self.taken = []

    async def change(self, text):
        self.path.write_text(text)
        return await asyncio.wait_for(self.said.get(), 60)


@pytest.fixture
async def watched(tmp_path):
    made = Watched(tmp_path / "stream.yaml")
    made.path.write_text("{}")
    task = asyncio.create_task(follow(made.path, "{}", made.taken.append, made.said.put_nowait, interval_s=0.005))
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_change_is_taken_over(watched):
    """A right file reaches `take` once, with what it says."""
    assert "the gateway takes it over" in await watched.change("policy: {good_enough: 0.9}")
    assert [deployment.policy.good_enough for deployment, _ in watched.taken] == [0.9]


async def test_a_wrong_file_is_told_and_left_out(watched):
    """The fault is told with its line, the last good file stays; put right, it is taken."""
    told = await watched.change("policy:\n  good_enough: 9")
    assert "the last good one stays in force" in told
    assert f"{watched.path}:2: policy.good_enough" in told
    assert watched.taken == []
    await watched.change("{}")
    assert len(watched.taken) == 1


async def test_a_file_that_is_away_changes_nothing(watched):
    """Editors replace files: a moment without one is no change."""
    watched.path.unlink()
    await asyncio.sleep(0.02)
    assert watched.said.empty()
    assert "takes it over" in await watched.change("judge: {}")
