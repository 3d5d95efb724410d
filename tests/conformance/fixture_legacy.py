"""The fixture's tools that speak to the client while they run, as clients of 2025-11-25 expect."""

from typing import Any, Literal

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel, Field, JsonValue


class Contact(BaseModel):
    """Two free answers."""

    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


class Defaults(BaseModel):
    """Every primitive type, each with a default."""

    name: str = Field(default="John Doe", description="User name")
    age: int = Field(default=30, description="User age")
    score: float = Field(default=95.5, description="User score")
    status: Literal["active", "inactive", "pending"] = Field(default="active")
    verified: bool = Field(default=True, description="Verification status")


def _titled(*values: tuple[str, str]) -> list[JsonValue]:
    return [{"const": value, "title": title} for value, title in values]


class Choices(BaseModel):
    """Every kind of enumeration; the names are the suite's."""

    untitledSingle: str = Field(json_schema_extra={"enum": ["option1", "option2", "option3"]})  # noqa: N815
    titledSingle: str = Field(  # noqa: N815
        json_schema_extra={"oneOf": [*_titled(("value1", "First"), ("value2", "Second"))]}
    )
    legacyEnum: str = Field(  # noqa: N815
        json_schema_extra={"enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]}
    )
    untitledMulti: list[str] = Field(  # noqa: N815
        json_schema_extra={"items": {"type": "string", "enum": ["option1", "option2"]}}
    )
    titledMulti: list[str] = Field(  # noqa: N815
        json_schema_extra={
            "items": {"anyOf": [*_titled(("value1", "First"), ("value2", "Second"))]}
        }
    )


async def test_tool_with_logging(ctx: Context[Any]) -> str:
    """Send three log messages."""
    for message in ("execution started", "processing data", "execution completed"):
        await ctx.info(f"Tool {message}")
    return "Logged."


async def test_reconnection(ctx: Context[Any]) -> str:
    """Close the stream of this call; the answer waits for the client to come back."""
    await ctx.close_sse_stream()
    return "Reconnection test completed"


async def test_sampling(prompt: str, ctx: Context[Any]) -> str:
    """Have the client's model answer."""
    asked = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    answer = await ctx.session.create_message(
        messages=[asked], max_tokens=100, related_request_id=ctx.request_id
    )
    content = answer.content
    return f"LLM response: {content.text if isinstance(content, TextContent) else 'no text'}"


async def _elicit(ctx: Context[Any], message: str, schema: type[BaseModel]) -> str:
    answer = await ctx.elicit(message, schema)
    content = answer.data.model_dump_json() if answer.action == "accept" else "{}"
    return f"Elicitation completed: action={answer.action}, content={content}"


async def test_elicitation(message: str, ctx: Context[Any]) -> str:
    """Ask the user for two words."""
    return await _elicit(ctx, message, Contact)


async def test_elicitation_sep1034_defaults(ctx: Context[Any]) -> str:
    """Ask with defaults."""
    return await _elicit(ctx, "Please provide user information", Defaults)


async def test_elicitation_sep1330_enums(ctx: Context[Any]) -> str:
    """Ask with choices."""
    return await _elicit(ctx, "Please select values", Choices)


def tools() -> list[Tool]:
    """Everything that needs a way back to the client."""
    return [
        Tool.from_function(function, structured_output=False)
        for function in (
            test_tool_with_logging,
            test_reconnection,
            test_sampling,
            test_elicitation,
            test_elicitation_sep1034_defaults,
            test_elicitation_sep1330_enums,
        )
    ]
