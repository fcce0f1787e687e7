"""What the cloud has cost this month, against `policy.cloud_budget`. Pure: the clock is an argument.

A request that goes to the cloud is first charged what it may cost at most by estimate; when it has ended, what it did
cost takes that place. So what is open counts as spent, and the limit holds at whatever number of requests at once.

| known of the answer            | charged                                                       |
|--------------------------------|---------------------------------------------------------------|
| the engine told its usage      | its tokens at the model's price                               |
| a stream without usage         | the prompt by its bytes, the answer by its events             |
| neither                        | the estimate                                                  |
| it never began                 | nothing                                                       |

All replicas charge one sum (`batches.spent`); a replica that has not heard of it for `FRESH_S` spends nothing more.
A tier that the caller named is obeyed and charged, whatever the budget says.
"""

import datetime
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stream_core.cluster_config import Price
from stream_core.openai.chunks import Usage

FRESH_S: Final = 60.0
REPLICAS: Final = 8
"""Between two looks at the sum a replica spends at most this part of what is left: so many spend no more than that."""
_BYTES_PER_TOKEN: Final = 3.0
"""Of a request's body: fewer than any text has, JSON around it included."""
_MILLION: Final = 1_000_000
_FASTEST: Final = 4.0
"""How much quicker than planned a month may be spent that was too thrifty so far."""
_DUST: Final = 1e-9
"""Dollars that only rounding leaves."""
_LEAST_LEFT: Final = 0.01
"""Share of a month below which its end is not paced any more."""


def dollars(price: Price, prompt_tokens: float, completion_tokens: float) -> float:
    """What so many tokens cost."""
    return (price.input * prompt_tokens + price.output * completion_tokens) / _MILLION


@dataclass(frozen=True, slots=True)
class Open:
    """A request that runs in the cloud."""

    month: str
    price: Price
    prompt_tokens: float
    """By estimate, no less than there are."""
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

    def estimate(self, price: Price, body_bytes: int, context_window: int, most_output: int) -> tuple[float, float]:
        """Tell what a request may have at most.

        Args:
            price: of the model.
            body_bytes: of the request.
            context_window: tokens that the model takes.
            most_output: tokens of the longest answer.

        Returns:
            Tokens of the prompt, and dollars.
        """
        prompt = min(body_bytes / _BYTES_PER_TOKEN, float(context_window))
        return prompt, dollars(price, prompt, most_output)

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

    def begin(self, request_id: bytes, price: Price, prompt_tokens: float, need: float) -> None:
        """Charge a request what it may cost."""
        self._open[request_id] = Open(self.month, price, prompt_tokens, need)
        self._unwritten[self.month] += need

    def end(self, request_id: bytes, *, usage: Usage | None, events: int, begun: bool) -> float:
        """Charge a request what it did cost; one that did not go to the cloud costs nothing here.

        Args:
            request_id: as given to `begin`.
            usage: as the engine told it.
            events: of its stream; 0: it was none.
            begun: whether there was an answer.

        Returns:
            Dollars.
        """
        ended = self._open.pop(request_id, None)
        if ended is None:
            return 0.0
        if not begun:
            cost = 0.0
        elif usage is not None:
            cost = dollars(ended.price, usage.prompt_tokens, usage.completion_tokens)
        elif events:
            cost = dollars(ended.price, ended.prompt_tokens, events)
        else:
            cost = ended.charged
        self._unwritten[ended.month] += cost - ended.charged
        return cost

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
