"""What was too much: the caps that ended a breaker's excursion are not exceeded for a day.

Under caps a draw above the estimate is not seen any more. Without this memory a later restore would
lift the same GPUs by what the next excursion takes back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

MEMORY_S: Final = 86_400.0  # work repeats by the day; longer, and what has moved away would count


@dataclass
class _TooMuch:
    """Above these caps, domain and budget were what they are now, and its breaker was near."""

    budget_w: float
    until: datetime
    caps: dict[str, int]


class Ceilings:
    """The most that nodes may be given again, by the domain whose breaker was near its limit."""

    def __init__(self) -> None:
        self._by_domain: dict[str, _TooMuch] = {}

    def learn(self, domain: str, budget_w: float, caps: Mapping[str, int], now: datetime) -> None:
        """These caps ended an excursion of this domain: nothing above them, for a day."""
        known = self._by_domain.get(domain)
        before = known.caps if known is not None and known.budget_w == budget_w else {}
        lowest = {n: min(w, before.get(n, w)) for n, w in caps.items()}
        until = now + timedelta(seconds=MEMORY_S)
        self._by_domain[domain] = _TooMuch(budget_w, until, before | lowest)

    def forget(self, budgets_w: Mapping[str, float], now: datetime) -> bool:
        """Leave out what is a day old, or of a domain that carries another load now; whether any.

        Args:
            budgets_w: of the domains that are known now; of others nothing new is known.
            now: the moment.
        """
        gone = [
            domain
            for domain, one in self._by_domain.items()
            if now >= one.until or budgets_w.get(domain, one.budget_w) != one.budget_w
        ]
        for domain in gone:
            del self._by_domain[domain]
        return bool(gone)

    @property
    def at_most_w(self) -> dict[str, int]:
        """The most watts per GPU, by node."""
        most: dict[str, int] = {}
        for one in self._by_domain.values():
            for node_id, cap_w in one.caps.items():
                most[node_id] = min(cap_w, most.get(node_id, cap_w))
        return most
