"""What the admin API takes and gives."""

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from msgspec.structs import asdict
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from stream_core.api_keys import Limits
from stream_gateway.accounts.records import Group, Key, Project, Record, Rights, User

_MOST: Final = 10**15
_MOST_NAMES: Final = 1_000
LONGEST_OVERLAP_S: Final = 30 * 86_400
DEFAULT_OVERLAP_S: Final = 86_400


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("only printable characters are possible")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Text = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Subject = Annotated[str, Field(max_length=500), AfterValidator(_printable)]
Id = Annotated[str, Field(max_length=64), AfterValidator(_printable)]
Names = Annotated[list[Name], Field(max_length=_MOST_NAMES)]
_Count = Annotated[int, Field(ge=0, le=_MOST)]
_Amount = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]
_Time = Annotated[int, Field(ge=0, le=_MOST)]
_STRICT: Final = ConfigDict(extra="forbid", strict=True)
"""What is described as a number is no text that looks like one."""
_R = TypeVar("_R", bound=Record)


class LimitsBody(BaseModel):
    """Limits; what is null or left out has none."""

    model_config = _STRICT

    requests_per_minute: _Count | None = None
    tokens_per_minute: _Count | None = None
    concurrent_streams: _Count | None = None
    prompt_tokens: _Count | None = None
    tokens_per_month: _Count | None = None
    dollars_per_month: _Amount | None = None
    gpu_hours_per_month: _Amount | None = None

    def limits(self) -> Limits:
        """Read them."""
        return Limits(**self.model_dump())


class Change(BaseModel):
    """Fields of a record; what is left out stays as it is."""

    model_config = _STRICT

    tiers: Names | None = None
    """What it may use; null: every one."""
    models: Names | None = None
    clusters: Names | None = None
    privacy: Name | None = None
    """Class of all its requests, which other classes can only raise; null: the policy's default."""
    own: ClassVar[tuple[str, ...]] = ()
    """Its fields that a record has under the same name."""

    def altered(self, record: _R) -> _R:
        """Give the record as it is to be."""
        given = self.model_fields_set
        values: dict[str, Any] = {name: getattr(self, name) for name in self.own if name in given}
        rights: dict[str, Any] = {
            name: _set(getattr(self, name)) for name in ("tiers", "models", "clusters") if name in given
        }
        if "privacy" in given:
            rights["privacy"] = self.privacy
        values["rights"] = replace(record.rights, **rights)
        if "limits" in given:
            limits: LimitsBody | None = getattr(self, "limits", None)
            values["limits"] = limits.limits() if limits is not None else Limits()
        return replace(record, **values)


class UserChange(Change):
    """A user's fields."""

    own: ClassVar[tuple[str, ...]] = ("name", "email", "disabled", "admin")
    name: Name = ""
    email: Text = ""
    disabled: bool = False
    admin: bool = False
    limits: LimitsBody | None = None


class NewUser(UserChange):
    """A user who is not there yet."""

    own: ClassVar[tuple[str, ...]] = (*UserChange.own, "issuer", "subject")
    name: Name
    issuer: Subject = ""
    """Who vouches for them in tokens; with `subject`, or neither."""
    subject: Subject = ""

    @model_validator(mode="after")
    def _both_or_none(self) -> "NewUser":
        if bool(self.issuer) != bool(self.subject):
            raise ValueError("issuer and subject go together")
        return self


class GroupChange(Change):
    """A group's fields."""

    own: ClassVar[tuple[str, ...]] = ("name",)
    name: Name = ""


class NewGroup(GroupChange):
    """A group that is not there yet."""

    name: Name


class ProjectChange(Change):
    """A project's fields."""

    own: ClassVar[tuple[str, ...]] = ("name", "disabled", "keeps_content")
    name: Name = ""
    disabled: bool = False
    keeps_content: bool = False
    """Whether its contents go into the audit log."""
    limits: LimitsBody | None = None


class NewProject(ProjectChange):
    """A project that is not there yet."""

    name: Name


class KeyChange(Change):
    """A key's fields."""

    own: ClassVar[tuple[str, ...]] = ("name", "admin", "whole", "expires")
    name: Name = ""
    admin: bool = False
    whole: bool = False
    """Whether its conversations may never be condensed."""
    expires: _Time | None = None
    """Unix seconds; null: never."""
    limits: LimitsBody | None = None


class NewKey(KeyChange):
    """A key that is not there yet."""

    own: ClassVar[tuple[str, ...]] = (*KeyChange.own, "user", "project")
    name: Name
    user: Id = ""
    project: Id = ""


class Rotation(BaseModel):
    """How a key is exchanged for a new one."""

    model_config = _STRICT

    overlap_s: Annotated[int, Field(ge=0, le=LONGEST_OVERLAP_S)] = DEFAULT_OVERLAP_S
    """How long the old one goes on."""


class AccountView(BaseModel):
    """What all have."""

    id: str
    name: str
    tiers: list[str] | None
    models: list[str] | None
    clusters: list[str] | None
    privacy: str | None
    created: int


class UserView(AccountView):
    """A user."""

    object: Literal["user"] = "user"
    email: str
    issuer: str
    subject: str
    disabled: bool
    admin: bool
    groups: list[str]
    """Ids."""
    told_groups: list[str]
    """Names, by their last token."""
    told_tiers: list[str] | None
    limits: LimitsBody

    @classmethod
    def of(cls, user: User) -> "UserView":
        """Show one."""
        told = None if user.told_tiers is None else sorted(user.told_tiers)
        lists = {"groups": sorted(user.groups), "told_groups": sorted(user.told_groups), "told_tiers": told}
        return cls(**_common(user), **lists, **_plain(user, "email", "issuer", "subject", "disabled", "admin"))


class GroupView(AccountView):
    """A group."""

    object: Literal["group"] = "group"

    @classmethod
    def of(cls, group: Group) -> "GroupView":
        """Show one."""
        return cls(**_common(group))


class ProjectView(AccountView):
    """A project."""

    object: Literal["project"] = "project"
    disabled: bool
    keeps_content: bool
    members: list[str]
    """Ids of users."""
    limits: LimitsBody

    @classmethod
    def of(cls, project: Project) -> "ProjectView":
        """Show one."""
        return cls(**_common(project), members=sorted(project.members), **_plain(project, "disabled", "keeps_content"))


class KeyView(AccountView):
    """A key, without the key itself."""

    object: Literal["key"] = "key"
    prefix: str
    user: str
    project: str
    admin: bool
    whole: bool
    expires: int | None
    revoked: int | None
    owner: str
    """Id of the first of a line of keys that were exchanged: under it files, batches and usage are kept."""
    replaced_by: str
    valid_until: int | None
    """Until when it goes on beside the key that replaces it."""
    source: Literal["store", "file"]
    """A key of the key file can be seen here, and is changed where that file is."""
    limits: LimitsBody

    @classmethod
    def of(cls, key: Key, *, of_file: bool = False) -> "KeyView":
        """Show one."""
        fields = _plain(key, "prefix", "user", "project", "admin", "whole", "expires", "revoked", "owner")
        fields |= _plain(key, "replaced_by", "valid_until")
        return cls(**_common(key), **fields, source="file" if of_file else "store")


class IssuedKey(KeyView):
    """A key that was just made: the only time that it is shown."""

    key: str


class Deleted(BaseModel):
    """What was deleted."""

    id: str
    object: str
    deleted: Literal[True] = True


class LimitsView(BaseModel):
    """Limits of one key, user or project."""

    object: Literal["limits"] = "limits"
    kind: Literal["key", "user", "project"]
    id: str
    limits: LimitsBody


def _common(record: Record) -> dict[str, Any]:
    rights: Rights = record.rights
    lists = {name: _sorted(getattr(rights, name)) for name in ("tiers", "models", "clusters")}
    limits = {} if isinstance(record, Group) else {"limits": LimitsBody(**asdict(record.limits))}
    return {**_plain(record, "id", "name", "created"), **lists, "privacy": rights.privacy, **limits}


def _plain(record: object, *names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


def _sorted(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _set(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
