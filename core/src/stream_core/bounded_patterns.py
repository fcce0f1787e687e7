"""Regular expressions of others, of which it is certain beforehand how long they can take. Pure.

Python's `re` backtracks: `(a+)+b` takes years on forty letters, and even `a+b` takes the square of a text's length. A
pattern is taken only if every repetition has an upper bound, a match has at most `MAX_WIDTH` characters, and the ways
to match at one place, times that width, stay below `MAX_STEPS`. So a text costs its length times a constant at most.
The ways are counted on the tree that `re` itself compiles: alternatives add up, what stands in a row multiplies.
"""

import re
import re._parser as tree  # type: ignore[import-not-found]  # re's own parser, which has no public name since 3.11
from typing import Any, Final

MAX_WIDTH: Final = 256
"""Characters of one match, and of what it looks at behind it."""
MAX_STEPS: Final = 20_000
_UNBOUNDED: Final = int(tree.MAXREPEAT)
_REPEATS: Final = frozenset({"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"})
_SINGLE: Final = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN", "AT", "RANGE", "CATEGORY", "NEGATE"})


def compile_bounded(pattern: str) -> re.Pattern[str]:
    """Compile a pattern.

    Raises:
        ValueError: it is no regular expression, or may take too long; the message says what to write instead.
    """
    try:
        compiled = re.compile(pattern)
        parsed = tree.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern[:80]!r} is no regular expression: {error}") from error
    steps = _ways(parsed) * max(1, parsed.getwidth()[1])
    if parsed.getwidth()[1] > MAX_WIDTH:
        width = parsed.getwidth()[1]
        raise ValueError(f"{pattern[:80]!r} may match {width:,} characters, at most {MAX_WIDTH} are allowed")
    if steps > MAX_STEPS:
        words = f"{pattern[:80]!r} may take {steps:,} steps at each character, at most {MAX_STEPS:,} are allowed"
        raise ValueError(f"{words}: use fewer or shorter repetitions")
    if compiled.match(""):
        raise ValueError(f"{pattern[:80]!r} matches the empty text, so every text")
    return compiled


def _ways(sequence: Any) -> int:
    """Count the ways in which a sequence may match at one place, from above."""
    ways = 1
    for operation, argument in sequence:
        ways = min(ways * _ways_of(str(operation), argument), MAX_STEPS + 1)
    return ways


def _ways_of(operation: str, argument: Any) -> int:
    match operation:
        case _ if operation in _SINGLE:
            return 1
        case _ if operation in _REPEATS:
            least, most, item = argument
            return _repeated(int(least), int(most), _ways(item))
        case "BRANCH":
            return sum([_ways(branch) for branch in argument[1]])
        case "SUBPATTERN":
            return _ways(argument[3])
        case "ATOMIC_GROUP":
            return _ways(argument)
        case "ASSERT" | "ASSERT_NOT":
            width = int(argument[1].getwidth()[1])
            if width > MAX_WIDTH:
                raise ValueError(f"it looks {width:,} characters ahead or back, at most {MAX_WIDTH} are allowed")
            return max(1, width) * _ways(argument[1])
        case _:
            raise ValueError(f"{operation.lower().replace('_', ' ')}: references to groups are not possible here")


def _repeated(least: int, most: int, inner: int) -> int:
    if most >= _UNBOUNDED:
        raise ValueError("'*', '+' and '{n,}' have no upper bound: write a number, such as {1,64}")
    if inner == 1:
        return most - least + 1
    ways, count = 0, least
    while count <= most and ways <= MAX_STEPS:
        ways += inner ** min(count, MAX_WIDTH)
        count += 1
    return ways
