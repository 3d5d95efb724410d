"""What an API server serves: asked of it, never assumed from its version.

Source: the discovery documents `/api`, `/apis`, `/api/v1`, `/apis/<group>/<version>` (Kubernetes
API concepts, "Discovery"), which old and current servers answer alike.
"""

from datetime import datetime
from typing import Any, Final

from interlock_servers.transports.kube.connection import Connection
from interlock_servers.transports.kube.kinds import Kind, ServedKind
from interlock_tools.errors import NotFoundError

REMEMBERED_S: Final = 60.0  # a CRD that is installed meanwhile is found after so long


class Discovery:
    """Finds kinds on one server, and remembers them for a minute."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._groups: dict[str, tuple[str, ...]] = {}
        self._groups_at: datetime | None = None
        self._resources: dict[tuple[str, str], dict[str, Any]] = {}

    def forget(self) -> None:
        """Ask again at the next look: something was not where it had been."""
        self._groups_at = None

    async def version(self) -> str:
        """The server's version, such as `v1.20.2`."""
        return str((await self._connection.read("/version")).get("gitVersion", "unknown"))

    async def find(self, kind: Kind) -> ServedKind:
        """The kind as it is served, in the version that the component likes best.

        Raises:
            NotFoundError: it is not served, or only in versions that the component does not read;
                the message says which.
            FactoryError: discovery was not answered.
        """
        served = (await self.groups()).get(kind.group, ())
        elsewhere = []
        for version in served:
            resources = await self._resources_of(kind.group, version)
            if kind.plural not in resources:
                continue
            if version not in kind.versions:
                elsewhere.append(version)
        for version in kind.versions:
            if version not in served:
                continue
            resources = await self._resources_of(kind.group, version)
            found = resources.get(kind.plural)
            if found is not None:
                begin = f"{kind.plural}/"
                return ServedKind(
                    kind,
                    version,
                    frozenset(found.get("verbs") or ()),
                    {
                        name.removeprefix(begin): _own_version(each)
                        for name, each in resources.items()
                        if name.startswith(begin)
                    },
                )
        name = self._connection.settings.name
        if elsewhere:
            raise NotFoundError(
                f"{name} serves {kind.name} as {', '.join(elsewhere)} only; we read "
                f"{', '.join(kind.versions)}"
            )
        raise NotFoundError(f"{name} does not serve {kind.name}: it is not installed there")

    async def missing(self, kinds: tuple[Kind, ...]) -> dict[str, str]:
        """Why kinds are not there, by name; those that are there are left out."""
        absent: dict[str, str] = {}
        for kind in kinds:
            try:
                await self.find(kind)
            except NotFoundError as error:
                absent[kind.name] = str(error)
        return absent

    async def groups(self) -> dict[str, tuple[str, ...]]:
        """The versions of each group that is served; the core group is empty.

        Raises:
            FactoryError: discovery was not answered.
        """
        now = self._connection.clock.now()
        if self._groups_at is not None and (now - self._groups_at).total_seconds() <= REMEMBERED_S:
            return self._groups
        core = await self._connection.read("/api")
        named = await self._connection.read("/apis")
        groups = {"": tuple(map(str, core.get("versions") or ()))}
        for group in named.get("groups") or ():
            versions = group.get("versions") or ()
            groups[str(group.get("name"))] = tuple(str(v.get("version")) for v in versions)
        self._groups, self._groups_at = groups, now
        self._resources.clear()
        return groups

    async def _resources_of(self, group: str, version: str) -> dict[str, Any]:
        known = self._resources.get((group, version))
        if known is None:
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            try:
                listed = await self._connection.read(path)
            except NotFoundError:
                listed = {}  # a CRD that went between the two questions
            known = {str(each.get("name")): each for each in listed.get("resources") or ()}
            self._resources[group, version] = known
        return known


def _own_version(resource: Any) -> str:
    """The API version of a subresource's body, where it is another one than the object's."""
    group, version = resource.get("group"), resource.get("version")
    return f"{group}/{version}" if group and version else str(version or "")
