"""What a hostile relay says to a worker, and what is healed when an answer to a gap is lost."""

from fuzz.targets import GatewayEnd

from stream_core.wire.frames import Frame, FrameType, encode, split
from stream_core.wire.payloads import dump_chunks
from stream_relay.routes import welcome
from stream_worker.uplink import Uplink, _Socket


class Counting:
    """Counts what the uplink makes of it."""

    def __init__(self) -> None:
        self.resends = 0
        self.faults: list[str] = []

    def on_connected(self, *, resend: bool) -> None:
        self.resends += resend

    def on_frame(self, frame: Frame) -> None:
        raise AssertionError(frame)

    def on_fault(self, kind: str, detail: str) -> None:
        self.faults.append(kind)


async def test_welcome_again_and_again():
    """Thousands of WELCOMEs make the worker send again once, not thousands of times."""
    handler = Counting()
    uplink = Uplink(["ws://127.0.0.1:1"], b"", handler, ca_file="", backoff=(0.1, 1.0))
    socket = uplink._socket = _Socket(uplink)
    again = welcome("r", max_frame=1000, max_message=1000)
    for _ in range(5):
        uplink.received(socket, again * 2000)
    assert handler.resends == 1
    assert uplink._resend_timer is not None
    uplink._resend_timer.cancel()
    uplink.received(socket, encode(FrameType.WELCOME, b'{"x":' + b"[" * 9000))
    assert handler.faults == ["malformed_frame"]


async def test_a_lost_resume_is_said_again():
    """While frames go on coming after a gap, the gateway asks again, and they are no sign that all is well."""
    end = GatewayEnd()
    await end.start()
    end.channel._outbox.clear()
    lost = end._sealer.seal(FrameType.DATA, dump_chunks([b"lost"]))
    proved = end.answer._proved
    for _ in range(3):
        end.answer._asked -= 1
        await end.take(end._sealer.seal(FrameType.DATA, dump_chunks([b"later"])))
    asked = [split(frame)[0].type for _, frame in end.channel._outbox]
    assert asked.count(FrameType.RESUME) == 3
    assert end.answer._proved == proved
    await end.take(lost)
    assert end.answer._chunks == [*end.text, b"lost"]
