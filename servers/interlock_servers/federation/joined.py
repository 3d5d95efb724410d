"""All federated servers of a site: their facts, operations and faces, and their connections."""

from collections.abc import Iterable, Iterator, Sequence

from interlock_guardrails.guard import Guard
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.store import Store
from interlock_servers.federation.client import Upstream
from interlock_servers.federation.facts import FederationFacts
from interlock_servers.federation.gate import Gate
from interlock_servers.federation.operations import CallTool, operations_of
from interlock_servers.federation.server import FederatedFace, federated_face
from interlock_servers.federation.settings import FederatedSettings
from interlock_servers.identity import WhoCalls
from interlock_tools.clock import Clock


class Federation:
    """The servers that the settings name; none of them has to be there when the site opens."""

    def __init__(
        self,
        servers: Iterable[FederatedSettings],
        *,
        store: Store,
        rules: SiteRules,
        vote_keys: Sequence[str],
        clock: Clock,
    ) -> None:
        self.upstreams = [Upstream(settings, clock) for settings in servers]
        gates = [
            Gate(upstream, store=store, site_id=rules.site_id, vote_keys=vote_keys)
            for upstream in self.upstreams
        ]
        self.facts = FederationFacts(gates, clock)
        self._clock = clock
        self._offers: list[tuple[Gate, tuple[CallTool, ...]]] = [
            (gate, operations_of(gate, rules)) for gate in gates
        ]

    @property
    def operations(self) -> tuple[CallTool, ...]:
        """Everything that may change at any of them."""
        return tuple(operation for _, operations in self._offers for operation in operations)

    def faces(self, guard: Guard, who: WhoCalls) -> Iterator[FederatedFace]:
        """A face for each of them."""
        for gate, operations in self._offers:
            yield federated_face(gate, operations, guard=guard, who=who, clock=self._clock)
