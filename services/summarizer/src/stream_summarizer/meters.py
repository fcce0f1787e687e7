"""What the summarizer counts, for Prometheus: conversations, how long they wait and take, and what is left of them."""

from typing import Final

from stream_core.metrics import FINE_SECONDS, Counter, Gauge, Histogram, describe_process, single
from stream_core.rpc import summarizer_pb2 as pb
from stream_summarizer import __version__

_FITS: Final = Counter("stream_summarizer_fits_total", "Conversations that were fitted.", ("tier", "method", "fits"))
_SECONDS: Final = Histogram("stream_summarizer_seconds", "What fitting one took.", bounds=FINE_SECONDS)
_TOKENS: Final = Counter("stream_summarizer_tokens_total", "Tokens of conversations that were condensed.", ("when",))
_WAIT: Final = Histogram("stream_summarizer_wait_seconds", "How long work waited for a thread.", bounds=FINE_SECONDS)


class Meters:
    """The summarizer's numbers.

    Args:
        threads: that work at the same time.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self.working = 0
        """Pieces of work that have or want a thread."""
        describe_process("summarizer", __version__)
        Gauge("stream_summarizer_queue", "Conversations that wait for a thread.", single(self._queue))
        Gauge("stream_summarizer_working", "Conversations that have or want a thread.", single(lambda: self.working))

    def note(self, request: pb.FitRequest, reply: pb.FitReply, took_s: float) -> None:
        """Count one conversation."""
        method = pb.Method.Name(reply.method).removeprefix("METHOD_").lower()
        _FITS.add(1, request.target.tier, method, str(reply.fits).lower())
        _SECONDS.of().observe(took_s)
        if reply.method in {pb.METHOD_MODEL, pb.METHOD_EXTRACT}:
            _TOKENS.add(reply.tokens_before, "before")
            _TOKENS.add(reply.tokens_after, "after")

    @staticmethod
    def waited(seconds: float) -> None:
        """Note how long a piece of work waited."""
        _WAIT.of().observe(seconds)

    def _queue(self) -> float:
        return max(0, self.working - self._threads)
