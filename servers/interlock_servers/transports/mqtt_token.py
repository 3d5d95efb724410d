"""The token that is the password on the bus: where it comes from, and when it ends.

The broker verifies it. We read `exp` out of it only to know when to come with a fresher one.
"""

import base64
import binascii
import ipaddress
import json
import os
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from interlock_tools.errors import InvalidRequestError, UnavailableError

FETCH_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 65_536


class Token(NamedTuple):
    """A secret, and when it ends where it says so; a plain password never ends."""

    secret: str
    expires_at_s: float | None

    @classmethod
    def of(cls, secret: str, expires_at_s: float | None = None) -> "Token":
        """The secret with the end that it states itself, if it is a JWT, or else with this one."""
        try:
            body = secret.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            stated = claims["exp"]
            if type(stated) in (int, float) and 0 < stated < 2**40:
                expires_at_s = float(stated)
        except (IndexError, KeyError, TypeError, ValueError, binascii.Error, RecursionError):
            pass
        return cls(secret, expires_at_s)

    def check(self, now: datetime) -> None:
        """Refuse one that has ended: a broker would say no more than `not authorised`.

        Raises:
            InvalidRequestError: it has ended.
        """
        if self.expires_at_s is not None and now.timestamp() >= self.expires_at_s:
            ended = datetime.fromtimestamp(self.expires_at_s, UTC).isoformat(timespec="seconds")
            raise InvalidRequestError(f"the token ended at {ended}, and no fresher one is there")

    def outlives(self, other: "Token | None") -> bool:
        """Whether it ends later than the other, or never."""
        if other is None or other.expires_at_s is None:
            return False
        return self.expires_at_s is None or self.expires_at_s > other.expires_at_s


def renew_at_s(token: Token | None, now: datetime, before_s: float) -> float | None:
    """When to come with a fresher one; never earlier than half of the time that is left."""
    if token is None or token.expires_at_s is None:
        return None
    left_s = token.expires_at_s - now.timestamp()
    return token.expires_at_s - min(before_s, max(left_s, 0.0) / 2)


class OAuthSettings(BaseModel):
    """An issuer that gives tokens to who we are (RFC 6749, client credentials).

    The scope is the one that the bus asks for by default. Who we are goes in the header, or in the
    form where the issuer reads only that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    token_url: str
    client_id: str = Field(min_length=1, max_length=256)
    client_secret_env: str | None = None
    client_secret_file: Path | None = None
    scope: str = "mqtt"
    audience: str | None = None
    credentials_in_form: bool = False
    ca_file: Path | None = None

    @field_validator("token_url")
    @classmethod
    def _is_encrypted(cls, url: str) -> str:
        parts = urlsplit(url)
        if "@" in parts.netloc or not parts.hostname:
            raise ValueError("token_url must name a host and hold no credentials")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
            raise ValueError("a secret is never sent in the clear: token_url must be https://")
        return url

    @model_validator(mode="after")
    def _has_one_secret(self) -> Self:
        if bool(self.client_secret_env) == bool(self.client_secret_file):
            raise ValueError("name client_secret_env or client_secret_file, one of them")
        return self

    def read_secret(self) -> str:
        """The client's secret of this moment.

        Raises:
            InvalidRequestError: the variable or the file is not there, or is empty.
        """
        return read_secret(self.client_secret_env, self.client_secret_file) or ""


def is_loopback(host: str) -> bool:
    """Whether it is this machine, so that nothing is sent over a network."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_secret(env: str | None, file: Path | None) -> str | None:
    """What the variable or the file holds; None where neither is named.

    Raises:
        InvalidRequestError: it is not there, or is empty.
    """
    if env:
        secret = os.environ.get(env, "").strip()
        where = f"the environment variable {env}"
    elif file:
        where = f"the file {file}"
        try:
            secret = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"{where} cannot be read: {error}") from error
    else:
        return None
    if not secret:
        raise InvalidRequestError(f"{where} should hold the password and is empty")
    return secret


def fetch_token(settings: OAuthSettings, now: datetime) -> Token:
    """Ask the issuer for a token; it blocks for some seconds at most.

    Raises:
        InvalidRequestError: our own secret is not there.
        UnavailableError: the issuer does not answer, or gives no token; no secret is in the text.
    """
    form = {"grant_type": "client_credentials", "scope": settings.scope}
    if settings.audience:
        form["audience"] = settings.audience
    secret = settings.read_secret()
    who: httpx2.Auth = httpx2.BasicAuth(settings.client_id, secret)
    if settings.credentials_in_form:
        form |= {"client_id": settings.client_id, "client_secret": secret}
        who = httpx2.Auth()  # nothing more in the header
    try:
        trust = ssl.create_default_context(cafile=settings.ca_file)
        with httpx2.Client(timeout=FETCH_TIMEOUT_S, verify=trust) as client:
            answer = client.post(settings.token_url, data=form, auth=who)
    except (httpx2.HTTPError, OSError) as error:
        raise UnavailableError(f"the issuer gives no token: {type(error).__name__}") from None
    if answer.status_code != 200 or len(answer.content) > MAX_ANSWER_BYTES:
        raise UnavailableError(f"the issuer gives no token: it answered {answer.status_code}")
    try:
        said = answer.json()
        token = said["access_token"]
        lives_s = said.get("expires_in")
    except (ValueError, KeyError, TypeError, AttributeError):
        token = lives_s = None
    if not isinstance(token, str) or not token:
        raise UnavailableError("the issuer gives no token: its answer holds none")
    end_s = None
    if type(lives_s) in (int, float):
        end_s = now.timestamp() + lives_s
    return Token.of(token, end_s)
