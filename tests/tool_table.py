"""`docs/tools.md`: every tool with its effect, scope, approval rule and tokens; never by hand.

Which rule answers is asked of the policy itself, once for each effect, with and without a rise in
power.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interlock_policies.bundles import load_bundle
from interlock_policies.decide import decide
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation
from interlock_servers.identity import SCOPE_PROPOSE, SCOPE_READ
from interlock_servers.maxlps.views import NodeRow, Nodes
from interlock_servers.offer import annotations_of
from interlock_servers.page import Page
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.decision import Decision
from interlock_tools.identity import Principal, PrincipalKind, Target
from interlock_tools.operation import Effect

Tools = list[dict[str, Any]]

FILE = Path(__file__).parents[1] / "docs" / "tools.md"
BUNDLE = "supervised"
BYTES_PER_TOKEN = 4  # an estimate: JSON in English words
LIMIT_TOKENS = 2_500  # of one server's whole answer to tools/list
LISTING_LIMIT_TOKENS = 1_500  # of 72 GPUs, text and structure together
ASKING = Principal(
    id="agent:reader",
    kind=PrincipalKind.AGENT,
    authenticated_by="local",
    scopes=frozenset({SCOPE_READ, SCOPE_PROPOSE}),
    owner="person:owner",
)
HEAD = f"""\
# Tools

Written by `make golden` from what the servers offer and from the policy bundle `{BUNDLE}`;
`make check` fails where it is stale.

The byte rule: the answer as JSON in UTF-8 without spaces, {BYTES_PER_TOKEN} bytes for a token,
rounded up. A server's whole answer to `tools/list` costs at most {LIMIT_TOKENS:,} tokens; above,
`make check` fails. Of these catalogues the rule is true to some percent (o200k_base: 4.0 to 4.1
bytes a token); of tables it is not: digits take about 2 bytes a token.

A tool that changes only proposes. The rule in its row answers a proposal that no limit forbids;
of several rules each is for another case.
"""


def tokens(size_bytes: int) -> int:
    """What so many bytes cost, by the byte rule."""
    return -(-size_bytes // BYTES_PER_TOKEN)


def size_bytes(document: Any) -> int:
    """A document as it goes over the wire, without spaces."""
    return len(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())


def effect_of(tool: dict[str, Any]) -> Effect:
    """What a tool does, back from the hints: they are derived from the effect alone.

    Raises:
        ValueError: no effect has these hints.
    """
    for effect in Effect:
        hints = annotations_of(effect).model_dump(mode="json", by_alias=True, exclude_none=True)
        if hints == tool["annotations"]:
            return effect
    raise ValueError(f"{tool['name']}: no effect has the hints {tool['annotations']}")


def rules_of(gate: PolicyGate, operation: str, effect: Effect) -> list[str]:
    """The rules that answer a plain proposal of this operation, and whom they ask."""
    rises_w = (0, 1) if effect is not Effect.READ else (0,)
    said: dict[str, None] = {}
    for rise_w in rises_w:
        decision = decide(gate, _plain(operation, effect, rise_w))
        for rule in decision.rules:
            said[f"`{rule.rule_id}`: {_asks(decision)}"] = None
    return list(said)


def as_markdown(answers: Mapping[str, dict[str, Any]]) -> str:
    """The page: a table for each server, and what a listing of 72 GPUs costs."""
    effects = {
        f"{component}.{tool['name']}": effect_of(tool)
        for component, answer in answers.items()
        for tool in answer["tools"]
    }
    gate = load_bundle(BUNDLE, effects)
    parts = [HEAD]
    for component, answer in answers.items():
        tools, total = answer["tools"], tokens(size_bytes(answer))
        parts.append(f"\n## {component}: {len(tools)} tools, {total:,} tokens\n")
        parts.append("| tool | for what | effect | scope | answered by | tokens |")
        parts.append("|---|---|---|---|---|---|")
        for tool in tools:
            name = f"{component}.{tool['name']}"
            effect = effects[name]
            scope = SCOPE_READ if effect is Effect.READ else SCOPE_PROPOSE
            parts.append(
                f"| `{tool['name']}` | {tool['description']} | {effect} | `{scope}` | "
                f"{'<br>'.join(rules_of(gate, name, effect))} | {tokens(size_bytes(tool))} |"
            )
    text, structure = listing_tokens(gpus_72())
    parts.append(
        "\n## A listing of 72 GPUs\n\n"
        f"`maxlps.list_nodes` over 18 nodes of 4 GPUs, every field: {text} tokens as text and "
        f"{structure} as\nstructured content, {text + structure} for a client that shows its model "
        f"both. The limit is {LISTING_LIMIT_TOKENS:,}.\n"
    )
    return "\n".join(parts)


def listing_tokens(page: Page) -> tuple[int, int]:
    """What an answer costs as text and as structured content."""
    structure = page.model_dump(mode="json", exclude_none=True)
    return tokens(len(page.text().encode())), tokens(size_bytes(structure))


def gpus_72() -> Nodes:
    """A rack of 72 GPUs, every field known and no two draws alike."""
    return Nodes(
        observed_at=datetime(2026, 9, 1, 6, 0, 0, 250_000, tzinfo=UTC),
        origin="maxlps",
        nodes=[
            NodeRow(
                node_id=f"node-{node:03d}",
                rack_id="rack-01",
                pdu_id="pdu-1",
                group="pretrain-atlas",
                min_w=200.0,
                max_w=1200.0,
                set_w=[1200] * 4,
                power_w=[1000 + node + gpu for gpu in range(4)],
            )
            for node in range(1, 19)
        ],
    )


def _plain(operation: str, effect: Effect, rise_w: int) -> Situation:
    """One node of many, nothing open, nothing broken."""
    reach = BlastRadius(
        gpus=8,
        hosts=frozenset({"node-001"}),
        watts_moved=rise_w,
        power_rise_w=rise_w,
    )
    return Situation(
        principal=ASKING,
        operation=operation,
        effect=effect,
        target=Target(kind="site", id="lab"),
        site="lab",
        blast_radius=reach,
        open_reach=BlastRadius(),
        site_gpus=512,
        site_hosts=64,
        overlaps_open=False,
        frozen=False,
        in_window=True,
        changes_last_hour=0,
    )


def _asks(decision: Decision) -> str:
    """Whom the rule asks."""
    if decision.quorum is None:
        return f"{decision.answer}"
    quorum = decision.quorum
    typed = ", typing the target" if quorum.typed_target else ""
    return f"{quorum.people} {quorum.role}{typed}"
