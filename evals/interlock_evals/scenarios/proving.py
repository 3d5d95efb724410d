"""The ledger of a scenario, exported and judged by the stand-alone verifier in its own process."""

import sys
from dataclasses import dataclass
from pathlib import Path

import anyio

from interlock_servers.site import Site


@dataclass(frozen=True)
class Proof:
    """What the verifier says of the ledger, and which ledger it was."""

    size: int = 0
    root: str = ""
    verified: bool = False
    says: str = ""


async def prove(site: Site, folder: Path) -> Proof:
    """Export the ledger and its key to `folder`, and let the verifier judge it."""
    ledger = site.ledger
    export, key = folder / "ledger.jsonl", folder / "ledger.vkey"
    key.write_text(site.ledger_key + "\n", "utf-8")

    def settle() -> tuple[int, bytes]:
        ledger.flush()
        ledger.checkpoint()
        ledger.export(export)
        return ledger.size_and_root()

    size, root = await anyio.to_thread.run_sync(settle)
    verifier = [sys.executable, "-m", "interlock_guardrails.ledger.verify"]
    ran = await anyio.run_process([*verifier, str(export), "--key", site.ledger_key], check=False)
    says = (ran.stdout or ran.stderr).decode().strip()
    return Proof(size, root.hex(), ran.returncode == 0, says)
