"""What people ask of a policy: try it, explain a decision of it, replay the past with it."""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from interlock_console.entry import DEFAULT_FILE, console, fail
from interlock_console.settings import InterlockSettings, load
from interlock_evals.policy_bench import report_of
from interlock_policies.bench.cases import CASES_FILE, cases_of
from interlock_policies.bench.explain import explain as explain_record
from interlock_policies.bench.mutation import CASE, PROMISE, START_UP
from interlock_policies.bench.replay import DECIDED, Compared, Replay, operations_in
from interlock_policies.bench.replay import replay as replay_records
from interlock_policies.bench.suite import Bench, run_bench
from interlock_policies.bench.words import one_line
from interlock_policies.bundles import BUNDLES, load_bundle
from interlock_policies.gate import PolicyGate
from interlock_servers.site import Authority, open_authority
from interlock_tools.clock import SystemClock
from interlock_tools.errors import FactoryError, InvalidRequestError, NotFoundError

app = typer.Typer(help="Try a policy, explain it, replay the past with it.", no_args_is_help=True)

SHOWN = 10  # differences of one kind in a replay
PAGE = 1000  # records read at once

Record = Mapping[str, Any]
PolicyName = Annotated[
    str | None, typer.Option("--policy", help="a bundle's name, or a directory of .cedar files")
]


@app.command("test")
def try_policy(
    policy: PolicyName = None,
    cases: Annotated[
        Path | None, typer.Option(help=f"the cases; by default {CASES_FILE} in the directory")
    ] = None,
    mutate_every: Annotated[
        int, typer.Option(min=0, help="judge every so many mutants; 0 leaves them out")
    ] = 1,
    report: Annotated[
        Path | None, typer.Option(help="also write policy.json into this folder")
    ] = None,
) -> None:
    """Cases, every combination, mutants; exit status 1 if anything is not as it should be.

    Without --policy the three bundles of the house are tried.
    """
    with _one_sentence():
        if cases is not None and policy is None:
            raise InvalidRequestError("--cases needs --policy: which policy are they about?")
        benches = []
        for name in [policy] if policy else BUNDLES:
            with console.status(f"trying {name}"):
                benches.append(run_bench(name, cases, mutate_every=mutate_every))
        console.print(_summary(benches))
        for bench in benches:
            for line in _faults(bench):
                console.print(line, markup=False)
        if report is not None:
            console.print(f"Written to {report_of(benches).write(report)}", markup=False)
    raise typer.Exit(0 if all(bench.passes for bench in benches) else 1)


@app.command()
def explain(
    change_id: Annotated[str, typer.Argument(help="such as chg-0123456789ab; dry runs too")],
    config: Annotated[Path, typer.Option("--config", help="the settings file")] = DEFAULT_FILE,
    policy: PolicyName = None,
) -> None:
    """Why a change was decided so: each rule, what it turned on, what would have to differ."""
    with _one_sentence():
        settings = load(config)
        records = asyncio.run(_decided_records(settings))
        found = [r for r in records if r.get("body", {}).get("change_id") == change_id]
        if not found:
            raise NotFoundError(f"the ledger holds no decision on {change_id!r}")
        name = policy or settings.bundle
        text = explain_record(found[-1], _gate(name, records))
        console.print(f"{change_id}, asked of {name} as it is now\n\n{text}", markup=False)


@app.command()
def replay(
    export: Annotated[Path, typer.Argument(help="what `interlock ledger export` wrote")],
    policy: Annotated[
        str, typer.Option("--policy", help="a bundle's name, or a directory of .cedar files")
    ],
) -> None:
    """What this policy would have decided on the recorded past; exit status 1 if it contradicts.

    The export is taken as it is: `interlock ledger verify` says whether it was touched.
    """
    with _one_sentence():
        records = list(_exported(export))
        found = replay_records(records, _gate(policy, records))
        for line in _replayed(found, policy):
            console.print(line, markup=False, soft_wrap=True)
    raise typer.Exit(1 if found.contradicted else 0)


def _gate(policy: str, records: Iterable[Record]) -> PolicyGate:
    """The gate over the operations of these records, and those of the policy's own cases."""
    operations = dict(operations_in(records))
    if policy not in BUNDLES and (Path(policy) / CASES_FILE).exists():
        operations = {**cases_of(policy).operations, **operations}
    return load_bundle(policy, operations)


async def _decided_records(settings: InterlockSettings) -> list[dict[str, Any]]:
    def every(authority: Authority) -> list[dict[str, Any]]:
        authority.ledger.flush()
        out: list[dict[str, Any]] = []
        first = 0
        while page := authority.ledger.read(first, PAGE):
            out += [record for record in page if record["kind"] == DECIDED]
            first += len(page)
        return out

    async with open_authority(settings.for_site(), SystemClock()) as authority:
        return await asyncio.to_thread(every, authority)


def _exported(export: Path) -> Iterator[dict[str, Any]]:
    """The records of an export, one line each; checkpoints are passed over.

    Raises:
        InvalidRequestError: it cannot be read, or a line is none of an export; names the line.
    """
    try:
        with export.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    entry = json.loads(line)
                    record = entry.get("record") if "checkpoint" not in entry else None
                except (ValueError, AttributeError, TypeError):
                    entry, record = None, None
                if entry is None or (record is None and "checkpoint" not in entry):
                    raise InvalidRequestError(f"{export}: line {number} is none of a ledger export")
                if isinstance(record, dict):
                    yield record
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{export}: cannot be read: {error}") from error


def _summary(benches: Iterable[Bench]) -> Table:
    table = Table(title="policy bench")
    for heading in (
        "policy",
        "cases",
        "combinations",
        "mutants",
        "caught at",
        "score",
        "survivors",
    ):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    table.add_column("passes?")
    for bench in benches:
        mutation = bench.mutation
        told = ("not run",) * 4
        if mutation is not None:
            stages = " ".join(f"{s} {mutation.caught_by(s)}" for s in (START_UP, CASE, PROMISE))
            survivors = len(mutation.survivors)
            explained = survivors - len(mutation.unexplained)
            told = (
                str(len(mutation.judged)),
                stages,
                f"{mutation.score:.1%}",
                f"{survivors} ({explained} explained)",
            )
        right = len(bench.cases) - len(bench.wrong)
        table.add_row(
            bench.policy,
            f"{right}/{len(bench.cases)}",
            f"{bench.exhaustive.tried:,}",
            *told,
            "[green]yes" if bench.passes else "[red]no",
        )
    return table


def _faults(bench: Bench) -> Iterator[str]:
    """What a person must look at, worst first."""
    for tried in bench.wrong:
        yield f"{bench.policy}: case: {tried.case.name} It {tried.wrong}"
    for broken in bench.exhaustive.broken:
        yield f"{bench.policy}: promise broken: {broken.sentence()}"
    for name in bench.exhaustive.never_met:
        yield f"{bench.policy}: promise {name} applied nowhere: it shows nothing"
    for one in bench.mutation.survivors if bench.mutation else ():
        yield f"{bench.policy}: survived: {one.mutant}"
        yield f"    {one.why or 'NOT EXPLAINED: no case and no promise notices this fault'}"
    if bench.unvaried:
        yield f"{bench.policy}: not varied, the bench knows no values: {', '.join(bench.unvaried)}"
    if not bench.whole:
        yield f"{bench.policy}: too many combinations: each rule was varied by itself"


def _replayed(found: Replay, policy: str) -> Iterator[str]:
    yield f"{found.decided} decisions recorded, {len(found.replayed)} asked again of {policy}"
    for why, count in found.not_replayable.items():
        yield f"  {count} not replayable: {why}"
    for compared in Compared:
        ours = found.of(compared)
        if ours:
            yield f"  {len(ours)} {compared}"
        for one in ours[:SHOWN] if compared is not Compared.SAME else ():
            yield f"    {one_line(one.sentence())}"
        if compared is not Compared.SAME and len(ours) > SHOWN:
            yield f"    and {len(ours) - SHOWN} more"
    if found.contradicted:
        yield (
            f"CONTRADICTION: this very policy decided {len(found.contradicted)} of them otherwise: "
            "what was recorded is not what it was asked about"
        )


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Every expected failure is one sentence and exit status 2."""
    try:
        yield
    except FactoryError as error:
        fail(str(error))
