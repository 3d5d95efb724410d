"""Our subscriptions at a VTN: one for each program, with the token of this process."""

from collections.abc import Awaitable, Callable, Iterable

from interlock_servers.flex.openadr.callbacks import Callbacks
from interlock_servers.flex.openadr.settings import OpenAdrSettings
from interlock_servers.flex.strict_json import JsonObject

ListAll = Callable[[str], Awaitable[list[JsonObject]]]
Send = Callable[[str, str, int, JsonObject | None], Awaitable[bytes]]


async def subscribe(
    settings: OpenAdrSettings,
    callbacks: Callbacks,
    programs: Iterable[str],
    *,
    list_all: ListAll,
    send: Send,
) -> None:
    """Take our older subscriptions back, whose token nobody knows any more, and make new ones.

    Raises:
        FactoryError: the VTN does not let us; then we hear of nothing and go on asking.
    """
    if settings.callback is None:
        return
    url = settings.callback.url
    for there in await list_all(f"/subscriptions?clientName={settings.ven_name}"):
        if there.get("clientName") == settings.ven_name and _calls(there) == {url}:
            await send("DELETE", f"/subscriptions/{there['id']}", 200, None)
    for program_id in programs:
        await send(
            "POST",
            "/subscriptions",
            201,
            {
                "clientName": settings.ven_name,
                "programID": program_id,
                "objectOperations": [
                    {
                        "objects": ["EVENT"],
                        "operations": ["CREATE", "UPDATE", "DELETE"],
                        "callbackUrl": url,
                        "bearerToken": callbacks.token,
                    }
                ],
            },
        )


def _calls(subscription: JsonObject) -> set[str]:
    listed = subscription.get("objectOperations")
    return {
        str(one.get("callbackUrl"))
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict)
    }
