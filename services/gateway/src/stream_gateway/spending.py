"""What the cloud has cost this month, against `policy.cloud_budget`. Pure: the clock is an argument.

A request that goes to the cloud is first charged what it may cost at most by estimate; when it has ended, what it did
cost takes that place. So what is open counts as spent, and the limit holds at whatever number of requests at once.
What is charged when stands in `limits.estimate`.

All replicas charge one sum (`batches.spent`); a replica that has not heard of it for `FRESH_S` spends nothing more.
A tier that the caller named is obeyed and charged, whatever the budget says.
"""

import datetime
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FRESH_S: Final = 60.0
REPLICAS: Final = 8
"""Between two looks at the sum a replica spends at most this part of what is left: so many spend no more than that."""
_FASTEST: Final = 4.0
"""How much quicker than planned a month may be spent that was too thrifty so far."""
_DUST: Final = 1e-9
"""Dollars that only rounding leaves."""
_LEAST_LEFT: Final = 0.01
"""Share of a month below which its end is not paced any more."""


@dataclass(frozen=True, slots=True)
class Open:
    """A request that runs in the cloud."""

    month: str
    charged: float


class Spending:
    """The sum as this replica knows it.

    Args:
        clock: gives unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, float] = {}
        self._heard = float("-inf")
        self._unwritten: dict[str, float] = defaultdict(float)
        self._open: dict[bytes, Open] = {}

    @property
    def month(self) -> str:
        """The month of this moment, UTC."""
        return self._now().strftime("%Y-%m")

    def spent(self) -> float:
        """Dollars of this month, open requests included."""
        return self._known.get(self.month, 0.0) + self._unwritten[self.month]

    def closed(self, budget: float, need: float) -> str:
        """Say why a request that may cost `need` dollars does not go to the cloud by itself; empty: it may."""
        if self._clock() - self._heard > FRESH_S:
            return "what the cloud has cost this month is not known, and it has a budget"
        if self.spent() + need > budget:
            return f"${self.spent():,.2f} of this month's ${budget:,.2f} for the cloud are spent"
        if self._unwritten[self.month] + need > (budget - self._known.get(self.month, 0.0)) / REPLICAS:
            return f"what is left of this month's ${budget:,.2f} for the cloud is not for so much at once"
        return ""

    def pace(self, budget: float) -> float:
        """Tell by how much the cloud's share is to be changed for the rest of the budget to last for the month."""
        now = self._now()
        start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        end = (start + datetime.timedelta(days=32)).replace(day=1)
        left = (end - now) / (end - start)
        if left < _LEAST_LEFT:
            return 1.0
        return min(_FASTEST, max(0.0, budget - self.spent()) / (budget * left)) if budget > 0 else 0.0

    def begin(self, request_id: bytes, need: float) -> None:
        """Charge a request the dollars that it may cost."""
        self._open[request_id] = Open(self.month, need)
        self._unwritten[self.month] += need

    def end(self, request_id: bytes, cost: float) -> None:
        """Charge a request what it did cost; one that is not open has gone elsewhere.

        Args:
            request_id: as given to `begin`.
            cost: dollars.
        """
        ended = self._open.pop(request_id, None)
        if ended is not None:
            self._unwritten[ended.month] += cost - ended.charged

    def unwritten(self) -> dict[str, float]:
        """What is charged here and not yet in the common sum, by month."""
        return {month: amount for month, amount in self._unwritten.items() if abs(amount) > _DUST}

    def heard(self, month: str, total: float, written: float) -> None:
        """Take over the common sum.

        Args:
            month: its.
            total: dollars.
            written: how much of it was unwritten here before.
        """
        self._known[month] = total
        self._unwritten[month] -= written
        self._heard = self._clock()

    def _now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
