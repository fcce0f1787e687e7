"""The ledger's chains: whatever is taken out, put in, changed or moved is found."""

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stream_core.audit.entries import Chain, Entry, Fields, hash_of
from stream_core.audit.verify import verify

AT = 1_776_000_000.0


def written(*counts: int, end: bool = True) -> list[bytes]:
    """Write chains with so many requests, one after the other."""
    lines: list[bytes] = []
    links = ""
    for number, count in enumerate(counts):
        chain = Chain(f"{number:032x}")
        opening = chain.add("opened", AT, links=links)
        links = hash_of(opening)
        lines.append(opening)
        lines += [chain.add("request", AT, Fields(f"{number}-{n}", AT, prompt_tokens=n)) for n in range(count)]
        if end:
            lines.append(chain.add("closed", AT))
    return lines


def test_what_is_as_it_was_written() -> None:
    """Several replicas, also some that were killed: nothing is wrong."""
    for end in (True, False):
        seen = verify(written(3, 0, 20, end=end))
        assert seen.faults == []
        assert seen.entries == 26 + 3 * end
        assert len(seen.heads) == 3


@given(st.integers(0, 30), st.sampled_from(["remove", "edit", "swap", "copy", "forge"]), st.randoms())
def test_what_is_not(place: int, deed: str, dice: random.Random) -> None:
    """One entry that is missing, changed, moved, there twice or made up is found."""
    lines = written(10, 10, 6)
    place %= len(lines)
    match deed:
        case "remove":
            if Entry and msgspec.json.decode(lines[place], type=Entry).kind == "closed":
                return  # the newest entry of a chain: only a remembered head tells
            del lines[place]
        case "edit":
            entry = msgspec.json.decode(lines[place], type=Entry)
            if entry.kind == "closed":
                return
            lines[place] = msgspec.json.encode(msgspec.structs.replace(entry, at=entry.at + 1))
        case "swap":
            other = (place + 1 + dice.randrange(len(lines) - 1)) % len(lines)
            if lines[place][:60].split(b'"number"')[0] != lines[other][:60].split(b'"number"')[0]:
                return  # of two chains: their order is no matter
            lines[place], lines[other] = lines[other], lines[place]
        case "copy":
            lines.insert(dice.randrange(len(lines)), lines[place])
        case _:
            lines.insert(place, msgspec.json.encode(Entry("0" * 32, 3, "ff", "request", AT)))
    assert verify(lines).faults


def test_a_chain_that_is_missing_as_a_whole() -> None:
    """The one that was opened after it tells."""
    lines = written(2, 2, 2)
    assert verify(lines[:4] + lines[8:]).faults == [
        "chain 00000000000000000000000000000002: the chain that was opened before it is missing"
    ]


def test_a_chain_that_was_cut_short() -> None:
    """Whoever remembers the head finds it."""
    lines = written(5, end=False)
    heads = verify(lines).heads
    assert verify(lines[:-2], heads).faults == [
        "chain 00000000000000000000000000000000: entry 5 was there once and is missing"
    ]
    assert verify(lines[:-2]).faults == []
