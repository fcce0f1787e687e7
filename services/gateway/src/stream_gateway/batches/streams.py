"""The broker's streams that hold files, batches and feedback, and what is wrong when they can't be had.

    stream                | subjects after "stream.batch."         | kept
    ----------------------+----------------------------------------+--------------------------------------------
    stream-batch-records  | record.<kind>.<owner>.<id>             | the last of each, changed by compare-and-set
    stream-batch-files    | file.<file>.<chunk>                    | until it expires
    stream-batch-lines    | line.<batch>.<line>                    | until it is done: a work queue
    stream-batch-results  | {result,failure}.<batch>.<line>        | until it stands in a file
    stream-batch-thumbs   | thumb.<owner>.<request>                | until it expires, the last of each
    stream-batch-ledger   | ledger.<chain>.<request>               | until it is in the store: a work queue

Every message has a time to live, so that nothing outlives the file or batch that it belongs to, whatever dies.
"""

from typing import Final

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from stream_core.broker_client import NatsError
from stream_core.errors import ConfigError
from stream_gateway.batches.faults import NoJetStream, StoreAway

PREFIX: Final = "stream.batch"
RECORDS: Final = "stream-batch-records"
FILES: Final = "stream-batch-files"
LINES: Final = "stream-batch-lines"
RESULTS: Final = "stream-batch-results"
THUMBS: Final = "stream-batch-thumbs"
LEDGER: Final = "stream-batch-ledger"
STREAMS: Final[dict[str, list[str]]] = {
    RECORDS: [f"{PREFIX}.record.>"],
    FILES: [f"{PREFIX}.file.>"],
    LINES: [f"{PREFIX}.line.>"],
    RESULTS: [f"{PREFIX}.result.>", f"{PREFIX}.failure.>"],
    THUMBS: [f"{PREFIX}.thumb.>"],
    LEDGER: [f"{PREFIX}.ledger.>"],
}
FAULTS: Final = (NatsError, OSError)
"""What a call raises when the broker is away, slow, or refuses."""
_NOT_ENABLED: Final = frozenset({10039, 10076})
_TOO_MANY_REPLICAS: Final = 10074
_WORK: Final = frozenset({LINES, LEDGER})
_OVERWRITTEN: Final = frozenset({RECORDS, THUMBS, LEDGER})
"""Of these streams' messages a newer one takes the place of the older one."""


async def ensure(jetstream: JetStreamContext, replicas: int, *, thumb_bytes: int) -> None:
    """Find the streams, or make them.

    Args:
        jetstream: of the broker.
        replicas: nodes that keep a copy, for new ones.
        thumb_bytes: what all feedback may take, for a new stream.

    Raises:
        NoJetStream: it is off.
        ConfigError: fewer nodes than replicas.
        StoreAway: the broker does not answer now.
    """
    for name, subjects in STREAMS.items():
        try:
            await _ensure(jetstream, name, subjects, replicas, thumb_bytes if name == THUMBS else -1)
        except APIError as error:
            if error.err_code == _TOO_MANY_REPLICAS:
                told = f"{replicas} replicas, the broker has fewer nodes"
                raise ConfigError(told, param="batches.replicas") from error
            off = isinstance(error, ServiceUnavailableError) and error.err_code is None
            if off or error.err_code in _NOT_ENABLED:
                raise NoJetStream("the broker has no JetStream, in which files and batches are kept") from error
            raise StoreAway(f"stream {name}: {error.description}") from error
        except FAULTS as error:
            raise away(error) from error


async def _ensure(jetstream: JetStreamContext, name: str, subjects: list[str], replicas: int, max_bytes: int) -> None:
    try:
        await jetstream.stream_info(name)
    except NotFoundError:
        await jetstream.add_stream(
            StreamConfig(
                name=name,
                subjects=subjects,
                retention=RetentionPolicy.WORK_QUEUE if name in _WORK else RetentionPolicy.LIMITS,
                discard=DiscardPolicy.OLD if name in {RECORDS, LEDGER} else DiscardPolicy.NEW,
                max_msgs_per_subject=1,
                discard_new_per_subject=name not in _OVERWRITTEN,
                max_bytes=max_bytes,
                storage=StorageType.FILE,
                num_replicas=replicas,
                allow_msg_ttl=True,
            )
        )


def away(error: Exception) -> StoreAway:
    """Say that the broker does not do it now."""
    words = str(error) or type(error).__name__
    return StoreAway(f"the store of files and batches is not available now: {words[:200]}")
