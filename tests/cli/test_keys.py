"""API keys in the state folder, by functions and by the command."""

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from stream_cli.home import open_home
from stream_cli.keys import create, owner_key, read, revoke
from stream_core.api_keys import digest
from stream_core.errors import ConfigError


def test_a_key_is_kept_as_its_hash_only(tmp_path):
    """The file has mode 0600 and holds what is needed to check a key, never the key."""
    path = tmp_path / "keys.json"
    key = create(path, "ann", now=1000.5, tiers=["local", "hpc"], privacy="internal", clusters=["alpha"])
    (record,) = read(path)
    assert key not in path.read_text()
    assert (record.name, record.sha256, record.created) == ("ann", digest(key), 1000)
    assert (record.tiers, record.privacy, record.revoked) == (["local", "hpc"], "internal", False)
    assert record.clusters == ["alpha"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_revoking_keeps_the_record_and_the_other_keys(tmp_path):
    """A revoked key stays in the list as revoked; nothing else changes."""
    path = tmp_path / "keys.json"
    create(path, "ann", now=1)
    create(path, "ben", now=2)
    ann, ben = read(path)
    revoke(path, ann.id)
    assert [(r.name, r.revoked) for r in read(path)] == [("ann", True), ("ben", False)]
    assert read(path)[1] == ben


def test_an_unknown_id_is_refused(tmp_path):
    """Revoking what is not there is an error that says where to look."""
    with pytest.raises(ConfigError, match="no key has the id 'key-x'; `stream keys list`"):
        revoke(tmp_path / "keys.json", "key-x")


def test_a_key_needs_a_name(tmp_path):
    """A blank name is refused, and no file is written."""
    with pytest.raises(ConfigError, match="name"):
        create(tmp_path / "keys.json", "  ", now=1)
    assert read(tmp_path / "keys.json") == []


def test_keys_made_at_once_are_all_kept(tmp_path):
    """Writers wait for each other: none overwrites another's key."""
    path = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda number: create(path, f"user {number}", now=1), range(24)))
    assert {record.sha256 for record in read(path)} == {digest(key) for key in keys}


def test_a_broken_file_is_named(tmp_path):
    """A key file that is no JSON is an error with its path, never an empty list."""
    (tmp_path / "keys.json").write_text("{")
    with pytest.raises(ConfigError, match=r"keys\.json"):
        read(tmp_path / "keys.json")


def test_the_owners_key_stays_until_it_is_revoked(tmp_path):
    """Starts give the same key; after its revocation, or when keys.json is lost, a new and valid one is made."""
    home = open_home(tmp_path)
    key = owner_key(home, now=1)
    assert owner_key(home, now=2) == key
    assert stat.S_IMODE(home.api_key.stat().st_mode) == 0o600
    revoke(home.keys, read(home.keys)[0].id)
    second = owner_key(home, now=3)
    assert second != key
    home.keys.unlink()
    third = owner_key(home, now=4)
    assert third not in {key, second}
    assert [record.sha256 for record in read(home.keys)] == [digest(third)]


def test_the_command_makes_lists_and_revokes(tmp_path, stream):
    """`stream keys` shows a key once, lists it without it, and revokes it by its id."""
    made = stream(
        *("keys", "create", "ann", "--tiers", "local,hpc", "--privacy", "internal"),
        *("--clusters", "alpha, beta", "--full-context", "--home", tmp_path),
    )
    key = made.stdout.strip()
    assert (made.returncode, key.startswith("sk-stream-")) == (0, True)
    listed = stream("keys", "list", "--home", tmp_path).stdout
    assert key not in listed
    assert "valid  local,hpc (clusters alpha,beta) (never condensed)  internal  ann" in listed
    key_id = listed.split()[0]
    assert stream("keys", "revoke", key_id, "--home", tmp_path).returncode == 0
    assert "revoked" in stream("keys", "list", "--home", tmp_path).stdout
    wrong = stream("keys", "revoke", "key-nope", "--home", tmp_path)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "no key has the id 'key-nope'" in wrong.stderr
