"""NATS user keys: the text form of other programs is read, and nothing else."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from stream_core.errors import ConfigError
from stream_core.nkeys import UserKey, new_seed

# The example pair of NATS' own documentation.
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def test_the_documentations_pair():
    """Its seed has its public half."""
    assert UserKey(SEED).public == PUBLIC


def test_a_new_seed_is_read_and_signs():
    """What is drawn here is read again, and the public half in its text verifies what it signs."""
    key = UserKey(new_seed())
    raw = base64.b32decode(key.public)
    Ed25519PublicKey.from_public_bytes(raw[1:33]).verify(base64.urlsafe_b64decode(key.sign("nonce") + b"=="), b"nonce")
    assert new_seed() != new_seed()


@pytest.mark.parametrize(
    "wrong",
    ["", "SU", PUBLIC, SEED[:-1], SEED[:-1] + "A", SEED.lower(), "SA" + SEED[2:], "not base32!"],
)
def test_anything_else_is_refused_unshown(wrong):
    """A cut, changed or other key is an error that names the setting and shows nothing."""
    with pytest.raises(ConfigError) as caught:
        UserKey(wrong)
    assert caught.value.param == "nats.nkey_file"
    assert len(wrong) < 5 or wrong not in caught.value.message
