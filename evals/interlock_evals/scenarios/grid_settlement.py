"""What `interlock settlement` needs of a simulated event: settings, targets, and a meter.

The targets are those that the site itself has recorded. The days before the event are the same load
without one, by the plant; the simulation has no other past.
"""

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np

from interlock_evals.day.rig import START
from interlock_evals.day.run import Day
from interlock_servers.flex.meter_record import FILE_NAME as METER
from interlock_servers.flex.meter_record import HEADER
from interlock_servers.flex.recorded import FILE_NAME as TARGETS

INTERVAL_S: Final = 300
DAYS_BEFORE: Final = 20
FOLDER: Final = Path("reports") / "grid-site"


def keep_site(
    day: Day, recorded: Path, steady_w: float, folder: Path = FOLDER, interval_s: int = INTERVAL_S
) -> Path:
    """A data directory with its settings, as a site leaves them; gives the settings' path.

    Args:
        day: a run that began at `START`, with its event.
        recorded: the data directory of the site that ran it.
        steady_w: what the site draws without an event.
        folder: is written anew.
        interval_s: of the meter.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(recorded / TARGETS, folder / TARGETS)
    rows = [*_before(steady_w, interval_s), *_metered(day, interval_s)]
    lines = [f"{start.isoformat()},{watts:.1f},good\n" for start, watts in rows]
    (folder / METER).write_text(HEADER + "".join(lines), "utf-8")
    settings = folder / "interlock.toml"
    settings.write_text(_settings(day, folder, interval_s), "utf-8")
    return settings


def _before(steady_w: float, interval_s: int) -> list[tuple[datetime, float]]:
    step = timedelta(seconds=interval_s)
    begins = START - timedelta(days=DAYS_BEFORE)
    return [(begins + n * step, steady_w) for n in range(int((START - begins) / step))]


def _metered(day: Day, interval_s: int) -> list[tuple[datetime, float]]:
    """The means of the run's whole intervals; one that it did not live through whole is a gap."""
    seconds = day.record.site_w
    whole = len(seconds) // interval_s
    means = seconds[: whole * interval_s].reshape(whole, interval_s).mean(axis=1)
    starts = (START + timedelta(seconds=interval_s * n) for n in range(whole))
    return [
        (start, float(watts))
        for start, watts in zip(starts, means, strict=True)
        if np.isfinite(watts)
    ]


def _settings(day: Day, folder: Path, interval_s: int) -> str:
    site = day.story.site
    return f"""\
data_dir = {json.dumps(str(folder))}
[site]
site_id = {json.dumps(site.name)}
gpus = {site.gpu_count}
hosts = {len(site.nodes)}
[flex]
site_id = {json.dumps(site.name)}
feeds = {json.dumps(list(site.feed_ids))}
jwks_url = "https://keys.example.com/jwks"
trusted = {{ "//grid/v1/isv/acme-energy" = ["acme-*"] }}
mqtt = {{ brokers = ["mqtt://127.0.0.1:1883"], client_id = "interlock-flex" }}
[flex.settlement]
zone = "UTC"
interval_s = {interval_s}
"""
