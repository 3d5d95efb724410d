"""Runs the official suite and the Inspector, and reads what they found out of what they wrote."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import yaml

MODERN, LEGACY = "2026-07-28", "2025-11-25"
SUITE_TIMEOUT_S = 120.0
INSPECT_TIMEOUT_S = 60.0
RESULT = re.compile(r"^server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z$")
TASKS = "tasks-"


@dataclass
class Row:
    """One line of the table: so many scenarios passed, and what did not."""

    what: str
    era: str
    passed: int
    of: int
    known: Mapping[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def good(self) -> bool:
        """Whether everything passed but what is known and has its reason."""
        return not self.failures and self.of > 0


@dataclass(frozen=True)
class Tools:
    """Where the pinned programs are, and where they may write."""

    modules: Path
    scratch: Path

    @property
    def node(self) -> str:
        """The pinned Node: the suite and the Inspector need a newer one than many systems have."""
        return str(self.modules / ".bin" / "node")

    def required(self, era: str) -> list[str]:
        """The scenarios that the suite scores for this revision."""
        package = self.modules / "@modelcontextprotocol" / "conformance"
        listed = yaml.safe_load((package / "requirements" / f"{era}.yaml").read_text("utf-8"))
        return [str(name) for name in listed["server"]]


async def run_suite(
    tools: Tools, url: str, era: str, what: str, known: Mapping[str, str]
) -> list[Row]:
    """What the revision requires, and beside it the extension's and the pending scenarios.

    `known` are scenarios that cannot pass here, each with its reason; one that passes after all is
    a failure too, so that the list stays true.
    """
    folder = tools.scratch / f"{what.replace(' ', '-')}-{era}"
    program = str(tools.modules / ".bin" / "conformance")
    command = [tools.node, program, "server", "--url", url, "--requirements", era]
    with anyio.fail_after(SUITE_TIMEOUT_S):
        done = await anyio.run_process([*command, "-o", str(folder)], check=False)
    found = failures_by_scenario(folder)
    if not found:
        raise RuntimeError(f"the suite wrote nothing: {done.stderr.decode()[-2000:]}")
    required = tools.required(era)
    rows = [_row(what, era, required, found, known)]
    tasks = [name for name in found if name.startswith(TASKS)]
    pending = [name for name in found if name not in required and not name.startswith(TASKS)]
    if tasks:
        rows.append(_row(f"{what}, tasks", era, tasks, found, {}))
    if pending:
        rows.append(_row(f"{what}, not scored", era, pending, found, known))
    return rows


def failures_by_scenario(folder: Path) -> dict[str, list[str]]:
    """For every scenario that ran, the checks that failed, with what the suite says of them.

    A warning counts: the suite lets those pass.
    """
    found: dict[str, list[str]] = {}
    for result in sorted(folder.iterdir()) if folder.is_dir() else []:
        named = RESULT.match(result.name)
        if named is not None:
            checks = json.loads((result / "checks.json").read_text("utf-8"))
            found[named["scenario"]] = [
                f"{check['id']}: {check.get('errorMessage', '')}"
                for check in checks
                if check["status"] in {"FAILURE", "WARNING"}
            ]
    return found


def _row(
    what: str,
    era: str,
    scenarios: list[str],
    found: Mapping[str, list[str]],
    known: Mapping[str, str],
) -> Row:
    known = {name: why for name, why in known.items() if name in scenarios}
    row = Row(what, era, 0, len(scenarios), known)
    for name in scenarios:
        failed = found.get(name, ["it did not run"])
        if failed and name not in known:
            row.failures.extend(f"{name}: {one}" for one in failed)
        elif not failed:
            row.passed += 1
            if name in known:
                row.failures.append(f"{name} passes: it is not known to fail any more")
    return row


async def inspect(tools: Tools, component: str, url: str, token: str, mode: str) -> Row:
    """Whether the Inspector finds the tools of this server portable between clients."""
    program = str(tools.modules / ".bin" / "mcp-inspector")
    era = {"modern": MODERN, "legacy": LEGACY}[mode]
    command = [tools.node, program, "--cli", url, "--transport", "http"]
    command += ["--protocol-era", mode, "--header", f"Authorization: Bearer {token}"]
    command += ["--method", "tools/list", "--strict", "--stored-auth-only", "--format", "json"]
    home = tools.scratch / "home"
    home.mkdir(exist_ok=True)
    with anyio.fail_after(INSPECT_TIMEOUT_S):
        done = await anyio.run_process(command, check=False, env={**os.environ, "HOME": str(home)})
    said = (done.stderr + done.stdout).decode(errors="replace")
    row = Row(f"Inspector, {component}", era, 0, 1)
    if done.returncode == 0:
        row.passed = 1
        listed = json.loads(done.stdout)["result"]["tools"]
        row.note = f"{len(listed)} tools"
    else:
        row.failures.append(f"exit {done.returncode}: {said[-2000:]}")
    return row
