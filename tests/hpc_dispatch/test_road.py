"""The whole road, real processes: what clients see when dispatch is killed, and when a worker's lease ends."""

import asyncio
import json
import sys

import psutil
import pytest
from hpc_dispatch.traffic import Client, answer, clients, logged, undisturbed, until

from stream_core.testing.road import run_road, wait_hot

pytestmark = pytest.mark.process

STREAMS = 16
RENEWED = 64


async def test_dispatch_killed_while_streams_run(tmp_path):
    """Running streams end byte for byte, new requests are answered meanwhile, the next run takes the worker over."""
    script = {"tokens": 160, "interval_ms": 25, "text": " {n}"}
    with run_road(tmp_path) as road:
        await wait_hot(road)
        (worker,) = road.workers()
        async with asyncio.timeout(60), clients(road) as session, asyncio.TaskGroup() as group:
            expected = await undisturbed(road, session, script)
            running = [Client() for _ in range(STREAMS)]
            for client in running:
                group.create_task(client.run(road, session, script))
            for client in running:
                await client.began.wait()
            dispatch = road.services["hpc_dispatch"]
            dispatch.process.kill()
            await asyncio.to_thread(dispatch.process.wait)
            assert [await answer(road, session) for _ in range(5)] == [200] * 5
            assert not any(client.body.endswith(b"[DONE]\n\n") for client in running)
            await asyncio.to_thread(road.start_service, "hpc_dispatch")
            assert [await answer(road, session) for _ in range(5)] == [200] * 5
        assert [client.body == expected for client in running] == [True] * STREAMS

        again = road.services["hpc_dispatch"]
        await until(lambda: logged(again, "took a worker over"))
        assert [process.pid for process in road.workers()] == [worker.pid]
        (taken,), (started,) = logged(again, "took a worker over"), logged(dispatch, "starting a worker")
        assert taken["lease"] == started["lease"]
        assert logged(again, "starting a worker") == []
        assert [line for line in logged(again, "") if line["level"] != "info"] == []
        assert again.stop() == 0
        await until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


async def test_worker_reaches_its_walltime(tmp_path):
    """A pool of one is renewed without a gap, 64 streams on the old worker finish; left alone, the new one ends."""
    script = {"tokens": 150, "interval_ms": 25, "text": " {n}"}
    pool = {"walltime_s": 20, "min_ready": 1, "max_workers": 1}
    with run_road(tmp_path, pool=pool, env={"STREAM_WORKER__DRAIN_S": "2", "STREAM_WORKER__ORPHAN_S": "1"}) as road:
        await wait_hot(road)
        first = road.workers()[0]
        statuses = []
        async with asyncio.timeout(60), clients(road) as session:
            expected = await undisturbed(road, session, script)
            await until(lambda: len(road.workers()) == 2)
            running = [Client() for _ in range(RENEWED)]
            async with asyncio.TaskGroup() as group:
                for client in running:
                    group.create_task(client.run(road, session, script))
                while first.pid in [process.pid for process in road.workers()]:
                    statuses.append(await answer(road, session))
                    await asyncio.sleep(0.05)  # the time of the renewal is the deed
            statuses += [await answer(road, session) for _ in range(5)]
        assert [client.body == expected for client in running] == [True] * RENEWED
        assert set(statuses) == {200}
        assert len(statuses) > 5, "none was asked while the old worker ended"
        assert first.pid not in [process.pid for process in road.workers()]
        assert logged(road.services["hpc_dispatch"], "a worker failed") == []

        road.services["hpc_dispatch"].process.kill()
        for relay in road.relays:
            relay.process.kill()
        await until(lambda: road.workers() == [])
        log = "".join(path.read_text() for path in (tmp_path / "dispatch").rglob("*.log"))
        assert "no relay for 1 s: nobody can reach this worker, it ends" in log


async def test_a_worker_is_told_to_stop_over_its_own_channel(tmp_path):
    """Where nobody signals the process, as on a cluster that can't be told, a sealed STOP ends it all the same."""
    shielded = ["/bin/sh", "-c", f"trap '' TERM; {sys.executable} -m stream_worker; exit $?"]
    env = {
        "STREAM_HPC_DISPATCH__WORKER_COMMAND": json.dumps(shielded),
        "STREAM_HPC_DISPATCH__STOP_GRACE_S": "60",
    }
    with run_road(tmp_path, env=env) as road:
        await wait_hot(road)
        dispatch = road.services["hpc_dispatch"]
        assert await asyncio.to_thread(dispatch.stop) == 0
        assert road.workers() == []
        log = "".join(path.read_text() for path in (tmp_path / "dispatch").rglob("*.log"))
        assert "told to stop by hpc_dispatch" in log
        (ended,) = logged(dispatch, "a worker's job ended")
        assert ended["exit_code"] == 0
