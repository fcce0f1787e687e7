"""`make sim-campus`: days of a campus through the planner's own code, beside three simpler policies.

    DAYS=28 REQUESTS=1000000 SEED=1 RESULTS=bench/results make sim-campus

Prints a table and, as its last line, one JSON object; leaves a plot. Nothing real is started.
"""

import json
import os
import sys
import time
from pathlib import Path

from campus import report, workload
from campus.comparison import compare

USERS = 20_000


def main() -> None:
    """Run all policies on the same days."""
    days, seed = int(os.environ.get("DAYS", "28")), int(os.environ.get("SEED", "1"))
    requests = int(os.environ.get("REQUESTS", str(days * 1_000_000 // 28)))
    folder = Path(os.environ.get("RESULTS", "bench/results"))
    began = time.monotonic()
    campus = workload.generate(seed, days=days, requests=requests, users=USERS)
    played = compare(seed, campus)
    results = {name: one.result for name, one in played.items()}
    rows = {name: report.figures(result) for name, result in results.items()}
    file = folder / f"campus-{seed}.png"
    report.plot(results, rows, campus, file)
    broken = {name: {what: n for what, n in result.broken.items() if n} for name, result in results.items()}
    reasons = {name: dict(result.refused) for name, result in results.items()}
    print(f"{requests:,} requests of {USERS:,} users in {days} days, seed {seed}; plot: {file}")
    print(report.table(rows))
    print(
        json.dumps(
            {
                "seed": seed,
                "days": days,
                "requests": requests,
                "wall_s": round(time.monotonic() - began, 1),
                "cpu_s": round(sum(one.cpu_s for one in played.values()), 1),
                "policies": {name: {key: round(value, 4) for key, value in row.items()} for name, row in rows.items()},
                "refused": reasons,
                "broken": broken,
            }
        )
    )
    sys.exit(any(broken.values()))


if __name__ == "__main__":
    main()
