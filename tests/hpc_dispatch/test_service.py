"""The real program, a real broker, real worker processes; only what the worker computes is a stand-in."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys

import grpc
import grpc.aio
import pytest

from stream_core import tickets
from stream_core.envelope.keys import WorkerKey, sign_announcement
from stream_core.rpc import hpc_dispatch_pb2 as pb
from stream_core.rpc import hpc_dispatch_pb2_grpc
from stream_core.testing.broker import run_broker
from stream_core.testing.programs import start
from stream_core.wire import frames, payloads, subjects
from stream_core.wire.frames import FrameType
from stream_hpc_dispatch.__main__ import main

pytestmark = pytest.mark.process


async def test_worker_becomes_ready_and_nothing_secret_is_logged(service, secrets_folder, gone):
    """A worker gets its job on standard input, proves its key, is published; SIGTERM ends it and its stubborn child."""
    async with service(mode="child") as running:
        worker = await running.worker()
        facts = running.facts(worker.lease_id)
        job = json.loads(facts["raw"])
        assert (worker.cluster, worker.max_requests) == ("here", 256)
        assert [(model.id, model.context_window, model.demo) for model in worker.models] == [("tiny", 4096, True)]
        assert (len(worker.mlkem768_public), len(worker.x25519_public)) == (1184, 32)
        assert worker.expires_unix_ms == int(job["expires_unix_s"] * 1000)
        assert job["models"][0]["engine_model"] == "tiny-q4"
        assert (job["engine"]["url"], job["engine"]["start_timeout_s"]) == ("http://127.0.0.1:9", 5.0)
        ticket_key = (secrets_folder / "ticket.pub").read_text()
        assert tickets.verify(ticket_key, job["ticket"], now=job["expires_unix_s"] - 1) == worker.lease_id
        assert [(state.id, state.state) for state in running.watch.seen[-1].models] == [("tiny", "hot")]

        assert running.program.stop(5.0) == 0
        assert gone(facts["pid"])
        assert gone(facts["children"][0])
        await running.watch.until_ended()
        assert list(running.watch.seen[-1].workers) == []
        assert running.watch.seen[-1].models[0].state == "offline"
        revisions = [pool.revision for pool in running.watch.seen]
        assert revisions == sorted(set(revisions))

        everything = running.program.log() + "".join(
            path.read_text() for path in running.state_dir.rglob("*") if path.is_file()
        )
        assert worker.lease_id.hex() in everything
        for secret in (job["bootstrap_secret"], job["ticket"], job["ticket"].split(".")[2]):
            assert secret not in everything
            assert secret not in " ".join(facts["argv"])


async def test_killed_worker_is_replaced_and_killed_dispatch_leaves_no_worker(service, gone):
    """A worker killed with -9 leaves the pool and a new lease with a new key follows; it dies with its dispatch."""
    async with service() as running:
        first = await running.worker()
        os.kill(running.facts(first.lease_id)["pid"], signal.SIGKILL)
        second = await running.worker(other_than=first.lease_id)
        assert second.x25519_public != first.x25519_public
        assert first.lease_id not in {worker.lease_id for worker in running.watch.seen[-1].workers}
        assert "killed by SIGKILL" in running.program.log()
        assert gone(running.facts(first.lease_id)["pid"])
        running.program.process.kill()
        assert gone(running.facts(second.lease_id)["pid"])


async def test_hanging_worker_is_lost_comes_back_and_is_replaced_when_it_does_not(service, gone):
    """Silence makes a worker LOST; a heartbeat brings it back; longer silence has it killed and replaced."""
    async with service() as running:
        first = await running.worker()
        pid = running.facts(first.lease_id)["pid"]
        os.kill(pid, signal.SIGSTOP)
        assert (await running.worker(pb.WORKER_STATE_LOST)).lease_id == first.lease_id
        os.kill(pid, signal.SIGCONT)
        assert (await running.worker()).lease_id == first.lease_id
        os.kill(pid, signal.SIGSTOP)
        second = await running.worker(other_than=first.lease_id)
        assert gone(pid)
        assert second.lease_id != first.lease_id
        assert "no sign of life" in running.program.log()


async def test_only_the_worker_moves_its_state(service):
    """A swapped key, another lease's subject, a forged STATUS and noise change nothing; what the worker says does."""
    async with service() as running:
        worker = await running.worker()
        lease, public = worker.lease_id, WorkerKey().public
        said = payloads.Announcement(public.mlkem768, public.x25519, [], 1)
        body = sign_announcement(payloads.dump(said), lease_id=lease, bootstrap_secret=bytes(32))
        forged = frames.encode(FrameType.ANNOUNCE, body, request_id=lease)
        other = frames.encode(FrameType.ANNOUNCE, body, request_id=bytes(16))
        foreign = frames.encode(FrameType.ANNOUNCE, body, request_id=bytes(16))
        mute = frames.encode(FrameType.STATUS, bytes(40), request_id=lease, sequence=2**40)
        subject = subjects.lease_out(lease)
        for message in (forged, other, mute, b"noise", frames.encode(FrameType.HELLO, b"")):
            await running.nats.publish(subject, message)
        await running.nats.publish(subjects.lease_out(bytes(16)), foreign)
        await running.command(lease, "unready")  # comes after the forged ones: all of them have been looked at
        starting = await running.worker(pb.WORKER_STATE_STARTING)
        assert starting.x25519_public == worker.x25519_public
        kinds = {record.get("kind") for record in running.logged()}
        wanted = {"bad_announcement", "wrong_subject", "bad_status", "malformed", "unexpected_frame", "unknown_lease"}
        assert wanted <= kinds
        assert running.watch.seen[-1].models[0].reason == "a worker is starting: loading the model"
        await running.command(worker.lease_id, "rekey")
        await running.command(worker.lease_id, "ready")
        rekeyed = await running.worker()
        assert rekeyed.x25519_public != worker.x25519_public
        await running.command(worker.lease_id, "drain")
        assert (await running.worker(pb.WORKER_STATE_DRAINING)).running == 1


async def test_crashing_worker_is_told_in_words(service):
    """A worker that ends at once is tried again with growing pauses, and the pool says why it is offline."""
    async with service(mode="crash") as running:
        pool = await running.watch.until(lambda pool: "2 starts in a row" in pool.models[0].reason)
        assert pool.models[0].state == "offline"
        assert "exit code 3; its log ends: engine: no GPU of that name" in pool.models[0].reason


async def test_silent_worker_is_given_up(service, gone):
    """A worker that never announces itself is stopped at the start limit and counted as a failure."""
    async with service({"engine_start_timeout_s": 0.1}, mode="silent", START_MARGIN_S="0.2") as running:
        pool = await running.watch.until(lambda pool: pool.models[0].state == "offline")
        assert "did not announce itself within 0.3 s" in pool.models[0].reason
        assert gone(next(record["worker_pid"] for record in running.logged() if "worker_pid" in record))


async def test_request_starts_a_cold_model(service, secrets_folder):
    """Without min_ready nothing runs until a gateway with a certificate asks; an unknown model is NOT_FOUND."""
    async with service({"min_ready": 0}) as running:
        await running.watch.until(lambda pool: [model.state for model in pool.models] == ["cold"])
        target = f"localhost:{running.program.ready['port']}"
        no_certificate = grpc.ssl_channel_credentials((secrets_folder / "tls" / "ca.pem").read_bytes())
        for stranger in (grpc.aio.insecure_channel(target), grpc.aio.secure_channel(target, no_certificate)):
            async with stranger:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await hpc_dispatch_pb2_grpc.HpcDispatchStub(stranger).RequestWorker(
                        pb.RequestWorkerRequest(model="tiny"), timeout=5
                    )
                assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        reply = await running.stub.RequestWorker(pb.RequestWorkerRequest(model="tiny"))
        assert (reply.model.state, reply.model.cluster) == ("starting", "here")
        assert len((await running.worker()).x25519_public) == 32
        for unknown in ({"model": "huge"}, {"model": "tiny", "cluster": "elsewhere"}):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await running.stub.RequestWorker(pb.RequestWorkerRequest(**unknown))
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_successor_is_ready_before_the_lease_ends_and_a_broker_restart_loses_nobody(service):
    """A lease of 12 s is renewed before its end; the broker's absence meanwhile, longer than LOST takes, is no loss."""
    pool = {"walltime_s": 12, "max_workers": 2}
    with contextlib.ExitStack() as first:
        url = first.enter_context(run_broker())
        async with service(pool, broker_url=url, RENEW_BEFORE_S="11", LOST_AFTER_S="2.0") as running:
            early = await running.worker()
            first.close()
            await asyncio.sleep(2.5)  # longer than LOST_AFTER_S: the time itself is the deed here
            with run_broker(port=int(url.rpartition(":")[2])):
                both = await running.watch.until(
                    lambda pool: (
                        [worker.state for worker in pool.workers] == [pb.WORKER_STATE_DRAINING, pb.WORKER_STATE_READY]
                    )
                )
                assert both.workers[0].lease_id == early.lease_id
                assert both.workers[0].expires_unix_ms < both.workers[1].expires_unix_ms
                states = {worker.state for pool in running.watch.seen for worker in pool.workers}
                assert states == {pb.WORKER_STATE_STARTING, pb.WORKER_STATE_READY, pb.WORKER_STATE_DRAINING}


async def test_busy_port_is_one_line(environment):
    """A port that is taken ends the program with exit code 1, one line, and no worker started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with start("stream_hpc_dispatch", env=environment(LISTEN=address), ready_timeout_s=None) as program:
            assert await asyncio.to_thread(program.process.wait, 10) == 1
            assert f"can't listen on {address}" in program.log()
            assert len(program.log().splitlines()) == 1


def test_version(monkeypatch, capsys):
    """--version prints name and version and needs no setting."""
    monkeypatch.setattr(sys, "argv", ["stream-hpc-dispatch", "--version"])
    main()
    assert capsys.readouterr().out == "stream-hpc-dispatch 0.1.0\n"
