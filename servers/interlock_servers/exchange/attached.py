"""What a site needs of the bus where requests are configured: put together once, at the start."""

from dataclasses import dataclass
from typing import Any

from interlock_guardrails.store import Store
from interlock_servers.exchange.asking import AskBms, Wires
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.holding import Holder
from interlock_servers.exchange.intents import Intents
from interlock_servers.exchange.operations import DOES, exchange_operations
from interlock_servers.exchange.publishing import Publisher
from interlock_servers.exchange.request_facts import RequestFacts, heard_at
from interlock_servers.exchange.requests import Namespace
from interlock_servers.exchange.settings import RequestSettings
from interlock_tools.clock import Clock


@dataclass(frozen=True)
class Requesting:
    """The writing half of the component."""

    wires: Wires
    publisher: Publisher
    facts: RequestFacts
    operations: tuple[AskBms[Any], ...]

    def says(self) -> str:
        """How it stands, in a sentence."""
        namespace = self.wires.namespace
        mine = f"{len(namespace.mine())} points name {namespace.integration}"
        if self.wires.settings.silent:
            return f"{mine}; nothing is published"
        if heard_at(self.wires.client, namespace) is not None:
            return f"{mine}; our heartbeat is heard"
        return f"{mine}; our heartbeat was not heard yet, so nothing may be asked for"


def requesting(
    client: ExchangeClient, settings: RequestSettings, store: Store, clock: Clock
) -> Requesting:
    """Put it together; nothing connects before the holder runs.

    Raises:
        InvalidRequestError: a secret or a certificate that the settings name is not there.
    """
    settings.mqtt.check_secrets()
    namespace = Namespace(client, settings.integration)
    publisher = Publisher(settings.mqtt, clock)
    intents = Intents(store, DOES)
    holder = Holder(client, namespace, publisher, intents, settings, clock)
    wires = Wires(client, namespace, holder, intents, settings)
    facts = RequestFacts(client, namespace, settings)
    return Requesting(wires, publisher, facts, exchange_operations(wires))
