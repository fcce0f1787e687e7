"""The election, without a broker: its table, and that no two ever act, whatever clocks, delays and pauses do."""

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_hpc_dispatch import election
from stream_hpc_dispatch.election import Election, Look, Role, Write

LEASE_S = 4.0
FRESH = Election("me", LEASE_S)
FOLLOWS = election.saw(FRESH, 7, "other", 10.0)
LEADS = election.wrote(FOLLOWS, 8, 20.0)


@pytest.mark.parametrize(
    ("state", "now", "role", "move"),
    [
        (FRESH, 0.0, Role.FOLLOWING, Look()),
        (election.saw(FRESH, 0, "", 10.0), 10.0, Role.FOLLOWING, Write(0)),
        (election.saw(FOLLOWS, 9, "", 11.0), 11.0, Role.FOLLOWING, Write(9)),
        (FOLLOWS, 14.9, Role.FOLLOWING, Look()),
        (FOLLOWS, 15.0, Role.FOLLOWING, Write(7)),
        (election.saw(FOLLOWS, 7, "other", 14.0), 15.0, Role.FOLLOWING, Write(7)),
        (election.saw(FOLLOWS, 8, "other", 14.0), 15.0, Role.FOLLOWING, Look()),
        (LEADS, 23.9, Role.LEADING, Write(8)),
        (LEADS, 24.0, Role.SILENT, Write(8)),
        (election.saw(LEADS, 9, "me", 24.5), 24.5, Role.SILENT, Write(9)),
        (election.wrote(LEADS, 9, 24.5), 28.4, Role.LEADING, Write(9)),
        (election.wrote(election.wrote(LEADS, 9, 24.5), 10, 23.0), 28.4, Role.LEADING, Write(10)),
    ],
)
def test_what_a_replica_is_and_does(state, now, role, move):
    """A key that is free is claimed at once, one that is held after its time; who leads writes on, and acts in time."""
    assert election.role(state, now) is role
    assert election.next_move(state, now) == move


@pytest.mark.parametrize("holder", ["other", ""])
def test_deposed_for_ever(holder):
    """Who led and finds another's name, or none, never acts again: not even its own write's late confirmation helps."""
    deposed = election.saw(LEADS, 9, holder, 21.0)
    assert election.role(deposed, 21.0) is Role.DEPOSED
    assert election.role(election.wrote(deposed, 8, 21.0), 21.0) is Role.DEPOSED


@dataclass
class Replica:
    """One replica with a clock of its own: `rate` of its seconds pass in one of the world's."""

    name: str
    rate: float
    offset: float
    state: Election = field(init=False)
    under_way: list[tuple[str, object]] = field(default_factory=list)
    """Calls: sent, done at the bucket, answered."""

    def __post_init__(self):
        self.state = Election(self.name, LEASE_S)

    def now(self, time):
        """What its clock says."""
        return self.offset + self.rate * time


@dataclass
class World:
    """The bucket, and time."""

    replicas: list[Replica]
    time: float = 0.0
    revision: int = 0
    holder: str = ""
    led: set[str] = field(default_factory=set)

    def move(self, index, kind):
        """Let one replica send its next call, its call arrive, or its answer come back, or be lost."""
        replica = self.replicas[index % len(self.replicas)]
        now = replica.now(self.time)
        if replica.state.deposed:
            replica.state, replica.under_way = Election(f"{replica.name}'", LEASE_S), []
            replica.name += "'"
        match kind, replica.under_way:
            case "send", []:
                replica.under_way = [("sent", (election.next_move(replica.state, now), now))]
            case "arrive", [("sent", (Look(), _))]:
                replica.under_way = [("read", (self.revision, self.holder))]
            case "arrive", [("sent", (Write(expected), sent_at))]:
                if expected == self.revision:
                    self.revision, self.holder = self.revision + 1, replica.name
                    replica.under_way = [("written", (self.revision, sent_at))]
                else:
                    replica.under_way = [("sent", (Look(), now))]
            case "answer", [("read", (revision, holder))]:
                replica.state, replica.under_way = election.saw(replica.state, revision, holder, now), []
            case "answer", [("written", (revision, sent_at))]:
                replica.state, replica.under_way = election.wrote(replica.state, revision, sent_at), []
            case "lose", _:
                replica.under_way = []
            case "hand over", []:
                if replica.state.leads and self.revision == replica.state.revision:
                    self.revision, self.holder = self.revision + 1, ""
                    replica.state = Election(f"{replica.name}'", LEASE_S)
                    replica.name += "'"
        self.check()

    def check(self):
        """At most one acts."""
        acting = [one.name for one in self.replicas if election.role(one.state, one.now(self.time)) is Role.LEADING]
        assert len(acting) <= 1
        self.led.update(acting)


KINDS = st.sampled_from(["send", "arrive", "answer"] * 4 + ["lose", "hand over"])
MOVES = st.lists(
    st.one_of(st.tuples(st.integers(0, 2), KINDS), st.sampled_from([0.1, 0.9, 1.1, 3.9, 5.1, 30.0])),
    min_size=30,
    max_size=150,
)


_ANSWERED_LATE = [(0, "send"), (2, "send"), (2, "arrive"), (2, "answer"), 1.1, (2, "send"), (2, "arrive")]
_ANSWERED_LATE += [(0, "arrive"), (0, "answer"), 3.9]


@settings(max_examples=400, deadline=None)
@example(_ANSWERED_LATE, [(1.0, 0.0), (1.0, 0.0), (0.9375, -7.0)])  # a clock below zero
@given(MOVES, st.lists(st.tuples(st.floats(0.9, 1.1), st.floats(-1e6, 1e6)), min_size=3, max_size=3))
def test_no_two_act_at_once(moves, clocks):
    """Calls that wait, are lost or answered late, replicas that stand still, clocks that run apart by a fifth."""
    world = World([Replica(name, *clock) for name, clock in zip("abc", clocks, strict=True)])
    for move in moves:
        if isinstance(move, float):
            world.time += move
            world.check()
        else:
            world.move(*move)
    for _ in range(60):  # left alone, one of them leads soon
        world.time += LEASE_S / 5
        for index in range(3):
            for kind in ("send", "arrive", "answer", "arrive", "answer"):
                world.move(index, kind)
    assert sum(election.role(one.state, one.now(world.time)) is Role.LEADING for one in world.replicas) == 1
