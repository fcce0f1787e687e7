"""What holds for every sequence of events: played against clusters that know only what they were told to do."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from stream_hpc_dispatch import journal
from stream_hpc_dispatch.plan import (
    Announced,
    ClusterSeen,
    ClusterSpec,
    ClusterState,
    JobEnded,
    JobSeen,
    Limits,
    Phase,
    PoolKey,
    PoolSpec,
    PoolState,
    ReportFailure,
    Requested,
    StartJob,
    State,
    StatusSeen,
    StopJob,
    StopRequested,
    Tick,
    step,
)

DAY = 86_400.0
T0 = DAY - 400.0
"""Some minutes before a budget's day ends."""
LIMITS = Limits()
LIMIT_S = 600.0
"""Node-seconds a day of the first cluster."""
KEY, LONE, EACH = PoolKey("here", "tiny"), PoolKey("there", "big"), PoolKey("here", "each")
SPECS = (
    PoolSpec(KEY, 2, 3, 300, 20, renewal_surge=1, max_requests=4, idle_timeout_s=30, max_failures=3, retry_after_s=90),
    PoolSpec(LONE, 0, 2, 250, 60, idle_timeout_s=10, pending_limit_s=40, max_requests=8),
    PoolSpec(EACH, 0, 2, 200, 20, max_requests=1, nodes=2),
)
CLUSTERS = (ClusterState(ClusterSpec("here", node_s_per_day=LIMIT_S)), ClusterState(ClusterSpec("there")))
STEP_S = 5.0
ENDED_AFTER_S = 49.0
"""Clusters end a job at most so long after they were told to."""

JOB_MOVES = ["announce", "restart", "unready", "drain", "failed", "queued", "runs", "end", "crash", "refused"]
OFTEN = [
    st.tuples(st.sampled_from(JOB_MOVES), st.integers(0, 5)),
    st.tuples(st.just("ready"), st.integers(0, 60)),
    st.tuples(st.just("alive"), st.sampled_from([10.0, 60.0])),
    st.tuples(st.just("request"), st.integers(0, 20)),
]
SELDOM = [
    st.tuples(st.just("tick"), st.sampled_from([0.1, 0.5, 1.0, 5.0, 11.0, 31.0, 120.0])),
    st.tuples(st.just("deaf"), st.sampled_from([1.0, 30.0])),
    st.tuples(st.sampled_from(["away", "back"]), st.integers(0, 1)),
]
MOVE = st.one_of(*OFTEN, *OFTEN, *OFTEN, *SELDOM)
MOVES = st.lists(MOVE, min_size=30, max_size=80)


@dataclass
class Job:
    """What a cluster knows of a job."""

    key: PoolKey
    expires: float
    runs_since: float | None = None
    ready_since: float | None = None
    load: int = 0
    served: int = 0
    stopped_at: float | None = None


def beginning():
    """A plan before its first event."""
    return State(tuple(PoolState(spec) for spec in SPECS), LIMITS, clusters=CLUSTERS)


@dataclass
class Campus:
    """Plays the clusters: knows which jobs run by the actions alone."""

    state: State = field(default_factory=beginning)
    now: float = T0
    jobs: dict[int, Job] = field(default_factory=dict)
    blocked_until: dict[PoolKey, float] = field(default_factory=dict)
    last_wait: dict[PoolKey, tuple[int, float]] = field(default_factory=dict)
    used_s: dict[int, float] = field(default_factory=dict)
    offline: set[str] = field(default_factory=set)
    stop_asked: bool = False
    trace: list[tuple[object, list[object]]] = field(default_factory=list)

    def move(self, kind, argument):
        """Play one move and check what must hold after it."""
        number = sorted(self.jobs)[argument % len(self.jobs)] if self.jobs and isinstance(argument, int) else None
        match kind:
            case "tick" | "deaf" | "alive":
                self.pass_time(argument, kind)
            case "request":
                spec = SPECS[argument % len(SPECS)]
                self.take(Requested(self.now, spec.key, argument // 2, f"gateway-{argument % 2}"))
            case "away" | "back":
                cluster = CLUSTERS[argument].spec.name
                (self.offline.add if kind == "away" else self.offline.discard)(cluster)
                for spec in SPECS:
                    if kind == "back" and spec.key.cluster == cluster:
                        self.forgive(spec.key)
                self.take(ClusterSeen(self.now, cluster, kind == "back", "unplugged"))
            case "stop":
                self.stop_asked = True
                self.take(StopRequested(self.now))
            case _ if number is not None:
                self.move_job(kind, number, argument)

    def move_job(self, kind, number, argument):
        """Play one move of a job."""
        job = self.jobs[number]
        if kind not in {"queued", "refused"}:
            job.runs_since = self.now if job.runs_since is None else job.runs_since
        match kind:
            case "queued":
                if job.runs_since is None:
                    self.take(JobSeen(self.now, number, queued=True, position=1))
            case "runs":
                self.take(JobSeen(self.now, number, queued=False))
            case "announce" | "restart":
                self.take(Announced(self.now, number, restarted=kind == "restart"))
            case "ready":
                job.load = argument // 6
                job.served += job.load
                self.beat(number)
            case "unready" | "drain":
                self.take(StatusSeen(self.now, number, engine_ready=kind != "unready", draining=kind == "drain"))
            case "failed":
                self.take(StatusSeen(self.now, number, engine_ready=False, failed="out of luck"))
            case "end" | "crash":
                self.end(number, 0 if kind == "end" else 1)
            case "refused":
                if job.runs_since is None:
                    self.end(number, None, started=False)

    def beat(self, number):
        """Send a heartbeat of a worker that answers."""
        job = self.jobs[number]
        known = self.state.pilot(number)[1]
        will_be_ready = not known.stopping and self.now < known.expires and not known.retiring
        if will_be_ready and known.phase is not Phase.READY:
            self.forgive(job.key)
        self.take(StatusSeen(self.now, number, running=job.load, served=job.served))
        if number in self.jobs and self.state.pilot(number)[1].phase is Phase.READY and job.ready_since is None:
            job.ready_since = self.now

    def forgive(self, key):
        """Forget a pool's failures, as the plan is to."""
        self.blocked_until.pop(key, None)
        self.last_wait.pop(key, None)

    def pass_time(self, seconds, kind):
        """Let time go by in small steps; a cluster ends what it was told to end, and what outstays its lease."""
        end = self.now + seconds
        while self.now < end:
            before, self.now = self.now, min(end, self.now + STEP_S)
            for number, job in list(self.jobs.items()):
                told = job.stopped_at is not None and self.now >= job.stopped_at + ENDED_AFTER_S
                if told:
                    self.account(job, before)
                    self.end(number, -15)
            for job in self.jobs.values():
                self.account(job, before)
            for number in list(self.jobs) if kind == "alive" else []:
                if self.jobs[number].ready_since is not None:
                    self.beat(number)
            self.take(Tick(self.now, listening=kind != "deaf"))

    def account(self, job, before):
        """Add up what a job really used since `before`."""
        spec = next(spec for spec in SPECS if spec.key == job.key)
        if job.runs_since is None or job.key.cluster != "here":
            return
        for day in (0, 1, 2):
            start, end = max(before, job.runs_since, day * DAY), min(self.now, (day + 1) * DAY)
            self.used_s[day] = self.used_s.get(day, 0.0) + spec.nodes * max(0.0, end - start)
            assert self.used_s[day] <= LIMIT_S + 1e-6

    def end(self, number, exit_code, *, started=True):
        """End a job."""
        del self.jobs[number]
        self.take(JobEnded(self.now, number, exit_code, started=started))

    def take(self, event):
        """Give the plan an event, play its actions, check them."""
        before = self.state
        self.state, actions = step(before, event)
        self.trace.append((event, actions))
        failed = {action.pilot for action in actions if isinstance(action, ReportFailure)}
        for action in actions:
            match action:
                case StartJob(number, key, expires):
                    assert not self.stop_asked
                    assert key.cluster not in self.offline
                    assert number not in self.jobs
                    assert expires > self.now
                    assert self.now >= self.blocked_until.get(key, 0)
                    self.jobs[number] = Job(key, expires)
                case StopJob(number):
                    self.check_stop(number, excused=number in failed or self.stop_asked)
                case ReportFailure(_, key, reason, failures, wait):
                    self.check_failure(key, reason, failures, wait)
        for spec in SPECS:
            alive = {number for number, job in self.jobs.items() if job.key == spec.key}
            assert len(alive) <= spec.max_workers + spec.renewal_surge
            assert {pilot.number for pilot in self.state.pool(spec.key).pilots} == alive

    def check_stop(self, number, *, excused):
        """A job is stopped once; without a failure only one that is over, never ran, or has lived and is idle."""
        job = self.jobs[number]
        assert job.stopped_at is None
        job.stopped_at = self.now
        if excused or self.now >= job.expires:
            return
        if job.ready_since is None:
            assert self.state.pilot(number)[1].queued
        else:
            assert job.load == 0
            assert self.now - job.ready_since >= job.ready_since - job.runs_since

    def check_failure(self, key, reason, failures, wait):
        """A failure has words, and its pause grows up to a limit."""
        spec = next(spec for spec in SPECS if spec.key == key)
        assert reason
        assert 0 < wait <= max(LIMITS.backoff_last_s, spec.retry_after_s)
        if failures >= spec.max_failures:
            assert wait >= min(spec.retry_after_s, max(0.0, self.blocked_until.get(key, 0.0) - self.now))
        before = self.last_wait.get(key, (0, 0.0))
        if failures > before[0] > 0:
            assert wait >= min(before[1], LIMITS.backoff_last_s)
        self.last_wait[key] = (failures, wait)
        self.blocked_until[key] = self.now + wait


@settings(max_examples=60, deadline=None)
@given(MOVES, st.booleans())
def test_properties_of_every_run(moves, stopped):
    """Never above max or budget, no start in a pause or outage, each job stopped at most once, none forgotten."""
    campus = Campus()
    campus.take(Tick(T0))
    for kind, argument in [*moves, *([("stop", 0), ("request", 0)] if stopped else [])]:
        campus.move(kind, argument)

    again = beginning()
    for event, actions in campus.trace:
        again, same = step(again, event)
        assert same == actions
    assert again == campus.state
    assert journal.read(journal.write(again), beginning(), campus.now).limits == LIMITS

    left = set(campus.jobs)
    campus.move("tick", 400.0)  # past every lease and its grace, without a word from any worker
    assert not left & set(campus.jobs)
    campus.move("stop", 0)
    campus.move("tick", 60.0)
    assert campus.jobs == {}


@settings(max_examples=30, deadline=None)
@given(MOVES, st.integers(5, 40))
def test_budget_holds_across_a_restart(moves, cut):
    """What the journal says is enough: killed at any point, without its workers, the next run stays in the budget."""
    campus = Campus()
    campus.take(Tick(T0))
    for index, (kind, argument) in enumerate(moves):
        if index == cut:
            campus = replayed(campus)
        campus.move(kind, argument)
        assert all(used_s <= LIMIT_S + 1e-6 for used_s in campus.used_s.values())


def replayed(campus):
    """The campus after a kill: no job outlives it, and the next run knows the journal alone."""
    state = journal.read(journal.write(campus.state), beginning(), campus.now)
    state = replace(state, next_number=campus.state.next_number)
    return Campus(state, now=campus.now, used_s=dict(campus.used_s))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1.0, 59.0),
    st.floats(1.0, 80.0),
    st.lists(st.tuples(st.floats(0.1, 20.0), st.integers(0, 8)), min_size=8, max_size=30),
)
def test_a_worker_lives_at_least_as_long_as_it_took_to_start(startup_s, idle_s, beats):
    """Whatever load comes and goes: one that did not fail is not let go before, nor while it has requests."""
    spec = PoolSpec(LONE, 0, 3, 3600, 60, idle_timeout_s=idle_s, max_requests=4)
    state, actions = step(State((PoolState(spec),)), Requested(T0, LONE, 1, "gateway"))
    now, born, loads, let_go = T0, {}, {}, set()
    for gap_s, load in [(startup_s, 1), *beats, *[(10.0, 0)] * 20]:
        born |= {action.pilot: now for action in actions if isinstance(action, StartJob)}
        now, actions = now + gap_s, []
        for number in sorted(born.keys() - let_go):
            if now >= born[number] + startup_s:
                loads[number] = 0 if state.pilot(number)[1].retiring else load
                state, more = step(state, StatusSeen(now, number, running=loads[number]))
                actions += more
        state, more = step(state, Tick(now))
        actions += more
        for pilot in state.pools[0].pilots:
            if pilot.retiring or pilot.stopping:
                assert now - pilot.ready_at >= pilot.ready_at - born[pilot.number]
                assert not pilot.stopping or loads[pilot.number] == 0
                let_go |= {pilot.number} if pilot.stopping else set()
    assert let_go  # each of these days ends with nothing to do
