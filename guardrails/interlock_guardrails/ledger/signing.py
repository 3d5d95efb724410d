"""The key of a log and what it signs: C2SP signed notes and checkpoints by Ed25519."""

import base64
import os
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from interlock_guardrails.ledger.verify import ED25519, key_id
from interlock_tools.errors import InvalidRequestError

OTHERS_MAY_READ = 0o077


class Signer:
    """A private key by the name under which it signs.

    Attributes:
        name: the key name of the C2SP note; for a log, its origin, such as `example.com/ledger`.
        vkey: the public key as `name+hash+base64`, which is what a verifier needs.
    """

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        if not name or "+" in name or not name.isprintable() or any(c.isspace() for c in name):
            raise InvalidRequestError(f"{name!r} cannot name a key: it must have no space and no +")
        raw = private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.name = name
        self._private_key = private_key
        self._key_id = key_id(name, raw)
        self.vkey = f"{name}+{self._key_id.hex()}+{base64.b64encode(ED25519 + raw).decode()}"

    @classmethod
    def generate(cls, name: str) -> Self:
        """A signer with a new key."""
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, name: str, path: Path) -> Self:
        """The signer whose private key is in the PEM file `path`.

        Raises:
            InvalidRequestError: others may read the file, or it holds no plain Ed25519 key.
            OSError: the file cannot be read.
        """
        if path.stat().st_mode & OTHERS_MAY_READ:
            raise InvalidRequestError(f"others may read the private key in {path.name}: chmod 600")
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise InvalidRequestError(f"{path.name} holds no plain PEM private key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidRequestError(f"the key in {path.name} is not Ed25519")
        return cls(name, key)

    def save(self, path: Path) -> None:
        """Write the private key as PEM into a new file that only its owner may read.

        Raises:
            FileExistsError: there is such a file; a key is never overwritten.
        """
        pem = self._private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())

    def sign_note(self, text: str) -> str:
        """The signed note for a text.

        Raises:
            InvalidRequestError: the text does not end in a newline, or holds control characters.
        """
        if not text.endswith("\n") or any(ord(c) < 0x20 and c != "\n" for c in text):
            raise InvalidRequestError("the text of a note ends in a newline and is plain otherwise")
        return f"{text}\n{self._signature_line(text)}"

    def sign_too(self, note: str) -> str:
        """The same note with our signature under those that it has."""
        text = note.rpartition("\n\n")[0] + "\n"
        return note + self._signature_line(text)

    def sign_checkpoint(self, origin: str, size: int, root: bytes) -> str:
        """The signed checkpoint of the log `origin` at `size` records."""
        return self.sign_note(f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n")

    def _signature_line(self, text: str) -> str:
        signature = self._key_id + self._private_key.sign(text.encode())
        return f"\u2014 {self.name} {base64.b64encode(signature).decode()}\n"
