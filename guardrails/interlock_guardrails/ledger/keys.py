"""The files of a log's key: the private key, and the public keys that ever signed the log.

A change of key must survive a crash at any moment: the new key is on disk, under the name of its
hash, before the log knows of it, and takes the place of the old one after. Only the store says
which one is in force.
"""

import os
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Engine

from interlock_guardrails.engine import read_only
from interlock_guardrails.ledger import rows
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.verify import parse_key
from interlock_tools.errors import ConflictError


class LogKeys(NamedTuple):
    """What signs, and what signed before, oldest first; `former` is what a `Ledger` takes."""

    signer: Signer
    former: tuple[str, ...]


def load_keys(name: str, path: Path, engine: Engine, *, replace_lost: bool = False) -> LogKeys:
    """The key in force of the log in the store, made on first use, and those before it.

    Args:
        name: what the key signs as; the origin of the log.
        path: the file of the private key; the public ones are in `keyring_of(path)`.
        engine: the store, with its tables.
        replace_lost: make a new key where the file of the log's key is gone. The ledger then asks
            for a person who stands for it, since the old key cannot.

    Raises:
        ConflictError: the log has a key, and the file is gone.
        InvalidRequestError: a key file is not usable.
    """
    with read_only(engine).connect() as connection:
        in_force = rows.key_in_force(connection)
    if in_force is not None:
        _finish_change(path, in_force)
    if not path.exists():
        if in_force is not None and not replace_lost:
            raise ConflictError(
                f"the log is signed by {parse_key(in_force).short}, and {path.name} is not there: "
                "put it back, or let a person say that another key takes its place"
            )
        Signer.generate(name).save(path)
    signer = Signer.load(name, path)
    return LogKeys(signer, tuple(key for key in _listed(path, signer.vkey) if key != signer.vkey))


def rotate_key(ledger: Ledger, name: str, path: Path, by: str) -> Signer:
    """Make a new key and let it sign from now on; the old private key is gone after.

    Raises:
        ConflictError: another key is in force than the ledger has.
        OSError: a file could not be written. The log may have changed its key already: then the
            next `load_keys` puts the file in its place.
    """
    new = Signer.generate(name)
    waiting = _waiting_file(path, new.vkey)
    new.save(waiting)
    try:
        ledger.rotate(new, by=by)
    except ConflictError:
        waiting.unlink()
        raise
    _finish_change(path, new.vkey)
    _listed(path, new.vkey)
    return new


def keyring_of(path: Path) -> Path:
    """The file with the public keys, one on each line, oldest first: what a verifier needs."""
    return path.with_suffix(".vkeys")


def _finish_change(path: Path, in_force: str) -> None:
    waiting = _waiting_file(path, in_force)
    if waiting.exists():
        waiting.replace(path)
        _sync_folder(path.parent)


def _waiting_file(path: Path, vkey: str) -> Path:
    return path.with_name(f"{path.stem}.{parse_key(vkey).key_id.hex()}{path.suffix}")


def _listed(path: Path, vkey: str) -> list[str]:
    """The keys in the keyring, with this one as its last."""
    keyring = keyring_of(path)
    known = keyring.read_text("utf-8").split() if keyring.exists() else []
    if known[-1:] != [vkey]:
        known = [key for key in known if key != vkey] + [vkey]
        draft = keyring.with_suffix(".draft")
        with draft.open("w", encoding="utf-8") as file:
            file.writelines(f"{key}\n" for key in known)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(keyring)
        _sync_folder(path.parent)
    return known


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
