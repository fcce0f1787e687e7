"""A gateway with a scripted hpc_dispatch, for the tests of what the gateway makes of its words."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from gateway.stage import tier
from gateway_hpc import lane
from gateway_hpc.dispatched import LIMIT, Scene, cluster, scene


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """Broker, relay, engine and gateway."""
    with lane.parts(tmp_path_factory.mktemp("parts")) as parts:
        async with scene(tmp_path_factory.mktemp("gateway"), parts, max_waiting=LIMIT) as made:
            yield made


@pytest.fixture
def cloud(stage: Scene) -> dict[str, Any]:
    """A dearer tier on the same engine."""
    return tier("cloud", stage.parts.engine_url)


@pytest_asyncio.fixture(loop_scope="module")
async def cold(stage: Scene, cloud: dict[str, Any]) -> Scene:
    """One cluster, no worker; `auto` waits for it."""
    return await stage.play(cluster("alpha"), tiers=(cloud,))
