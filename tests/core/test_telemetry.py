"""What a program counts: its ledger, in the log and for Prometheus."""

import asyncio
import json
import logging
import subprocess
import sys

from stream_core.telemetry import Ledger, Once


def test_a_ledger_adds_up_all_parts_of_a_program():
    """Two parts that count the same kind are one number in Prometheus' text; without faults only the type is told."""
    ledger = Ledger()
    assert ledger.metrics().decode().splitlines()[1:] == ["# TYPE stream_faults_total counter"]
    one, other = (Once(logging.getLogger("test"), ledger=ledger) for _ in range(2))
    one.count("replay", 3)
    other.note("replay", "again")
    other.note("flood", "too much")
    assert ledger.metrics().decode().splitlines()[2:] == [
        'stream_faults_total{kind="flood"} 1',
        'stream_faults_total{kind="replay"} 4',
    ]
    assert (one.counts, other.counts) == ({"replay": 3}, {"replay": 1, "flood": 1})


async def test_a_ledger_logs_its_changes(caplog):
    """Nothing while nothing changes; then one line with all counts for all changes of an interval."""
    ledger, seen = Ledger(), asyncio.Event()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(vars(record)["faults"])
            seen.set()

    lines: list[dict[str, int]] = []
    ear, logger = Ear(), logging.getLogger("stream_core.telemetry")
    logger.addHandler(ear)
    logging_changes = asyncio.create_task(ledger.log_changes(interval_s=0.01))
    try:
        for times in (2, 3):
            seen.clear()
            for _ in range(times):
                ledger.count("replay")
            async with asyncio.timeout(60):
                await seen.wait()
    finally:
        logging_changes.cancel()
        logger.removeHandler(ear)
    assert lines == [{"replay": 2}, {"replay": 5}]


def test_a_program_logs_its_counts_at_its_end(tmp_path):
    """Told to stop, or ended by an error of configuration: the last line has the counts of all its parts."""
    code = (
        "import sys, logging\n"
        "from stream_core.errors import ConfigError\n"
        "from stream_core.lifecycle import run\n"
        "from stream_core.telemetry import Once, configure_logs\n"
        "async def main(stop):\n"
        "    configure_logs('example')\n"
        "    Once(logging.getLogger('a')).count('replay', 2)\n"
        "    Once(logging.getLogger('b')).count('replay')\n"
        "    if sys.argv[1:]: raise ConfigError('wrong')\n"
        "run('example', main)\n"
    )
    for arguments, exit_code in (((), 0), (("fail",), 1)):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == exit_code
        line = json.loads(done.stderr.splitlines()[0])
        assert (line["msg"], line["service"], line["faults"]) == ("faults", "example", {"replay": 3})
