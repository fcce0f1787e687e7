"""What the preflight finds, and how it says so. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Verdict = Literal["ok", "note", "FIX"]
_WIDTH: Final = 6


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    verdict: Verdict
    """"FIX": a worker would not run here. "note": it would, but look at it."""
    what: str
    told: str
    fix: str = ""
    """What to do about it."""


def report(findings: Iterable[Finding]) -> str:
    """Write the lines, each fix under its finding, and the sum."""
    lines, wrong = [], 0
    for finding in findings:
        wrong += finding.verdict == "FIX"
        lines.append(f"{finding.verdict:{_WIDTH}}{finding.what}: {finding.told}")
        if finding.fix:
            lines.append(f"{'':{_WIDTH}}-> {finding.fix}")
    lines.append("a worker can run here" if not wrong else f"{wrong} to fix before a worker can run here")
    return "\n".join(lines) + "\n"


def failed(findings: Iterable[Finding]) -> bool:
    """Tell whether a worker would not run here."""
    return any(finding.verdict == "FIX" for finding in findings)
