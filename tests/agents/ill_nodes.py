"""A scripted cluster with NVSentinel: nodes that are ill, what was asked for them, what is said."""

from datetime import timedelta
from typing import Any, Final

from interlock_agents.notes import Note
from interlock_agents.remediation import RemediationAgent
from interlock_tools.clock import ManualClock
from interlock_tools.errors import ComponentError
from tests.agents.scripted import NOW, ScriptedServers

LOOKS_EVERY_S = 2.0
UUID: Final = "GPU-11111111-2222-3333-4444-{:012d}"
OPERATIONS: Final = {
    "request_maintenance": "nvsentinel.request_maintenance",
    "end_maintenance": "nvsentinel.end_maintenance",
    "reset_gpus": "nvsentinel.reset_gpus",
    "reboot_node": "nvsentinel.reboot_node",
}
MAINTENANCE_RULE: Final = {
    "number": 6,
    "rule": "MaintenanceRequest ruleset",
    "enabled": True,
    "match": ["all HealthEvent: event.agent == 'lifecycle-manager'"],
    "cordons": True,
}
FAULT_RULE: Final = {
    "number": 2,
    "rule": "Syslog fatal error ruleset",
    "enabled": True,
    "match": ["all HealthEvent: event.isFatal == true"],
    "cordons": True,
}


def xid(code: int, gpu: int = 0, more: str = "") -> tuple[str, str]:
    """The condition of an XID, as NVSentinel writes it."""
    said = f"ErrorCode:{code} GPU:{gpu} PCI:0000:18:00.0 GPU_UUID:{UUID.format(gpu)} NVRM: {more} "
    return "SysLogsXIDError", f"{said}Recommended Action=COMPONENT_RESET;"


HOT: Final = (
    "GpuThermalWatch",
    "ErrorCode:DCGM_FR GPU:0 thermal slowdown Recommended Action=NONE;",
)


def pod(job: str, **more: Any) -> dict[str, Any]:
    """A pod that a drain would meet."""
    return {"namespace": "aurora", "pod": job.rpartition("/")[2] + "-0", "job": job, **more}


class IllNodes:
    """The cluster and the agent that looks at it, on a clock of its own."""

    def __init__(self, *names: str) -> None:
        self.clock = ManualClock(NOW)
        self.status: dict[str, Any] = {"mode": "remediation", "dry_run": False, "breaker": "closed"}
        self.rules: list[dict[str, Any]] = [MAINTENANCE_RULE]
        self.page: dict[str, Any] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.requests: list[dict[str, Any]] = []
        self.changes: dict[str, dict[str, Any]] = {}
        self.cdus: dict[str, str] | None = None
        self.no: dict[str, str] = {}
        self.notes: list[Note] = []
        for number, name in enumerate(names or ("node-1", "node-2", "node-3")):
            self.nodes[name] = {
                "ready": True,
                "faults": [],
                "cordoned_by": "nobody",
                "stage": "in-service",
                "pods": [],
                "rack": f"rack-{number}",
                "gpus": 8,
            }
        self.servers = ScriptedServers(
            sentinel_status=lambda asked: self.status,
            list_rules=lambda asked: {"rules": self.rules},
            list_node_health=self._list_nodes,
            explain_node=lambda asked: self._story(asked["node_id"]),
            list_remediations=self._list_requests,
            trace_path=self._trace,
            list_points=self._points,
            list_changes=lambda asked: {"changes": self._latest()},
            get_change=lambda asked: self.changes[asked["change_id"]],
            **{tool: self._taker(tool) for tool in OPERATIONS},
        )
        self.agent = self.restarted()

    def restarted(self) -> RemediationAgent:
        """An agent that knows nothing yet."""
        self.agent = RemediationAgent(self.servers, self.clock, self.notes.append)
        return self.agent

    # ── what happens ──────────────────────────────────────────────────────────────────────────

    def falls_ill(self, name: str, *faults: tuple[str, str], **more: Any) -> None:
        """Conditions show at a node."""
        self.nodes[name] |= {"faults": list(faults), **more}
        if self.nodes[name]["stage"] == "in-service":
            self.nodes[name]["stage"] = "faulty"

    def is_well(self, name: str) -> None:
        """No condition shows any more."""
        self.nodes[name]["faults"] = []

    def held(self, name: str) -> None:
        """NVSentinel has cordoned it."""
        self.nodes[name] |= {"cordoned_by": "nvsentinel", "stage": "drain-succeeded", "pods": []}

    def back(self, name: str) -> None:
        """Nobody holds it any more."""
        self.nodes[name] |= {"cordoned_by": "nobody", "stage": "in-service"}
        self.requests = [r for r in self.requests if r["kind"] != "MaintenanceRequest"]

    def was_asked(
        self, node: str, kind: str, outcome: str, ago_s: float = 0.0, **more: Any
    ) -> None:
        """A request stands."""
        made = (self.clock.now() - timedelta(seconds=ago_s)).isoformat()
        row = {"kind": kind, "name": f"r-{len(self.requests)}", "node_ids": [node]}
        self.requests.append({**row, "outcome": outcome, "created_at": made, **more})

    async def people(self, state: str, *left: dict[str, Any]) -> None:
        """The newest change ends so; `left` are the pods that have not left its node yet."""
        change = self.changes[sorted(self.changes)[-1]]
        change |= {"state": state, "ended": True, "why": "because"}
        name = change["target"]
        if state == "succeeded" and change["operation"] in {
            "nvsentinel.request_maintenance",
            "nvsentinel.reboot_node",
        }:
            wants = "NONE" if change["operation"].endswith("maintenance") else "RESTART_VM"
            key = change["change_id"]
            more = {"change_id": key, "name": f"interlock-{key}", "wants": wants}
            self.was_asked(name, "MaintenanceRequest", "open", **more)
            self.held(name)
            self.nodes[name]["pods"] = list(left)
        await self.steps(1)

    async def steps(self, count: int) -> None:
        """Let it look so often."""
        for _ in range(count):
            await self.agent.step()
            self.clock.advance(LOOKS_EVERY_S)

    # ── what was asked ────────────────────────────────────────────────────────────────────────

    def proposed(self) -> list[tuple[str, str]]:
        """Tool and node of each proposal, in order; rehearsals are none."""
        return [
            (tool, asked["node_id"])
            for _, tool, asked in self.servers.calls
            if tool in OPERATIONS and not asked.get("dry_run")
        ]

    def last(self, tool: str) -> dict[str, Any]:
        """The arguments of the last proposal of this tool."""
        return self.servers.asked(tool)[-1]

    def told(self, kind: str) -> list[str]:
        """The notes of one kind."""
        return [note.text for note in self.notes if note.kind == kind]

    # ── answers ───────────────────────────────────────────────────────────────────────────────

    def _row(self, name: str) -> dict[str, Any]:
        node = self.nodes[name]
        row = {
            "node_id": name,
            "stage": node["stage"],
            "ready": node["ready"],
            "faults": [check for check, _ in node["faults"]] or None,
            "cordoned_by": None if node["cordoned_by"] == "nobody" else node["cordoned_by"],
            "pods": len(node["pods"]),
            "opted_out": node.get("opted_out"),
            "why": node["faults"][0][1] if node["faults"] else None,
        }
        return {key: value for key, value in row.items() if value is not None}

    def _list_nodes(self, asked: dict[str, Any]) -> dict[str, Any]:
        rows = [self._row(name) for name in self.nodes]
        if asked.get("state") != "all":
            rows = [r for r in rows if r["stage"] != "in-service" or r.get("opted_out")]
        return {"nodes": rows, **self.page}

    def _story(self, name: str) -> dict[str, Any]:
        node = self.nodes[name]
        return {
            **{key: node[key] for key in ("ready", "cordoned_by", "stage", "gpus", "rack")},
            "node_id": name,
            "faults": [{"check": check, "message": said} for check, said in node["faults"]],
            "known_gpus": [UUID.format(gpu) for gpu in range(8)],
            "pods": list(node["pods"]),
            "stuck": node.get("stuck"),
        }

    def _list_requests(self, asked: dict[str, Any]) -> dict[str, Any]:
        rows = [
            row
            for row in self.requests
            if asked.get("node_id") in {None, *row["node_ids"]}
            and asked.get("kind") in {None, row["kind"]}
        ]
        return {"requests": rows}

    def _trace(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self.cdus is None:
            raise ComponentError("exchange", "trace_path", "there is no such server here")
        return {"reaches": [{"id": self.cdus[asked["id"]], "kind": "equipment"}]}

    def _points(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked["object_id"]
        if name not in (self.cdus or {}).values():
            return {"points": []}
        return {"points": [{"key": f"CDU/LiquidFlow/s/{name}/flow", "value": 0.0, "unit": "l/min"}]}

    def _latest(self) -> list[dict[str, Any]]:
        return [self.changes[key] for key in sorted(self.changes, reverse=True)]

    def _taker(self, tool: str) -> Any:
        def take(asked: dict[str, Any]) -> dict[str, Any]:
            if tool in self.no:
                raise ComponentError("remediation", tool, self.no[tool])
            made = {
                "change_id": f"chg-{len(self.changes):012d}",
                "operation": OPERATIONS[tool],
                "target": asked["node_id"],
                "reason": asked["reason"],
                "state": "awaiting_approval",
                "ended": False,
                "why": "two operators",
            }
            if asked.get("dry_run"):
                return {**made, "state": "refused", "why": "frozen"}
            self.changes[made["change_id"]] = made
            return made

        return take
