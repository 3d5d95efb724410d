"""The fixture's simple parts: tools, resources and prompts that the suite calls by fixed names."""

import base64
import json
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.resources import FunctionResource, Resource
from mcp.server.mcpserver.tools import Tool
from mcp.types import (
    AudioContent,
    Completion,
    CompletionArgument,
    CompletionContext,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)
from pydantic import Field

from interlock_servers.surface.factory import Template

IMAGE = (  # one red pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8Dw"
    "HwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
AUDIO = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="  # one silent sample
SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


async def test_simple_text() -> str:
    """Answer with one text."""
    return "This is a simple text response for testing."


async def test_image_content() -> ImageContent:
    """Answer with one image."""
    return ImageContent(type="image", data=IMAGE, mime_type="image/png")


async def test_audio_content() -> AudioContent:
    """Answer with one sound."""
    return AudioContent(type="audio", data=AUDIO, mime_type="audio/wav")


def _embedded(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    return EmbeddedResource(
        type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    )


async def test_embedded_resource() -> EmbeddedResource:
    """Answer with a resource."""
    return _embedded("test://embedded-resource", "text/plain", "An embedded resource.")


async def test_multiple_content_types() -> list[ContentBlock]:
    """Answer with text, image and resource at once."""
    return [
        TextContent(type="text", text="Multiple content types test:"),
        ImageContent(type="image", data=IMAGE, mime_type="image/png"),
        _embedded("test://mixed-content-resource", "application/json", '{"test":"data"}'),
    ]


async def test_tool_with_progress(ctx: Context[Any]) -> str:
    """Report three steps."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"Completed step {done} of 100")
    return "Progress was reported."


async def test_error_handling() -> str:
    """Always fail."""
    raise ToolError("This tool intentionally returns an error for testing")


async def test_x_mcp_header(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
) -> str:
    """Take an argument that is in a header too."""
    return f"region {region}"


async def test_trigger_tool_change(ctx: Context[Any]) -> str:
    """Say that the list of tools has changed."""
    await ctx.notify_tools_changed()
    return "said"


async def test_trigger_prompt_change(ctx: Context[Any]) -> str:
    """Say that the list of prompts has changed."""
    await ctx.notify_prompts_changed()
    return "said"


async def json_schema_2020_12_tool() -> str:
    """Show a schema that uses what JSON Schema 2020-12 has."""
    return "ok"


def tools() -> list[Tool]:
    """Everything that answers at once."""
    made = [
        Tool.from_function(function, structured_output=False)
        for function in (
            test_simple_text,
            test_image_content,
            test_audio_content,
            test_embedded_resource,
            test_multiple_content_types,
            test_tool_with_progress,
            test_error_handling,
            test_x_mcp_header,
            test_trigger_tool_change,
            test_trigger_prompt_change,
        )
    ]
    shown = Tool.from_function(json_schema_2020_12_tool, structured_output=False)
    shown.parameters = SCHEMA_2020_12
    return [*made, shown]


def resources() -> list[Resource]:
    """A text, some bytes and one that changes."""
    return [
        FunctionResource.from_function(
            lambda: "This is the content of the static text resource.",
            uri="test://static-text",
            name="static-text",
            mime_type="text/plain",
        ),
        FunctionResource.from_function(
            lambda: base64.b64decode(IMAGE),
            uri="test://static-binary",
            name="static-binary",
            mime_type="image/png",
        ),
        FunctionResource.from_function(
            lambda: "Watched resource content",
            uri="test://watched-resource",
            name="watched-resource",
            mime_type="text/plain",
        ),
    ]


def _templated(id: str) -> str:  # noqa: A002 (the suite's name)
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


def templates() -> list[Template]:
    """One family of resources."""
    return [
        Template(uri="test://template/{id}/data", read=_templated, description="Data of one id.")
    ]


def _said(content: ContentBlock) -> UserMessage:
    return UserMessage(role="user", content=content)


def test_simple_prompt() -> list[UserMessage]:
    """A prompt without arguments."""
    return [_said(TextContent(type="text", text="This is a simple prompt for testing."))]


def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
    """A prompt with two arguments."""
    text = f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"
    return [_said(TextContent(type="text", text=text))]


def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803
    """A prompt that carries a resource; the argument has the suite's name."""
    return [
        _said(_embedded(resourceUri, "text/plain", "Embedded resource content for testing.")),
        _said(TextContent(type="text", text="Please process the embedded resource above.")),
    ]


def test_prompt_with_image() -> list[UserMessage]:
    """A prompt that carries an image."""
    return [
        _said(ImageContent(type="image", data=IMAGE, mime_type="image/png")),
        _said(TextContent(type="text", text="Please analyze the image above.")),
    ]


def prompts() -> list[Prompt]:
    """Every prompt that asks nothing."""
    return [
        Prompt.from_function(function)
        for function in (
            test_simple_prompt,
            test_prompt_with_arguments,
            test_prompt_with_embedded_resource,
            test_prompt_with_image,
        )
    ]


async def complete(
    ref: PromptReference | ResourceTemplateReference,
    argument: CompletionArgument,
    context: CompletionContext | None,
) -> Completion | None:
    """Words that begin as the argument does."""
    words = [word for word in ("paris", "park", "party") if word.startswith(argument.value)]
    return Completion(values=words, total=len(words), has_more=False)
