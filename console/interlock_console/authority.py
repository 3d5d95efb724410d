"""What people do beside voting: lend a role, break glass and judge it, withdraw, clear, let go."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from interlock_console.decisions import SHOWN_DIGITS
from interlock_console.entry import (
    DEFAULT_FILE,
    ChangeId,
    Config,
    Why,
    console,
    run,
    settings_in,
)
from interlock_console.settings import local_person, roles_of_user
from interlock_guardrails import changes
from interlock_guardrails.break_glass import Review
from interlock_servers.site import Authority, open_authority
from interlock_tools.clock import SystemClock
from interlock_tools.errors import ConflictError
from interlock_tools.identity import Principal

HOUR_S, DAY_S = 3600.0, 86_400.0

delegation = typer.Typer(help="Lend a role for a while, and take it back.", no_args_is_help=True)
break_glass = typer.Typer(
    help="Authorise alone, in an emergency; judge it afterwards.", no_args_is_help=True
)
change = typer.Typer(help="Withdraw a change; clear what a stuck one holds.", no_args_is_help=True)
autonomy = typer.Typer(help="What agents may do without a vote.", no_args_is_help=True)

Scope = Annotated[str, typer.Argument(help="an operation such as maxlps.set_caps, or an effect")]


def add_to(app: typer.Typer) -> None:
    """Give the command line these verbs."""
    app.add_typer(delegation, name="delegation")
    app.add_typer(break_glass, name="break-glass")
    app.add_typer(change, name="change")
    app.add_typer(autonomy, name="autonomy")


@delegation.command("give")
def give_delegation(
    to: Annotated[str, typer.Argument(help="the other person, such as person:operator-2")],
    role: Annotated[str, typer.Argument(help="a role of your own, such as operator")],
    hours: Annotated[float, typer.Option(help="for how long; it always ends")],
    why: Why,
    config: Config = DEFAULT_FILE,
) -> None:
    """Let another person vote in a role of yours; for a change the two of you count once."""

    async def give(authority: Authority, me: Principal) -> None:
        given = await authority.delegations.delegate(me, to, role, valid_s=hours * HOUR_S, why=why)
        _say(f"{given.delegation_id}: {to} has {role} of {me.id} until {given.expires_at}")

    _run(config, give)


@delegation.command("revoke")
def revoke_delegation(
    delegation_id: Annotated[str, typer.Argument(help="such as dlg-0123456789ab")],
    why: Why,
    config: Config = DEFAULT_FILE,
) -> None:
    """End a delegation now; votes that were cast under it stand."""

    async def revoke(authority: Authority, me: Principal) -> None:
        ended = await authority.delegations.revoke(me, delegation_id, why=why)
        _say(f"{ended.delegate} has {ended.role} of {ended.delegator} no longer")

    _run(config, revoke)


@delegation.command("list")
def list_delegations(config: Config = DEFAULT_FILE) -> None:
    """The delegations that are in force."""

    async def show(authority: Authority, _: Principal) -> None:
        standing = await authority.delegations.standing()
        for one in standing:
            _say(
                f"{one.delegation_id}  {one.delegate} has {one.role} of {one.delegator} "
                f"until {one.expires_at}: {one.why}"
            )
        if not standing:
            _say("no role is lent")

    _run(config, show)


@break_glass.command("authorise")
def authorise_alone(
    change_id: ChangeId,
    digest: Annotated[
        str, typer.Option(help="the first characters of the digest that you were shown")
    ],
    target: Annotated[str, typer.Option(help="the target's name, typed")],
    reason: Annotated[str, typer.Option(help="why it cannot wait; others judge it")],
    config: Config = DEFAULT_FILE,
) -> None:
    """Authorise a waiting change alone and at once. It is loud, and two others judge it."""

    async def smash(authority: Authority, me: Principal) -> None:
        waits = await authority.store.read(lambda connection: changes.get(connection, change_id))
        bound = waits.binding_digest or ""
        if len(digest) < SHOWN_DIGITS or not bound.startswith(digest):
            raise ConflictError(
                f"{digest!r} is not what would be done; `interlock approvals list` shows it"
            )
        broken = await authority.break_glass.authorise(
            me, change_id, reason=reason, shown_digest=bound, typed_target=target
        )
        _say(broken.sentence())

    _run(config, smash)


@break_glass.command("review")
def review_broken_glass(
    change_id: ChangeId,
    justified: Annotated[bool, typer.Option("--justified/--not-justified", help="your verdict")],
    why: Why,
    config: Config = DEFAULT_FILE,
) -> None:
    """Say whether breaking the glass was right; the second opinion makes the verdict."""

    async def give(authority: Authority, me: Principal) -> None:
        review = await authority.break_glass.review(me, change_id, justified=justified, why=why)
        _say(_of_review(review, late=False))

    _run(config, give)


@break_glass.command("list")
def list_reviews(
    overdue: Annotated[bool, typer.Option("--overdue", help="only those that are late")] = False,
    config: Config = DEFAULT_FILE,
) -> None:
    """Where glass was broken and what others found; exit status 1 if a review is overdue."""

    async def show(authority: Authority, _: Principal) -> None:
        late = await authority.break_glass.overdue()
        names = {review.change_id for review in late}
        shown = late if overdue else await authority.break_glass.reviews()
        for review in shown:
            _say(_of_review(review, late=review.change_id in names))
        if not shown:
            _say("no review is overdue" if overdue else "no glass was broken")
        if late:
            raise typer.Exit(1)

    _run(config, show)


@change.command()
def withdraw(change_id: ChangeId, why: Why, config: Config = DEFAULT_FILE) -> None:
    """Take back a change that has not begun."""

    async def take_back(authority: Authority, me: Principal) -> None:
        _say((await authority.approvals.withdraw(me, change_id, why=why)).sentence())

    _run(config, take_back)


@change.command()
def clear(
    change_id: ChangeId,
    why: Annotated[str, typer.Option("--why", help="what you found at the plant; for the ledger")],
    config: Config = DEFAULT_FILE,
) -> None:
    """Give back what a stuck change still holds, once you have looked at the plant."""

    async def give_back(authority: Authority, me: Principal) -> None:
        cleared = await authority.clearing.clear(me, change_id, why=why)
        _say(f"{cleared.target} is free again; {change_id} stays {cleared.state}")

    _run(config, give_back)


@autonomy.command("grant")
def grant_autonomy(
    scope: Scope,
    evidence: Annotated[
        list[str], typer.Option(help="a change that succeeded; give as many as the rules ask for")
    ],
    days: Annotated[float, typer.Option(help="for how long; it always ends")],
    why: Why,
    config: Config = DEFAULT_FILE,
) -> None:
    """Let agents act without a vote in this scope, as far as the policy allows it."""

    async def grant(authority: Authority, me: Principal) -> None:
        given = await authority.autonomy.grant(
            me, scope, evidence=evidence, valid_s=days * DAY_S, why=why
        )
        _say(f"{given.grant_id}: agents may {scope} at {given.site} until {given.expires_at}")

    _run(config, grant)


@autonomy.command("revoke")
def revoke_autonomy(
    grant_id: Annotated[str, typer.Argument(help="such as aut-0123456789ab")],
    why: Why,
    config: Config = DEFAULT_FILE,
) -> None:
    """Let agents ask people again. Anyone may."""

    async def revoke(authority: Authority, me: Principal) -> None:
        ended = await authority.autonomy.revoke(me, grant_id, why=why)
        _say(f"agents ask again before they {ended.scope}")

    _run(config, revoke)


@autonomy.command("list")
def list_autonomy(config: Config = DEFAULT_FILE) -> None:
    """What agents may do without a vote, and what a failure has ended."""

    async def show(authority: Authority, _: Principal) -> None:
        standing = await authority.autonomy.standing()
        for one in standing:
            failed = await authority.autonomy.trouble(one)
            ended = "" if failed is None else f"; ended by {failed}, which went wrong"
            _say(
                f"{one.grant_id}  {one.scope} at {one.site} until {one.expires_at}, by "
                f"{one.granted_by} from {len(one.evidence)} changes: {one.why}{ended}"
            )
        if not standing:
            _say("agents ask before every change")

    _run(config, show)


@autonomy.command("evidence")
def list_evidence(scope: Scope, config: Config = DEFAULT_FILE) -> None:
    """The changes that a grant could rest on: what succeeded since the last trouble."""

    async def show(authority: Authority, _: Principal) -> None:
        found = await authority.autonomy.evidence(scope)
        for change_id in found:
            _say(change_id)
        if not found:
            _say(f"nothing of {scope} has succeeded since the last trouble")

    _run(config, show)


def _of_review(review: Review, *, late: bool) -> str:
    words = {None: "open", True: "justified", False: "not justified"}
    given = ", ".join(
        f"{opinion.reviewer} {'for' if opinion.justified else 'against'} it"
        for opinion in review.opinions
    )
    return (
        f"{review.change_id}  {review.what}, broken open by {review.broken_by}: {review.reason}; "
        f"{words[review.justified]}{f' ({given})' if given else ''}, due {review.due_at}"
        f"{', OVERDUE' if late else ''}"
    )


def _say(sentence: str) -> None:
    """One line, whatever stands in it: names and reasons are other people's text."""
    line = "".join(each if each.isprintable() else "\ufffd" for each in sentence)
    console.print(line, markup=False, soft_wrap=True)


def _run(config: Path, work: Callable[[Authority, Principal], Awaitable[None]]) -> None:
    """Do it as the user of this machine; an expected failure is one sentence and exit status 2."""

    async def act() -> int:
        settings = settings_in(config)
        async with open_authority(settings.for_site(), SystemClock()) as authority:
            await work(authority, local_person(roles_of_user(settings)))
        return 0

    run(act())
