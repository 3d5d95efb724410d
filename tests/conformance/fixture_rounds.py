"""The fixture's tools that ask in rounds, as 2026-07-28 has it: the call ends with a question."""

from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    ClientCapabilities,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    MissingRequiredClientCapabilityErrorData,
    SamplingCapability,
    SamplingMessage,
    TextContent,
)

Asked = InputRequiredResult


def elicit(message: str, **types: str) -> ElicitRequest:
    """A form with one field of each name and type."""
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in types.items()},
        "required": list(types),
    }
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(text: str) -> CreateMessageRequest:
    """A question to the client's model."""
    asked = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[asked], max_tokens=100))


def answer(ctx: Context[Any], key: str) -> Any:
    """What came back under this key, or None."""
    return (ctx.input_responses or {}).get(key)


def field(ctx: Context[Any], key: str, name: str) -> Any:
    """One field of an accepted form, or None."""
    came = answer(ctx, key)
    if not isinstance(came, ElicitResult) or came.action != "accept":
        return None
    return (came.content or {}).get(name)


async def test_input_required_result_elicitation(ctx: Context[Any]) -> str | Asked:
    """Ask for a name."""
    name = field(ctx, "user_name", "name")
    if not isinstance(name, str):
        return Asked(input_requests={"user_name": elicit("What is your name?", name="string")})
    return f"Hello, {name}!"


async def test_input_required_result_sampling(ctx: Context[Any]) -> str | Asked:
    """Ask the client's model."""
    came = answer(ctx, "capital_question")
    if not isinstance(came, CreateMessageResult):
        question = sample("What is the capital of France?")
        return Asked(input_requests={"capital_question": question})
    return came.content.text if isinstance(came.content, TextContent) else "no text"


async def test_input_required_result_list_roots(ctx: Context[Any]) -> str | Asked:
    """Ask for the client's roots."""
    came = answer(ctx, "client_roots")
    if not isinstance(came, ListRootsResult):
        return Asked(input_requests={"client_roots": ListRootsRequest()})
    return "roots: " + ", ".join(str(root.uri) for root in came.roots)


async def test_input_required_result_request_state(ctx: Context[Any]) -> str | Asked:
    """Ask, and have the caller carry what is known so far."""
    if field(ctx, "confirm", "ok") is None:
        question = elicit("Please confirm", ok="boolean")
        return Asked(input_requests={"confirm": question}, request_state="asked-once")
    if ctx.request_state != "asked-once":
        raise MCPError(INVALID_PARAMS, "the state is not the one that was given")
    return "state-ok"


async def test_input_required_result_tampered_state(ctx: Context[Any]) -> str | Asked:
    """The same; the factory's seal refuses a state that was changed on the way."""
    return await test_input_required_result_request_state(ctx)


async def test_input_required_result_multiple_inputs(ctx: Context[Any]) -> str | Asked:
    """Ask three things at once."""
    questions: dict[str, InputRequest] = {
        "user_name": elicit("What is your name?", name="string"),
        "greeting": sample("Generate a greeting"),
        "client_roots": ListRootsRequest(),
    }
    if any(answer(ctx, key) is None for key in questions):
        return Asked(input_requests=questions, request_state="three-asked")
    return f"All came, {field(ctx, 'user_name', 'name')}."


async def test_input_required_result_multi_round(ctx: Context[Any]) -> str | Asked:
    """Ask, then ask again."""
    if field(ctx, "step2", "color") is not None and ctx.request_state == "round-2":
        return f"Color: {field(ctx, 'step2', 'color')}"
    if field(ctx, "step1", "name") is not None and ctx.request_state == "round-1":
        question = elicit("Step 2: What is your favorite color?", color="string")
        return Asked(input_requests={"step2": question}, request_state="round-2")
    question = elicit("Step 1: What is your name?", name="string")
    return Asked(input_requests={"step1": question}, request_state="round-1")


async def test_input_required_result_capabilities(ctx: Context[Any]) -> str | Asked:
    """Ask only what this client can answer."""
    able = ctx.client_capabilities
    questions: dict[str, InputRequest] = {}
    if able is not None and able.elicitation is not None:
        questions["user_name"] = elicit("What is your name?", name="string")
    if able is not None and able.sampling is not None:
        questions["greeting"] = sample("Generate a greeting")
    if not questions or any(answer(ctx, key) is not None for key in questions):
        return "done"
    return Asked(input_requests=questions)


async def test_missing_capability(ctx: Context[Any]) -> str:
    """Refuse a client that cannot sample."""
    able = ctx.client_capabilities
    if able is not None and able.sampling is not None:
        return "it can"
    lacks = MissingRequiredClientCapabilityErrorData(
        required_capabilities=ClientCapabilities(sampling=SamplingCapability())
    )
    raise MCPError(
        MISSING_REQUIRED_CLIENT_CAPABILITY,
        "this tool needs a client that samples",
        lacks.model_dump(by_alias=True, mode="json", exclude_none=True),
    )


async def test_input_required_result_prompt(ctx: Context[Any]) -> list[UserMessage] | Asked:
    """A prompt that asks first."""
    context = field(ctx, "user_context", "context")
    if context is None:
        question = elicit("What context should the prompt use?", context="string")
        return Asked(input_requests={"user_context": question})
    text = TextContent(type="text", text=f"Use this context: {context}")
    return [UserMessage(role="user", content=text)]


def tools() -> list[Tool]:
    """Everything that asks in rounds."""
    return [
        Tool.from_function(function, structured_output=False)
        for function in (
            test_input_required_result_elicitation,
            test_input_required_result_sampling,
            test_input_required_result_list_roots,
            test_input_required_result_request_state,
            test_input_required_result_tampered_state,
            test_input_required_result_multiple_inputs,
            test_input_required_result_multi_round,
            test_input_required_result_capabilities,
            test_missing_capability,
        )
    ]


def prompts() -> list[Prompt]:
    """The one that asks."""
    return [Prompt.from_function(test_input_required_result_prompt)]
