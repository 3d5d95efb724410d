"""The grid: each message goes to a listener, and what is in force then to what was signed."""

import json
import random
from collections import Counter
from datetime import datetime
from pathlib import Path

from interlock_evals.chaos.bus.envelopes import FEEDS, ISV, RSA_ISV, Envelopes, Grid, Keys, Target
from interlock_evals.chaos.bus.found import Found
from interlock_evals.chaos.bus.points import START, settings_of
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.settings import FlexSettings
from interlock_servers.transports.mqtt import Message
from interlock_tools.clock import ManualClock

STEP_MS = 1_500


class GridRun:
    """A listener to the grid, and a reader of the bus beside it that must not believe any of it."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        listener: type[FlexClient] = FlexClient,
        reader: type[ExchangeClient] = ExchangeClient,
    ) -> None:
        self._chance = random.Random(f"grid/{seed}")  # noqa: S311 - repeatable, not secret
        keys = Keys(self._chance)
        self._envelopes = Envelopes(self._chance, keys)
        file = folder / "jwks.json"
        file.write_text(json.dumps({"keys": [key.public_jwk for key in keys.of.values()]}))
        self._clock = ManualClock(START)
        bus = settings_of()
        self.listener = listener(
            FlexSettings(
                mqtt=bus.mqtt,
                jwks_file=file,
                trusted={ISV: (keys.isv.kid,), RSA_ISV: (keys.other.kid,)},
                site_id="lab",
                feeds=FEEDS,
            ),
            self._clock,
        )
        self._reader = reader(bus, self._clock)
        self._now_ms = int(START.timestamp()) * 1000
        self._open: list[Target] = []
        self._refused: Counter[str] = Counter()
        self.found = Found()

    def run(self, messages: int) -> Found:
        """Send so many messages more; what was found since the start."""
        for _ in range(messages):
            wait_ms = self._chance.randrange(STEP_MS)
            self._now_ms += wait_ms
            self._clock.advance(wait_ms / 1000)
            self._send(self._envelopes.send(self._now_ms))
        return self.found

    def _send(self, shot: Grid) -> None:
        self.found.messages[shot.kind] += 1
        before, now = self.listener.accepted, self._clock.now()
        try:
            message = Message(shot.topic, shot.payload, False, 1, now)
            self.listener.hear(message)
            self._pass_by(message, shot)
        except Exception as error:  # what must never be is what is sought
            self.found.note("crashes", f"{error!r} on {_said(shot)}")
            return
        taken = self.listener.accepted - before
        refused = Counter({str(name): one.count for name, one in self.listener.rejected().items()})
        named = refused - self._refused
        self._refused = refused
        self.found.taken += taken
        self.found.rejected.update(named)
        if taken + named.total() != 1:
            self.found.note(
                "unnamed", f"counted {taken} and refused as {dict(named)}: {_said(shot)}"
            )
        elif bool(taken) is (shot.target is None):
            self.found.note("misjudged", f"{dict(named) or 'taken'}: {_said(shot)}")
        elif not taken and not named.keys() <= shot.reasons:
            self.found.note("unnamed", f"{dict(named)}, not {set(shot.reasons)}: {_said(shot)}")
        self._compare(shot, now)

    def _pass_by(self, message: Message, shot: Grid) -> None:
        """The reader of the bus hears it too: it counts it once and shows nothing of it."""
        store = self._reader.store
        before = store.others + sum(one.times for one in store.rejected.values())
        self._reader.hear(message)
        if store.others + sum(one.times for one in store.rejected.values()) != before + 1:
            self.found.note("unnamed", f"the bus did not count {_said(shot)}")
        if store.accepted or len(store):
            self.found.note("wrong", f"the bus has a point from {_said(shot)}")

    def _compare(self, shot: Grid, now: datetime) -> None:
        """Whether exactly what was signed is in force.

        Of each source the one that was sent last of those open; of two sources the stricter.
        """
        if shot.target is not None:
            self._open.append(shot.target)
            self._open.sort(key=lambda one: one.sent_ms)
        self._open = [one for one in self._open if one.end_ms > self._now_ms]
        begun = [one for one in self._open if one.start_ms <= self._now_ms]
        must: dict[str, float] = {}
        for feed in FEEDS:
            last = {one.source: one.limit_w for one in begun if feed in one.feeds}
            limits_w = [watts for watts in last.values() if watts is not None]
            if limits_w:
                must[feed] = min(limits_w)
        seen = {feed: one.limit_w for feed, one in self.listener.targets_in_force(now).items()}
        self.found.shown += len(seen)
        if seen != must:
            self.found.note("wrong", f"{seen} is in force, not {must}, after {_said(shot)}")


def _said(shot: Grid) -> str:
    return f"{shot.kind} {shot.topic!r} {shot.payload[:160]!r}"
