"""`interlock settlement`: what a grid event came to, by the meter and by what was recorded."""

from pathlib import Path
from typing import Annotated

import typer

from interlock_console.entry import DEFAULT_FILE, Config, console, run, settings_in


def settlement(
    event_id: Annotated[
        str | None, typer.Argument(help="correlation_id of the grid's request; else of the last")
    ] = None,
    meter: Annotated[
        Path | None,
        typer.Option(help="CSV: start and mean_kw, mean_w or energy_kwh; else our own record"),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="the site's, such as America/New_York; else the settings'")
    ] = None,
    out: Annotated[Path, typer.Option(help="the folder for the report")] = Path("settlement"),
    method: Annotated[
        str | None, typer.Option(help="of the baseline: high-4-of-5 (the usual) or 10-of-10")
    ] = None,
    targets: Annotated[
        Path | None, typer.Option(help="recorded targets; else those of the data directory")
    ] = None,
    holiday: Annotated[list[str] | None, typer.Option(help="a day that is as Sundays are")] = None,
    until: Annotated[str | None, typer.Option(help="where the event has no end")] = None,
    send: Annotated[bool, typer.Option("--send", help="also send it to the VTN")] = False,
    resource: Annotated[
        str | None, typer.Option(help="what the VTN knows the site as; else the site's id")
    ] = None,
    config: Config = DEFAULT_FILE,
) -> None:
    """Write CSV, JSON and a picture of a grid event: baseline, target and meter."""
    from interlock_console.settling import Wanted, report_event  # only this command needs it

    wanted = Wanted(
        event_id=event_id,
        meter=meter,
        zone=zone,
        out=out,
        method=method,
        targets=targets,
        holidays=tuple(holiday or ()),
        until=until,
        send=send,
        resource=resource,
    )
    run(report_event(console, settings_in(config), wanted))
