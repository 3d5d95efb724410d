"""The section of `docs/tools.md` about resources and prompts; written by `make golden`."""

from collections.abc import Mapping

from interlock_servers.identity import SCOPE_READ
from tests.tool_table import Tools

Surface = dict[str, Tools]

HEAD = f"""
## Resources and prompts

They cost nothing in `tools/list`. Each needs `{SCOPE_READ}`, has a deadline, and is on the ledger
like any read. What says that it tells can be waited for: `subscriptions/listen`, or
`resources/subscribe` on a connection that lasts. A prompt's words are a runbook of ours; its facts
come behind it as data. On the server of the whole site a prompt's name begins with its component,
except those that every server has.
"""


def as_markdown(offered: Mapping[str, Surface]) -> str:
    """What every server has, then what each has besides."""
    parts = [HEAD]
    common = {
        kind: [item for item in items if all(item in other[kind] for other in offered.values())]
        for kind, items in next(iter(offered.values())).items()
    }
    parts += ["### on every server", "", *_table(common)]
    for component, surface in offered.items():
        own = {
            kind: [item for item in items if item not in common[kind]]
            for kind, items in surface.items()
        }
        parts += ["", f"### {component}", "", *_table(own)]
    return "\n".join(parts) + "\n"


def _table(surface: Surface) -> list[str]:
    rows = ["| resource or prompt | for what |", "|---|---|"]
    for kind, key in (("resources", "uri"), ("templates", "uriTemplate"), ("prompts", "name")):
        for item in surface[kind]:
            takes = ", ".join(argument["name"] for argument in item.get("arguments", []))
            name = f"{item[key]}({takes})" if kind == "prompts" else item[key]
            rows.append(f"| `{name}` | {item['description']} |")
    return rows
