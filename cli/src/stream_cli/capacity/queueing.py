"""How busy one process is: an event loop that does with each wake-up all that has come meanwhile. Pure.

Theory: batch service without limit. Messages come at random (Poisson), m a second, each with k tokens. A service lasts
S = wakeup + token x k x (messages taken). When nothing came during it, which happens with probability exp(-m S), the
loop sleeps for 1/m. So a cycle takes S + exp(-m S)/m, as many messages as come in it are taken in it, and

    S = wakeup + token x k x (m S + exp(-m S))

of which the one solution is found by bisection (S stands for its mean). The busier the loop, the more comes with one
wake-up: a token costs less, until only its own cost is left.
"""

import math
from typing import Final

_STEPS: Final = 60


def busy(messages: float, together: float, wakeup_us: float, token_us: float) -> float:
    """Share of a core that is used.

    Args:
        messages: a second.
        together: tokens in one.
        wakeup_us: CPU microseconds for a wake-up.
        token_us: for each token.

    Returns:
        0 to 1; 1 when it can't keep up.
    """
    if messages <= 0:
        return 0.0
    wakeup, each = wakeup_us / 1e6, together * token_us / 1e6
    if messages * each >= 1:
        return 1.0
    low, high = wakeup, (wakeup + each) / (1 - messages * each)
    for _ in range(_STEPS):
        service = (low + high) / 2
        if wakeup + each * (messages * service + math.exp(-messages * service)) > service:
            low = service
        else:
            high = service
    return low / (low + math.exp(-messages * low) / messages)
