"""What we may do on a cluster: asked of the server itself, by SelfSubjectAccessReview.

Source: authorization.k8s.io/v1. The answer is about this moment; the server decides again at each
call.
"""

from collections.abc import Iterable
from typing import NamedTuple

import anyio

from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.kinds import ACCESS_REVIEWS, Kind


class Access(NamedTuple):
    """One thing that somebody may do, or not.

    Attributes:
        subresource: such as `status`; empty for the object itself.
        name: where it is about one object by name.
    """

    verb: str
    kind: Kind
    namespace: str = ""
    subresource: str = ""
    name: str = ""

    def __str__(self) -> str:
        """As a person would ask for it: `create rebootnodes.janitor.dgxc.nvidia.com`."""
        part = f"/{self.subresource}" if self.subresource else ""
        one = f" {self.name}" if self.name else ""
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.kind.plural}{part}.{self.kind.group}".rstrip(".") + one + where


async def refused(client: KubeClient, wanted: Iterable[Access]) -> dict[Access, str]:
    """What of this we may not do, each with the server's reason; asked all at once.

    Raises:
        FactoryError: the server did not answer.
    """
    answers: dict[Access, str] = {}

    async def ask(access: Access) -> None:
        attributes = {
            "verb": access.verb,
            "group": access.kind.group,
            "resource": access.kind.plural,
            "subresource": access.subresource,
            "namespace": access.namespace,
            "name": access.name,
        }
        review = {"spec": {"resourceAttributes": {k: v for k, v in attributes.items() if v}}}
        status = (await client.create(ACCESS_REVIEWS, review)).get("status") or {}
        if status.get("allowed") is not True:
            answers[access] = str(status.get("reason") or "the server gives no reason")[:200]

    async with anyio.create_task_group() as asking:
        for access in wanted:
            asking.start_soon(ask, access)
    return answers
