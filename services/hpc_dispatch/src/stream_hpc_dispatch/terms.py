"""A term: the time in which this program owns the leases; its only one, or from each election that it wins.

All that a term knows is read anew at its start and dropped at its end, so nothing of a lost one is left to act on.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from stream_core.broker_client import Client, Msg, NatsError
from stream_core.deployment import ClusterConfig, Deployment
from stream_core.errors import ConfigError
from stream_core.telemetry import Once
from stream_core.wire import subjects
from stream_hpc_dispatch.bucket import FAULTS, Bucket, NoJetStreamError
from stream_hpc_dispatch.clusters import open_cluster
from stream_hpc_dispatch.clusters.base import Cluster
from stream_hpc_dispatch.desk import Desk
from stream_hpc_dispatch.diary import Diary
from stream_hpc_dispatch.dispatch import Dispatch, Promises
from stream_hpc_dispatch.jobs import Pool, clusters_of
from stream_hpc_dispatch.leadership import Leadership
from stream_hpc_dispatch.meters import Meters
from stream_hpc_dispatch.plan import Limits, PoolKey
from stream_hpc_dispatch.records import Record
from stream_hpc_dispatch.settings import DispatchSettings
from stream_hpc_dispatch.vault import Found, Vault

_log = logging.getLogger("stream_hpc_dispatch")


@dataclass(frozen=True)
class Site:
    """What all terms of this process have in common."""

    settings: DispatchSettings
    deployment: Deployment
    pools: Mapping[PoolKey, Pool]
    promises: Promises
    key: bytes
    """Seals the leases; empty: they are in memory only."""
    client: Client
    desk: Desk
    meters: Meters


async def lead(
    site: Site, stop: asyncio.Event, ready: Callable[[str], None], leadership: Leadership | None = None
) -> None:
    """Own the leases until told to stop.

    Args:
        site: of this process.
        stop: set to stop.
        ready: called when it begins, with where the leases are kept, in words.
        leadership: that was won, where there are other replicas.

    Raises:
        ConfigError: the bucket or the diary can't be read.
    """
    async with _open_vault(site, leadership) as (vault, found):
        dispatch = _dispatch(site, vault, found, leadership)
        async with _listening(site.client, dispatch), asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(dispatch.feed.run())
            answering = tasks.create_task(site.desk.lead(dispatch))
            ready(vault.place)
            site.meters.show(dispatch)
            try:
                await dispatch.run(
                    stop, found=found, tick_s=site.settings.tick_s, listening=lambda: site.client.is_connected
                )
            finally:
                site.meters.show(None)
            publishing.cancel()
            if leadership is None:
                dispatch.feed.publish()
                dispatch.feed.close()
            else:
                answering.cancel()  # gateways keep what they saw last until the next leader speaks


async def replicate(site: Site, stop: asyncio.Event, address: str) -> None:
    """Lead whenever elected, follow else; told to stop, hand over.

    Args:
        site: of this process.
        stop: set to stop.
        address: where the other replicas reach this one.

    Raises:
        ConfigError: the bucket or the diary can't be read.
    """
    settings, faults = site.settings, Once(_log)
    try:
        bucket = await Bucket.open(site.client, settings.lease_bucket, replicas=settings.lease_replicas)
    except NoJetStreamError as error:
        raise ConfigError(f"replicas need JetStream: {error.message}", param="advertise") from error
    while not stop.is_set():
        leadership = Leadership(bucket, address, settings.leader_lease_s, faults.note)
        electing = asyncio.create_task(leadership.run())
        try:
            if await _elected(site.desk, leadership, electing, stop):
                await _lead_until_deposed(site, stop, leadership, electing)
        finally:
            electing.cancel()
            await asyncio.gather(electing, return_exceptions=True)
        await leadership.hand_over()


async def _elected(desk: Desk, leadership: Leadership, electing: asyncio.Task[None], stop: asyncio.Event) -> bool:
    """Follow until elected; false when told to stop before."""
    following = asyncio.create_task(desk.follow(lambda: leadership.leader_address))
    acting, stopping = asyncio.create_task(leadership.acting()), asyncio.create_task(stop.wait())
    tasks = (following, acting, stopping)
    try:
        await asyncio.wait({*tasks, electing}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        if electing.done():
            electing.result()
        return not stop.is_set()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _lead_until_deposed(
    site: Site, stop: asyncio.Event, leadership: Leadership, electing: asyncio.Task[None]
) -> None:
    _log.info("this replica leads")
    leading = asyncio.create_task(lead(site, stop, lambda _: None, leadership))
    try:
        await asyncio.wait({leading, electing}, return_when=asyncio.FIRST_COMPLETED)
        if not leadership.deposed:
            if electing.done():
                electing.result()  # a fault of ours: it ends the program instead of leaving a leader that never acts
            await leading
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        if leadership.deposed:
            _log.warning("another replica leads; this one follows it")


@contextlib.asynccontextmanager
async def _open_vault(site: Site, leadership: Leadership | None) -> AsyncIterator[tuple[Vault, Found]]:
    """Find the bucket, read what an earlier run left, and write to it until the block ends."""
    settings, bucket = site.settings, None
    if site.key:
        try:
            bucket = await Bucket.open(site.client, settings.lease_bucket, replicas=settings.lease_replicas)
        except NoJetStreamError as error:
            _log.warning("leases are kept in memory only: %s", error.message)
    vault = Vault(
        bucket,
        site.key,
        Once(_log).note,
        clock=time.time,
        counters=settings.state_dir / "lease-counters.json",
        verify=leadership.verify if leadership else None,
    )
    try:
        found = await vault.load()
    except FAULTS as error:
        raise ConfigError(f"bucket {settings.lease_bucket!r} can't be read: {error}", param="lease_bucket") from error
    writing = asyncio.create_task(vault.run())
    try:
        yield vault, found
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def _dispatch(site: Site, vault: Vault, found: Found, leadership: Leadership | None) -> Dispatch:
    settings = site.settings

    async def publish(subject: str, message: bytes) -> None:
        with contextlib.suppress(NatsError, OSError):
            await site.client.publish(subject, message)

    return Dispatch(
        site.pools,
        open_clusters(settings, site.deployment, site.pools, found),
        site.promises,
        vault,
        specs=clusters_of(site.deployment, site.pools),
        diary=Diary(settings.state_dir / "plan.json", Once(_log).note, shared=found.journal, share=vault.keep_journal),
        limits=_limits(settings),
        clock=time.time,
        publish=publish,
        publish_interval_s=settings.publish_interval_s,
        refresh_s=settings.lease_refresh_s,
        look_s=settings.look_s,
        leadership=leadership,
    )


@contextlib.asynccontextmanager
async def _listening(client: Client, dispatch: Dispatch) -> AsyncIterator[None]:
    """Listen to all leases: no worker is started before the broker confirmed the subscription."""

    async def receive(message: Msg) -> None:
        dispatch.hear(message.subject, message.data)

    subscription = await client.subscribe(subjects.ALL_LEASES_OUT, cb=receive)
    await client.flush()
    try:
        yield
    finally:
        with contextlib.suppress(NatsError, OSError):
            await subscription.unsubscribe()


def _limits(settings: DispatchSettings) -> Limits:
    return Limits(
        lost_after_s=settings.lost_after_s,
        remove_after_s=settings.remove_after_s,
        renew_before_s=settings.renew_before_s,
        expiry_grace_s=settings.expiry_grace_s,
        ending_s=settings.ending_s,
        backoff_first_s=settings.backoff_first_s,
        backoff_last_s=settings.backoff_last_s,
    )


def open_clusters(
    settings: DispatchSettings, deployment: Deployment, pools: Mapping[PoolKey, Pool], found: Found
) -> dict[str, Cluster]:
    """Open the clusters that have a pool, and those that an earlier run has left workers on."""
    used = {key.cluster for key in pools}
    configured = {config.name: config for config in deployment.clusters}
    configs = {name: configured[name] for name in configured if name in used}
    for record in (*found.records, *found.older):
        if record.cluster not in configs and (config := configured.get(record.cluster) or _as_it_was(record)):
            configs[record.cluster] = config
    tied = not (settings.keep_workers and settings.lease_key_file)
    return {
        name: open_cluster(
            config,
            command=settings.worker_command,
            state_dir=settings.state_dir,
            stop_grace_s=settings.stop_grace_s,
            tied=tied,
        )
        for name, config in configs.items()
    }


def _as_it_was(record: Record) -> ClusterConfig | None:
    """Rebuild the configuration of a cluster that stands in the deployment no more; None when that can't be."""
    with contextlib.suppress(ValidationError):
        return ClusterConfig.model_validate({"name": record.cluster, "backend": record.backend})
    return None
