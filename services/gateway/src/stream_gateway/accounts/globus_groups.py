"""A plug-in for Globus Auth: the groups of a token's bearer, and whether the policies that were asked for allow them.

Set it as `introspection.extra`, with the endpoint https://auth.globus.org/v2/oauth2/token/introspect, and give this
service's own scope the dependent scope `view_my_groups_and_memberships` of Globus Groups. Claims are completed with

    groups            ids of the Globus groups in which the bearer is an active member

and a token whose answer has `policy_evaluations` (ask for them with `parameters.authentication_policies`) is refused
unless each of them allows it. Docs: https://docs.globus.org/api/auth/reference/#token_introspection_post_v2oauth2tokenintrospect
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urljoin

from stream_core.errors import NotAllowed, UpstreamUnavailable
from stream_gateway.accounts.answers import ask
from stream_gateway.accounts.introspecting import Question

_GROUPS_SERVER: Final = "groups.api.globus.org"
_MY_GROUPS: Final = "https://groups.api.globus.org/v2/groups/my_groups"
URL_PARAMETER: Final = "x_groups_url"
"""A field of `parameters` that names another address of Globus Groups, for tests."""


async def groups(question: Question) -> Mapping[str, Any]:
    """Give the bearer's groups.

    Raises:
        NotAllowed: a policy forbids its bearer.
        UpstreamUnavailable: Globus Auth or Globus Groups do not answer as they should.
    """
    evaluations = question.claims.get("policy_evaluations") or {}
    if not isinstance(evaluations, Mapping) or not all(_allows(each) for each in evaluations.values()):
        raise NotAllowed("a policy of this service's Globus Auth does not allow the bearer of this token")
    token = await _dependent_token(question)
    url = question.settings.parameters.get(URL_PARAMETER, _MY_GROUPS)
    listed = await ask(question.session, url, authorization=f"Bearer {token}")
    if not isinstance(listed, list):
        raise UpstreamUnavailable("Globus Groups answers with no list of groups")
    return {question.settings.claims.groups or "groups": [str(each["id"]) for each in listed if _is_member(each)]}


async def _dependent_token(question: Question) -> str:
    """Exchange the bearer's token for one with which this service may ask for their groups."""
    form = {"grant_type": "urn:globus:auth:grant_type:dependent_token", "token": question.token}
    url = urljoin(question.settings.endpoint, "/v2/oauth2/token")
    given = await ask(question.session, url, form=form, authorization=question.authorization)
    for each in given if isinstance(given, list) else ():
        if isinstance(each, dict) and each.get("resource_server") == _GROUPS_SERVER:
            return str(each.get("access_token"))
    raise UpstreamUnavailable("Globus Auth gives no token for Globus Groups: has the scope that dependent scope?")


def _allows(evaluation: object) -> bool:
    return isinstance(evaluation, Mapping) and evaluation.get("evaluation") is True


def _is_member(group: object) -> bool:
    if not isinstance(group, dict) or "id" not in group:
        return False
    memberships = group.get("my_memberships", ())
    return any(isinstance(each, dict) and each.get("status") == "active" for each in memberships)
