"""GPUs at the command line: what this machine has, recording it, and the agent of a node."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from interlock_servers.devices.client import NodeClient, NodeState
from interlock_servers.devices.nodes import NodeSettings, NodesSettings
from interlock_tools.clock import SystemClock
from interlock_tools.errors import InvalidRequestError

COMMAND = [sys.executable, "-c", "from interlock_console.start import main; main()"]
PATIENCE_S = 60.0


def interlock(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """One run of the command, to its end."""
    return subprocess.run(  # noqa: S603 (our own command)
        [*COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are of machines without GPUs; with one, `test_contract` reads it."""
    if Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists():
        pytest.skip("this machine has GPUs")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.usefixtures("no_driver")
def test_doctor_shows_an_empty_machine_for_what_it_is(tmp_path: Path) -> None:
    """Before anything else, and without settings too."""
    (tmp_path / "interlock.toml").write_text('[site]\nsite_id = "s"\ngpus = 8\nhosts = 1\n')
    done = interlock("doctor", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^NVIDIA +none here$", done.stdout, re.MULTILINE)
    assert re.search(r"^AMD +none here$", done.stdout, re.MULTILINE)
    assert done.stdout.count("none on the bus") == 2
    without = interlock("doctor", "--config", "other.toml", folder=tmp_path)
    assert without.returncode == 2
    assert "NVIDIA" in without.stdout


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize("way", ["nvml", "amdsmi"])
def test_a_machine_without_gpus_is_not_recorded(tmp_path: Path, way: str) -> None:
    """One sentence says which part is missing, and no file is left."""
    done = interlock("record", "gpu", "--out", "machine.json", "--way", way, folder=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "not" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file"),
        ("node_id = ", "node.toml"),
        ('node_id = "n"\n', "answers nobody unknown"),
        ('node_id = "n"\nwriter_token_file = "t"\ncolour = 1\n', "colour"),
        ('node_id = "n"\nwriter_token_file = "t"\nlisten = "0.0.0.0:1"\n', "needs cert_file"),
    ],
)
def test_an_agent_that_may_not_be_served_so_says_why(
    tmp_path: Path, text: str | None, says: str
) -> None:
    """One sentence, exit status 2."""
    if text is not None:
        (tmp_path / "node.toml").write_text(text)
    done = interlock("node", folder=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.usefixtures("no_driver")
async def test_an_agent_on_a_machine_without_gpus_serves_the_reason_and_stops_when_told(
    tmp_path: Path,
) -> None:
    """Reads only unless told otherwise; a site sees that the node is there and has none."""
    (tmp_path / "token").write_text("a-reader")
    (tmp_path / "node.toml").write_text(
        'node_id = "node-7"\nlisten = "127.0.0.1:0"\nreader_token_file = "token"\n'
    )
    process = await anyio.open_process(
        [*COMMAND, "node"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert process.stdout is not None
    with anyio.fail_after(PATIENCE_S):
        said = ""
        while "NVML" not in said:
            said += (await process.stdout.receive()).decode()
        found = re.search(r"node node-7 at (127\.0\.0\.1:\d+): reads only", said)
        assert found is not None, said
        node = NodeSettings(
            node_id="node-7", address=found[1], tls=False, token_file=tmp_path / "token"
        )
        async with NodeClient(NodesSettings(nodes=(node,)), SystemClock()) as client:
            view = (await client.read())["node-7"]
        process.send_signal(signal.SIGTERM)
        status = await process.wait()
        await process.aclose()
    assert status == 0
    assert view.answer is not None
    assert "NVML" in view.answer.failure
    assert view.state is NodeState.NEVER
    assert not view.answer.takes_writes


def test_commands_do_not_load_what_they_do_not_need() -> None:
    """A client waits for a server over stdio to start."""
    code = (
        "import sys, json, interlock_console.cli; "
        "print(json.dumps(sorted(m for m in sys.modules if m.startswith("
        "'interlock_servers.devices.') or m in ('pynvml', 'amdsmi', 'kubernetes'))))"
    )
    done = subprocess.run(  # noqa: S603 (our own interpreter)
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert json.loads(done.stdout) == ["interlock_servers.devices.nodes"]  # their settings alone


def test_settings_name_each_node_once() -> None:
    """Two agents of one name would cap each other's GPUs."""
    node = NodeSettings(node_id="n", address="127.0.0.1:1", tls=False)
    other = node.model_copy(update={"address": "127.0.0.1:2"})
    for twice in ((node, other), (node, node.model_copy(update={"node_id": "m"}))):
        with pytest.raises((ValueError, InvalidRequestError), match="stands twice"):
            NodesSettings(nodes=twice)
