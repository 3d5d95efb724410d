"""Our readiness, as the BMS may read it before it obeys: announced in the words of its metadata.

No public contract says what the BMS answers. So what is shown is that the bus gives our word back:
it passed the ACL, and everyone hears it. That the BMS acts on it is shown by nothing here.
"""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from interlock_servers.exchange.asking import AskBms, Came
from interlock_servers.exchange.intents import Does
from interlock_servers.exchange.outcomes import of_state
from interlock_servers.exchange.request_facts import POINT_OF
from interlock_servers.exchange.requests import Asked, shown
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import InvalidRequestError, UnavailableError
from interlock_tools.fact import FactSet
from interlock_tools.operation import Arguments, Expiry

KIND_OF = {asked: kind for kind, asked in POINT_OF.items()}


class ReadinessArguments(Arguments):
    """Which of our two points."""

    point: Literal["Status", "Available"]


class AnnounceArguments(ReadinessArguments):
    """Which point, and what it shall say."""

    state: Annotated[
        str, Field(min_length=1, max_length=256, description="a state of the point's metadata")
    ]
    expires_in_s: Annotated[float, Field(ge=60, le=7 * 86_400, description="then not ready")]


class _Readiness(AskBms[Any]):
    reaches = False
    source = "our value as the bus gives it back"

    def blast_radius(self, arguments: Any, facts: FactSet) -> BlastRadius:
        """Nobody at once; the BMS may begin to obey what else is asked for.

        Raises:
            InvalidRequestError: the settings do not say which number means not ready.
        """
        if arguments.point not in self._wires.settings.not_ready:
            raise InvalidRequestError(
                f"point: the settings do not say which number of {arguments.point} means not "
                "ready (not_ready), so that it could not be taken back"
            )
        return BlastRadius()

    def came_of(self, arguments: Any, before: FactSet | None, since: datetime | None) -> Came:
        """What the bus gives back of our point."""
        asked, whose = self.where(arguments)
        wanted, now = self.value(arguments), None
        try:
            key = self._wires.namespace.writable(asked, whose).key
            now, at = shown(self._wires.client, self._wires.client.store.points([key]))
        except UnavailableError:
            at = None
        acted = None if since is None else since - timedelta(seconds=self.act_timeout_s)
        if acted is not None and (at is None or at < acted):  # ours is said before the act is over
            now = None
        publications = self._publications(since)
        outcome = of_state(wanted, now, publications)
        return Came(outcome=outcome.value, asked=wanted, heard=now, publications=publications)


class AnnounceReadiness(_Readiness):
    """Tell the BMS how ready we are, such as `AI ready`. It may then begin to obey requests."""

    name = "exchange.announce_readiness"
    arguments = AnnounceArguments
    does = Does(None, "point", value="state", lasts="expires_in_s")
    compensates = True
    compensation_repeats = True

    def blast_radius(self, arguments: AnnounceArguments, facts: FactSet) -> BlastRadius:
        """Nobody at once.

        Raises:
            InvalidRequestError: the point has no such state, or could not be taken back.
        """
        kind = KIND_OF[Asked(arguments.point)]
        states = facts.value(kind, self.target(arguments))["states"]
        if arguments.state not in states:
            raise InvalidRequestError(
                f"state: {arguments.point} has {', '.join(sorted(states)) or 'no states'}"
            )
        return super().blast_radius(arguments, facts)

    def expiry(self, arguments: AnnounceArguments, before: FactSet) -> Expiry | None:
        """Not ready, once its time is over."""
        return Expiry(
            after_s=arguments.expires_in_s,
            operation=WithdrawReadiness.name,
            arguments={"point": arguments.point},
        )


class WithdrawReadiness(_Readiness):
    """Tell the BMS that we are not ready; then nothing is said any more."""

    name = "exchange.withdraw_readiness"
    arguments = ReadinessArguments
    does = Does(None, "point")
