"""/admin/v1: users, groups and projects. For admins alone; in effect here at once, at other replicas within seconds."""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from stream_core.errors import NotAllowed
from stream_gateway.accounts.administration import Administration
from stream_gateway.accounts.entrance import Entrance
from stream_gateway.accounts.faults import NoSuchAccount
from stream_gateway.accounts.principal import Principal
from stream_gateway.accounts.records import Group, Project, User
from stream_gateway.routes.admin_shapes import (
    Deleted,
    GroupChange,
    GroupView,
    NewGroup,
    NewProject,
    NewUser,
    ProjectChange,
    ProjectView,
    UserChange,
    UserView,
)
from stream_gateway.routes.callers import page
from stream_gateway.routes.models import Error

_LONGEST_PAGE: Final = 1_000
AccountId = Annotated[str, Path(max_length=64, pattern=r"^[a-z]+-[0-9a-f]+$")]
After = Annotated[str | None, Query(max_length=64)]
PageLimit = Annotated[int, Query(ge=1, le=_LONGEST_PAGE)]
_Issuer = Annotated[str | None, Query(max_length=500)]
_V = TypeVar("_V", bound=BaseModel)


class AccountList(BaseModel, Generic[_V]):
    """A page, the oldest first."""

    object: str = "list"
    data: list[_V]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Admins:
    """Lets admins in, and nobody else; a dependency of FastAPI."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance

    async def __call__(self, request: Request) -> Principal:
        """Authenticate a request.

        Raises:
            NotAllowed: whoever asks is no admin.
        """
        principal = await self._entrance.authenticate(request.headers.raw)
        if not principal.admin:
            raise NotAllowed("these credentials are not those of an admin")
        return principal


def admin_router(tag: str) -> APIRouter:
    """Begin a router of the admin API."""
    return APIRouter(
        prefix="/admin/v1",
        tags=[tag],
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses={
            400: {"model": Error, "description": "A field is wrong; the message names it and its limit"},
            401: {"model": Error, "description": "No valid credentials"},
            403: {"model": Error, "description": "Not those of an admin"},
            404: {"model": Error, "description": "No such account, or no accounts in this deployment"},
            409: {"model": Error, "description": "The name is taken"},
            503: {"model": Error, "description": "The store of accounts does not answer now"},
        },
    )


def account_routes(entrance: Entrance, administration: Administration) -> APIRouter:
    """Build the routes of users, groups and projects.

    Args:
        entrance: who may.
        administration: does it.
    """
    router = admin_router("accounts")
    admin = Annotated[Principal, Depends(Admins(entrance))]
    _user_routes(router, administration, admin)
    _group_routes(router, administration, admin)
    _project_routes(router, administration, admin)
    return router


def _user_routes(router: APIRouter, administration: Administration, admin: Any) -> None:
    @router.get("/users", summary="List users", operation_id="list_users")
    async def list_users(
        _by: admin,
        limit: PageLimit = 100,
        after: After = None,
        issuer: Annotated[str | None, Query(max_length=500)] = None,
    ) -> AccountList[UserView]:
        users = (await administration.seen()).users.values()
        return listed((user for user in users if issuer in {None, user.issuer}), UserView.of, after, limit)

    @router.post("/users", summary="Add a user", operation_id="add_user")
    async def add_user(body: NewUser, by: admin) -> UserView:
        id_ = await administration.add(body.altered(User("", body.name)), by.id)
        return UserView.of((await administration.seen()).users[id_])

    @router.get("/users/{id}", summary="One of them", operation_id="get_user")
    async def get_user(id: AccountId, _by: admin) -> UserView:  # noqa: A002  (the path's word)
        return UserView.of(found((await administration.seen()).users, id, "user"))

    @router.patch("/users/{id}", summary="Change a user", operation_id="change_user")
    async def change_user(id: AccountId, body: UserChange, by: admin) -> UserView:  # noqa: A002
        await administration.alter(User, id, body.altered, by.id)
        return UserView.of((await administration.seen()).users[id])


def _group_routes(router: APIRouter, administration: Administration, admin: Any) -> None:
    @router.get("/groups", summary="List groups", operation_id="list_groups")
    async def list_groups(_by: admin, limit: PageLimit = 100, after: After = None) -> AccountList[GroupView]:
        return listed((await administration.seen()).groups.values(), GroupView.of, after, limit)

    @router.post("/groups", summary="Add a group", operation_id="add_group")
    async def add_group(body: NewGroup, by: admin) -> GroupView:
        id_ = await administration.add(body.altered(Group("", body.name)), by.id)
        return GroupView.of((await administration.seen()).groups[id_])

    @router.get("/groups/{id}", summary="One of them", operation_id="get_group")
    async def get_group(id: AccountId, _by: admin) -> GroupView:  # noqa: A002
        return GroupView.of(found((await administration.seen()).groups, id, "group"))

    @router.patch("/groups/{id}", summary="Change a group", operation_id="change_group")
    async def change_group(id: AccountId, body: GroupChange, by: admin) -> GroupView:  # noqa: A002
        await administration.alter(Group, id, body.altered, by.id)
        return GroupView.of((await administration.seen()).groups[id])

    @router.delete("/groups/{id}", summary="Delete a group; its users stay", operation_id="delete_group")
    async def delete_group(id: AccountId, by: admin) -> Deleted:  # noqa: A002
        await administration.drop_group(id, by.id)
        return Deleted(id=id, object="group")

    @router.put("/groups/{id}/members/{user}", summary="Put a user into a group", operation_id="join_group")
    async def join_group(id: AccountId, user: AccountId, by: admin) -> UserView:  # noqa: A002
        await administration.enrol(Group, id, user, by.id, member=True)
        return UserView.of((await administration.seen()).users[user])

    @router.delete("/groups/{id}/members/{user}", summary="Take a user out of a group", operation_id="leave_group")
    async def leave_group(id: AccountId, user: AccountId, by: admin) -> UserView:  # noqa: A002
        await administration.enrol(Group, id, user, by.id, member=False)
        return UserView.of((await administration.seen()).users[user])


def _project_routes(router: APIRouter, administration: Administration, admin: Any) -> None:
    @router.get("/projects", summary="List projects", operation_id="list_projects")
    async def list_projects(_by: admin, limit: PageLimit = 100, after: After = None) -> AccountList[ProjectView]:
        return listed((await administration.seen()).projects.values(), ProjectView.of, after, limit)

    @router.post("/projects", summary="Add a project", operation_id="add_project")
    async def add_project(body: NewProject, by: admin) -> ProjectView:
        id_ = await administration.add(body.altered(Project("", body.name)), by.id)
        return ProjectView.of((await administration.seen()).projects[id_])

    @router.get("/projects/{id}", summary="One of them", operation_id="get_project")
    async def get_project(id: AccountId, _by: admin) -> ProjectView:  # noqa: A002
        return ProjectView.of(found((await administration.seen()).projects, id, "project"))

    @router.patch("/projects/{id}", summary="Change a project", operation_id="change_project")
    async def change_project(id: AccountId, body: ProjectChange, by: admin) -> ProjectView:  # noqa: A002
        await administration.alter(Project, id, body.altered, by.id)
        return ProjectView.of((await administration.seen()).projects[id])

    @router.put("/projects/{id}/members/{user}", summary="Put a user into a project", operation_id="join_project")
    async def join_project(id: AccountId, user: AccountId, by: admin) -> ProjectView:  # noqa: A002
        await administration.enrol(Project, id, user, by.id, member=True)
        return ProjectView.of((await administration.seen()).projects[id])

    @router.delete("/projects/{id}/members/{user}", summary="Take a user out of it", operation_id="leave_project")
    async def leave_project(id: AccountId, user: AccountId, by: admin) -> ProjectView:  # noqa: A002
        await administration.enrol(Project, id, user, by.id, member=False)
        return ProjectView.of((await administration.seen()).projects[id])


def listed(records: Iterable[Any], view: Any, after: str | None, limit: int) -> AccountList[Any]:
    """Show a page of records.

    Raises:
        InvalidRequest: `after` names none of them.
    """
    items, more = page(sorted(records, key=lambda record: (record.created, record.id)), after, limit)
    first, last = (items[0].id, items[-1].id) if items else (None, None)
    return AccountList(data=[view(item) for item in items], first_id=first, last_id=last, has_more=more)


def found(records: Any, id_: str, kind: str) -> Any:
    """Find a record.

    Raises:
        NoSuchAccount: there is none of this id.
    """
    if id_ not in records:
        raise NoSuchAccount(f"there is no {kind} {id_!r}", param="id")
    return records[id_]
