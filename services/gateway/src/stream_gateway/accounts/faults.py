"""What can go wrong with the accounts.

InvalidRequest
├── AccountsOff        404 accounts_not_configured: this gateway has no store of accounts
├── NoSuchAccount      404 not_found: no user, group, project or key of this id
└── AccountExists      409 already_exists: another one has this name, or the subject of this issuer
UpstreamUnavailable
└── AccountsAway       503 accounts_unavailable: the store does not answer now
"""

from stream_core.errors import InvalidRequest, UpstreamUnavailable


class AccountsOff(InvalidRequest):
    """This gateway has no store of accounts."""

    code = "accounts_not_configured"
    status_hint = 404


class NoSuchAccount(InvalidRequest):
    """There is no user, group, project or key of this id."""

    code = "not_found"
    status_hint = 404


class AccountExists(InvalidRequest):
    """Another one has this name."""

    code = "already_exists"
    status_hint = 409


class AccountsAway(UpstreamUnavailable):
    """The store of accounts does not answer now; what is known of it stays valid."""

    code = "accounts_unavailable"
