"""Users, groups, projects, limits and keys from the command line, with a real gateway behind them."""

import json
import time
import urllib.error
import urllib.request

import pytest
from gateway.stage import Stage, tier

from stream_cli import leftovers
from stream_cli.accounts import limits, moment, seconds
from stream_cli.home import open_home
from stream_cli.keys import create, owner_key, read
from stream_core.errors import ConfigError
from stream_core.testing.engine import scripted_engine


@pytest.mark.parametrize(("text", "length"), [("30s", 30), ("5m", 300), ("12h", 43_200), ("90d", 7_776_000)])
def test_lengths_of_time(text, length):
    """A number and a unit; anything else names the option."""
    assert seconds(text, "--overlap") == length
    for wrong in ("", "5", "d", "-1d", "1.5h", "1w"):
        with pytest.raises(ConfigError) as caught:
            seconds(wrong, "--overlap")
        assert caught.value.param == "--overlap"


def test_ends():
    """A length from now, or a day until its end in UTC; the past is refused."""
    assert moment("1h", 1000.5) == 4600
    assert moment("1970-01-01", 1000) == 86_400
    with pytest.raises(ConfigError, match="1970-01-01 is in the past"):
        moment("1970-01-01", 86_400)


def test_limits_are_read():
    """Names are the gateway's, whole numbers and amounts differ, none takes one away; errors name what is wrong."""
    told = limits(["requests_per_minute=60,dollars_per_month=2.5", "tokens_per_month=none"])
    assert told == {"requests_per_minute": 60, "dollars_per_month": 2.5, "tokens_per_month": None}
    for wrong, words in (
        ("requests=1", "no limit 'requests'; there are requests_per_minute"),
        ("requests_per_minute=1.5", "no whole number"),
        ("dollars_per_month=x", "no number"),
        ("dollars_per_month=-1", "less than 0"),
        ("dollars_per_month=nan", "less than 0, or no number"),
    ):
        with pytest.raises(ConfigError, match=words):
            limits([wrong])


def test_keys_before_the_first_start(tmp_path, stream):
    """All that needs no gateway is possible without one; the rest says that it needs one."""
    options = ("--expires", "1d", "--models", "a,b", "--limits", "requests_per_minute=5", "--admin")
    assert stream("keys", "create", "ann", *options, "--home", tmp_path).returncode == 0
    (record,) = read(open_home(tmp_path).keys)
    assert (record.models, record.admin, record.limits.requests_per_minute) == (["a", "b"], True, 5)
    assert 86_000 < record.expires - time.time() <= 86_400
    listed = stream("keys", "list", "--home", tmp_path).stdout
    assert "valid  all tiers (models a,b) (admin)  default  requests_per_minute=5  ann" in listed
    for command in (
        ("keys", "create", "ann", "--user", "user-1"),
        ("keys", "rotate", "key-x"),
        ("users", "list"),
        ("limits", "show", "key", "key-x"),
    ):
        done = stream(*command, "--home", tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert "stream up" in done.stderr


def test_the_owners_key_is_an_admins(tmp_path):
    """Also one that an older version made; and one that has expired is replaced."""
    home = open_home(tmp_path)
    old = create(home.keys, "owner", now=1)
    home.api_key.write_text(old)
    assert owner_key(home, now=2) == old
    assert [record.admin for record in read(home.keys)] == [True]
    expired = create(home.keys, "owner", now=1, expires=5)
    home.api_key.write_text(expired)
    assert owner_key(home, now=5) not in {old, expired}


@pytest.fixture
def home(tmp_path):
    """A state folder beside which a gateway runs, as `stream up` would have it."""
    home = open_home(tmp_path / "home")
    owner_key(home, now=time.time())
    (tmp_path / "stage").mkdir()
    with scripted_engine() as engine:
        stage = Stage(tmp_path / "stage", {"tiers": [tier("local", engine)]})
        with stage.run(keys_file=home.keys, state_dir=home.accounts) as gateway:
            pid = gateway.program.process.pid
            leftovers.write(home, host="127.0.0.1", port=gateway.port, programs={"gateway": pid})
            yield home


def status(home, key):
    """What a key's request gets."""
    url = f"http://127.0.0.1:{leftovers.read(home).port}/v1/models"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"authorization": f"Bearer {key}"})) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.process
def test_accounts_of_a_running_gateway(home, stream):
    """Who is added is listed; a key of theirs is made, limited, exchanged and revoked, and counts at once each time."""

    def run(*words):
        done = stream(*words, "--home", home.root)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    user = run("users", "create", "Ann", "--email", "ann@example.org", "--limits", "tokens_per_minute=9")
    project = run("projects", "create", "Dark", "--privacy", "internal")
    group = run("groups", "create", "physics", "--tiers", "local")
    run("projects", "join", project, user)
    run("groups", "join", group, user)
    assert run("users", "list") == f"{user}  all tiers  default  tokens_per_minute=9  ann@example.org  Ann"
    assert run("projects", "list") == f"{project}  all tiers  internal  Dark"
    assert run("groups", "list") == f"{group}  local  default  physics"
    key = run("keys", "create", "laptop", "--user", user, "--project", project, "--expires", "30d")
    assert status(home, key) == 200
    assert key not in home.keys.read_text()
    line = next(line for line in run("keys", "list").splitlines() if line.endswith("laptop"))
    key_id = line.split()[0]
    assert f"valid  all tiers  default  {user}  {project}  laptop" in line
    run("limits", "set", "key", key_id, "requests_per_minute=60", "dollars_per_month=1.5")
    run("limits", "set", "key", key_id, "requests_per_minute=none")
    shown = run("limits", "show", "key", key_id)
    assert "requests_per_minute=none" in shown
    assert "dollars_per_month=1.5" in shown
    fresh = run("keys", "rotate", key_id, "--overlap", "1h")
    assert status(home, key) == status(home, fresh) == 200
    assert "(still valid)" in run("keys", "list")
    run("keys", "revoke", key_id)
    assert (status(home, key), status(home, fresh)) == (401, 200)
    run("users", "change", user, "--disable")
    assert status(home, fresh) == 401
    run("users", "change", user, "--enable")
    run("projects", "leave", project, user)
    assert status(home, fresh) == 401
    run("groups", "leave", group, user)
    run("groups", "delete", group)
    owner = json.loads(home.keys.read_text())["keys"][0]["id"]
    for words, reason in (
        (("keys", "rotate", owner), "key of the key file"),
        (("users", "change", "user-0", "--disable"), "no user 'user-0'"),
        (("limits", "set", "key", key_id, "tokens=1"), "no limit 'tokens'"),
        (("projects", "create", "x", "--privacy", "secret"), "privacy: 'secret' is not one of public, internal"),
    ):
        done = stream(*words, "--home", home.root)
        assert (done.returncode, done.stdout) == (1, "")
        assert reason in done.stderr
