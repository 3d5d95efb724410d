"""Questions to the plant about an act: each has a deadline, and what breaks is no answer."""

import logging
from datetime import datetime
from typing import Any

import anyio

from interlock_tools.errors import FactoryError
from interlock_tools.fact import FactSet
from interlock_tools.operation import Arguments, Happened, Held, Operation, ReadBack, Verdict

ASK_TIMEOUT_S = 60.0
NO_ANSWER = "no answer in time"
OUR_MISTAKE = "our own operation broke"

log = logging.getLogger(__name__)


async def read_back(operation: Operation[Any], arguments: Arguments) -> ReadBack:
    """What the component says of the act; unknown where it does not say."""
    try:
        with anyio.fail_after(ASK_TIMEOUT_S):
            return await operation.read_back(arguments)
    except (FactoryError, TimeoutError) as error:
        why = str(error) or NO_ANSWER
    except Exception:
        log.exception("an operation broke while it read back")
        why = OUR_MISTAKE
    return ReadBack(happened=Happened.UNKNOWN, evidence={"error": why})


async def verdict_of(
    operation: Operation[Any], arguments: Arguments, before: FactSet, since: datetime
) -> Verdict:
    """What an independent source shows; not yet, where it shows nothing."""
    try:
        with anyio.fail_after(ASK_TIMEOUT_S):
            return await operation.verify(arguments, before, since)
    except (FactoryError, TimeoutError) as error:
        why = str(error) or NO_ANSWER
    except Exception:
        log.exception("an operation broke while it verified")
        why = OUR_MISTAKE
    return Verdict(held=Held.NOT_YET, source="no source", evidence={"error": why})
