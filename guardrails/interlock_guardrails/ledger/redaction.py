"""The one place where secrets are masked: by the key they stand under, and by their shape.

A mask is a net and not a promise: what is secret belongs into no record in the first place.
"""

import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from itertools import pairwise
from typing import Any

MASK = "[redacted]"

_SECRET_WORDS = frozenset(
    {"token", "tokens", "password", "passwords", "passwd", "pwd", "passphrase", "authorization"}
    | {"secret", "secrets", "credential", "credentials", "cookie", "cookies", "bearer", "jwt"}
    | {"apikey", "privatekey"}
)
_SECRET_PAIRS = frozenset(
    {("api", "key"), ("private", "key"), ("access", "key"), ("signing", "key"), ("key", "material")}
    | {("session", "key"), ("encryption", "key"), ("shared", "key"), ("session", "id")}
)
_COUNTED = frozenset({"tokens", "cookies", "secrets", "passwords", "credentials"})
_WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# What each shape cannot be without. Looking for these costs far less than looking for the shapes,
# and none of them is written differently inside JSON.
_MARKS = (
    "eyJ",
    "earer ",
    "EARER ",
    "-----BEGIN ",
    "AKIA",
    "ASIA",
    "nvapi-",
    "sk-ant-",
    "sk-proj-",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "xoxb-",
    "xoxp-",
    "xapp-",
)
_SHAPES = re.compile(
    r"""
      -----BEGIN\ [A-Z0-9 ]{0,30}PRIVATE\ KEY-----.*?(?:-----END[^-]{1,50}-----|\Z)      # PEM
    | \beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)*                                            # JWT, JWE
    | (?<=[Bb]earer\ )[\w.~+/=-]{12,}                                                   # HTTP
    | (?<=BEARER\ )[\w.~+/=-]{12,}
    | (?<![A-Za-z0-9+/])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9+/])                       # AWS
    | \bnvapi-[\w-]{20,}                                                                # NGC
    | \bsk-(?:ant|proj)-[\w-]{20,}          # models
    | \b(?:gh[pos]_\w{30,}|github_pat_\w{30,})                                          # GitHub
    | \b(?:xox[bp]|xapp)-[\w-]{20,}                                                     # Slack
    | (?<=://)[^\s/:@"]{0,256}:[^\s/@"]{1,256}(?=@)                                       # URL
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
SHORTEST = 8  # letters; what is shorter has no shape, and most values are


class _Looks(Enum):
    PLAIN = 0
    COUNTED = 1  # secret unless it is a number: `tokens_per_s: 900` is a rate
    SECRET = 2


@lru_cache(maxsize=4096)  # the same keys come again and again
def _looks(key: str) -> _Looks:
    words = [word.lower() for word in _WORD.findall(key)]
    secret = _SECRET_WORDS.intersection(words)
    if any(pair in _SECRET_PAIRS for pair in pairwise(words)) or secret - _COUNTED:
        return _Looks.SECRET
    return _Looks.COUNTED if secret else _Looks.PLAIN


@lru_cache(maxsize=4096)
def is_suspect(key: str) -> bool:
    """Whether a key may hide what stands under it; `hides` says whether it does."""
    return _looks(key) is not _Looks.PLAIN


def hides(key: str, value: object) -> bool:
    """Whether what stands under this key is a secret because it stands there."""
    looks = _looks(key)
    if looks is _Looks.PLAIN or value is None:
        return False
    return looks is _Looks.SECRET or not isinstance(value, int | float)


def may_hold_secret(text: str) -> bool:
    """Whether a text, or JSON as text, may hold something of a secret's shape; errs to yes."""
    for mark in _MARKS:  # a loop, because `any` costs twice as much
        if mark in text:
            return True
    return "://" in text and "@" in text


def masked(text: str) -> str:
    """The text without what has the shape of a secret: keys, tokens, passwords in URLs."""
    if len(text) < SHORTEST or not may_hold_secret(text):
        return text
    return _SHAPES.sub(MASK, text)


def redact(value: Any) -> Any:
    """A copy of a JSON value without its secrets, found by their key or by their shape."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {
            masked(key) if isinstance(key, str) else key: (
                MASK if hides(str(key), member) else redact(member)
            )
            for key, member in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(member) for member in value]
    return value
