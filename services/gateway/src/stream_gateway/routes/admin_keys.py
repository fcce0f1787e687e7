"""/admin/v1/keys and /limits: API keys, shown once when they are made, and what keys, users and projects may spend."""

from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query
from msgspec.structs import asdict

from stream_core.api_keys import Limits
from stream_gateway.accounts.administration import Administration
from stream_gateway.accounts.entrance import Entrance
from stream_gateway.accounts.life import Accounts
from stream_gateway.accounts.principal import Principal
from stream_gateway.accounts.records import Key, Project, User
from stream_gateway.accounts.snapshot import Snapshot
from stream_gateway.routes.admin_accounts import (
    AccountId,
    AccountList,
    Admins,
    After,
    PageLimit,
    account_routes,
    admin_router,
    found,
    listed,
)
from stream_gateway.routes.admin_shapes import (
    IssuedKey,
    KeyChange,
    KeyView,
    LimitsBody,
    LimitsView,
    NewKey,
    Rotation,
)

_KINDS: Final[dict[str, type[Key] | type[User] | type[Project]]] = {"key": Key, "user": User, "project": Project}
_Kind = Literal["key", "user", "project"]
_Filter = Annotated[str | None, Query(max_length=64)]


def admin_routes(accounts: Accounts) -> list[APIRouter]:
    """Build the routes of the admin API.

    Args:
        accounts: who may, and what is changed.
    """
    parts = accounts.entrance, accounts.administration
    return [account_routes(*parts), key_routes(*parts)]


def key_routes(entrance: Entrance, administration: Administration) -> APIRouter:
    """Build the routes of keys and limits.

    Args:
        entrance: who may.
        administration: does it.
    """
    router = admin_router("keys")
    admin = Annotated[Principal, Depends(Admins(entrance))]
    _reading(router, administration, admin)
    _changing(router, administration, admin)
    _limiting(router, administration, admin)
    return router


def _reading(router: APIRouter, administration: Administration, admin: Any) -> None:
    @router.get("/keys", summary="List keys, without the keys themselves", operation_id="list_keys")
    async def list_keys(
        _by: admin,
        limit: PageLimit = 100,
        after: After = None,
        user: _Filter = None,
        project: _Filter = None,
        prefix: Annotated[str | None, Query(max_length=32, description="Its first characters")] = None,
    ) -> AccountList[KeyView]:
        snapshot = await administration.seen()
        of_file = {key.id for key in administration.file_keys()}

        def wanted(key: Key) -> bool:
            return user in {None, key.user} and project in {None, key.project} and key.prefix.startswith(prefix or "")

        keys = [*administration.file_keys(), *snapshot.keys.values()]
        return listed(filter(wanted, keys), lambda key: KeyView.of(key, of_file=key.id in of_file), after, limit)

    @router.get("/keys/{id}", summary="One of them", operation_id="get_key")
    async def get_key(id: AccountId, _by: admin) -> KeyView:  # noqa: A002  (the path's word)
        snapshot = await administration.seen()
        of_file = {key.id: key for key in administration.file_keys()}
        return KeyView.of(found({**snapshot.keys, **of_file}, id, "key"), of_file=id in of_file)


def _changing(router: APIRouter, administration: Administration, admin: Any) -> None:
    @router.post("/keys", summary="Make a key; it is shown this once", operation_id="issue_key")
    async def issue_key(body: NewKey, by: admin) -> IssuedKey:
        key, id_ = await administration.issue(body.altered(Key("", body.name, "", "")), by.id)
        return await issued(key, id_)

    @router.patch("/keys/{id}", summary="Change what a key may", operation_id="change_key")
    async def change_key(id: AccountId, body: KeyChange, by: admin) -> KeyView:  # noqa: A002
        await administration.alter(Key, id, body.altered, by.id)
        return KeyView.of((await administration.seen()).keys[id])

    @router.post("/keys/{id}/revoke", summary="Revoke a key for good", operation_id="revoke_key")
    async def revoke_key(id: AccountId, by: admin) -> KeyView:  # noqa: A002
        await administration.revoke(id, by.id)
        return KeyView.of((await administration.seen()).keys[id])

    @router.post(
        "/keys/{id}/rotate",
        summary="Exchange a key for a new one, which is shown this once; the old one goes on for a while",
        operation_id="rotate_key",
    )
    async def rotate_key(id: AccountId, by: admin, body: Rotation | None = None) -> IssuedKey:  # noqa: A002
        key, new_id = await administration.rotate(id, (body or Rotation()).overlap_s, by.id)
        return await issued(key, new_id)

    async def issued(key: str, id_: str) -> IssuedKey:
        view = KeyView.of((await administration.seen()).keys[id_])
        return IssuedKey(key=key, **view.model_dump())


def _limiting(router: APIRouter, administration: Administration, admin: Any) -> None:
    @router.get("/limits/{kind}/{id}", summary="Limits of a key, user or project", operation_id="get_limits")
    async def get_limits(kind: _Kind, id: AccountId, _by: admin) -> LimitsView:  # noqa: A002
        return shown(await administration.seen(), kind, id)

    @router.put("/limits/{kind}/{id}", summary="Set all of its limits", operation_id="set_limits")
    async def set_limits(kind: _Kind, id: AccountId, body: LimitsBody, by: admin) -> LimitsView:  # noqa: A002
        limits: Limits = body.limits()

        def altered(record: Any) -> Any:
            return replace(record, limits=limits)

        await administration.alter(_KINDS[kind], id, altered, by.id)
        return shown(await administration.seen(), kind, id)

    def shown(snapshot: Snapshot, kind: _Kind, id_: str) -> LimitsView:
        keys = {**snapshot.keys, **{key.id: key for key in administration.file_keys()}}
        records: dict[str, Any] = {"key": keys, "user": snapshot.users, "project": snapshot.projects}
        record = found(records[kind], id_, kind)
        return LimitsView(kind=kind, id=id_, limits=LimitsBody(**asdict(record.limits)))
