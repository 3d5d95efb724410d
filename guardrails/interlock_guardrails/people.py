"""People: who counts as one, who may not judge a change, and what they may write about it."""

import unicodedata

from interlock_tools.change import Change
from interlock_tools.errors import InvalidRequestError
from interlock_tools.identity import Principal, PrincipalKind

VOTING_CHANNELS = frozenset({"console", "slack", "cli"})
WORDS_MAX_CHARS = 500
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # Unicode categories


def is_person(who: Principal) -> bool:
    """Whether this is a person, authenticated by a console."""
    channel = who.authenticated_by.partition(":")[0]
    return who.kind is PrincipalKind.PERSON and channel in VOTING_CHANNELS


def check_person(who: Principal, does: str) -> None:
    """Let only people through who are authenticated by a console.

    Raises:
        InvalidRequestError: it is an agent, a service, or a person known by a token only.
    """
    if not is_person(who):
        raise InvalidRequestError(f"only a person, authenticated by a console, can {does}")


def behind(change: Change) -> frozenset[str]:
    """Whoever asked for the change or answers for it: nobody of them may judge it."""
    asked = change.requester
    return frozenset(who for who in (asked.id, asked.owner, asked.on_behalf_of) if who)


def check_words(name: str, text: str) -> None:
    """Others read it: it must say something, and cannot move the cursor or hide letters.

    Raises:
        InvalidRequestError: it is empty, too long, or more than one line of plain letters.
    """
    if not text.strip() or len(text) > WORDS_MAX_CHARS:
        raise InvalidRequestError(
            f"{name}: say why in 1 to {WORDS_MAX_CHARS} characters; approvers read it"
        )
    if any(unicodedata.category(letter) in UNSEEN for letter in text):
        raise InvalidRequestError(f"{name}: one line without control or invisible characters")
