"""How three model APIs are asked and how they answer: their wire formats, for the stub of them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

Json = dict[str, Any]

INPUT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS = 11, 5, 7
SHELL_TOOLS = (
    "Bash",
    "bash",
    "run_shell_command",
    "shell_command",
    "exec_command",
    "shell",
    "local_shell",
)
_NOISE = re.compile(r"<(system-reminder|environment_context|user_instructions)>.*?</\1>", re.DOTALL)
_PREAMBLES = ("# AGENTS.md", "This is the Gemini CLI", "This is Qwen Code", "<permissions")


@dataclass(frozen=True)
class Tool:
    """A tool that runs shell commands, as a request offers it."""

    name: str
    schema: Json
    kind: str = "function"

    def arguments(self, command: str) -> Json:
        """Fill in the command, and what else the tool insists on."""
        properties: Json = self.schema.get("properties") or {"command": {"type": "string"}}
        found: Json = {}
        for name, schema in properties.items():
            kind = str(schema.get("type", "string")).lower()
            if name in {"command", "cmd", "script"}:
                found[name] = ["bash", "-lc", command] if kind == "array" else command
            elif name in self.schema.get("required", ()):
                found[name] = {"boolean": False, "number": 1, "integer": 1}.get(kind, "a command")
        return found


@dataclass(frozen=True)
class Answer:
    """What the model says: a text in parts, or a call of a tool."""

    parts: tuple[str, ...] = ()
    tool: Tool | None = None
    command: str = ""
    number: int = 1

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def arguments(self) -> Json:
        return self.tool.arguments(self.command) if self.tool else {}


@dataclass(frozen=True)
class Asked:
    """What of a request decides the answer.

    Attributes:
        text: The last text of the user, without what the CLI adds to it.
        tool_results: What tools said since then.
        tool: The shell tool on offer.
        schema: Of the JSON that the answer must be, if it must.
    """

    text: str
    tool_results: tuple[str, ...]
    tool: Tool | None
    schema: Json | None = None


class Shape(Protocol):
    def asked(self, body: Json) -> Asked: ...
    def whole(self, body: Json, answer: Answer) -> Any: ...
    def stream(self, body: Json, answer: Answer) -> Iterator[bytes]:
        """Yield the events; each part of the text is one."""
        ...


def plain(texts: list[str]) -> str:
    """Return the last text that a person may have written."""
    cleaned = [_NOISE.sub("", text).strip() for text in texts]
    written = [text for text in cleaned if text and not text.startswith(_PREAMBLES)]
    return written[-1] if written else ""


def pick(tools: list[Tool]) -> Tool | None:
    return next((tool for name in SHELL_TOOLS for tool in tools if tool.name == name), None)


def instance(schema: Json) -> Any:
    """Return some value that a JSON schema allows."""
    if "enum" in schema:
        return "user" if "user" in schema["enum"] else schema["enum"][0]
    kind = str(schema.get("type", "object")).lower()
    if kind == "object":
        properties: Json = schema.get("properties", {})
        return {name: instance(one) for name, one in properties.items()}
    return {"string": "stub", "array": [], "boolean": False}.get(kind, 1)


def event(data: Any, name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def texts_of(content: Any, *kinds: str) -> list[str]:
    """Return the texts of a content, which is one text or a list of blocks."""
    if isinstance(content, str):
        return [content]
    return [one["text"] for one in content or [] if one.get("type", "text") in kinds]


def usage(input_name: str, output_name: str) -> Json:
    return {
        input_name: INPUT_TOKENS,
        output_name: OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }


class Anthropic:
    def asked(self, body: Json) -> Asked:
        texts, results = [""], list[str]()
        for message in body.get("messages", []):
            content = message["content"]
            if message["role"] != "user":
                continue
            found = [
                " ".join(texts_of(one.get("content"), "text"))
                for one in (content if isinstance(content, list) else [])
                if one.get("type") == "tool_result"
            ]
            if found:
                results += found
            elif said := plain(texts_of(content, "text")):
                texts, results = [*texts, said], []
        tools = [
            Tool(one["name"], one.get("input_schema", {}))
            for one in body.get("tools", [])
            if "name" in one
        ]
        forms = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
        return Asked(texts[-1], tuple(results), pick(tools), forms.get("schema"))

    def whole(self, body: Json, answer: Answer) -> Any:
        block: Json = {"type": "text", "text": answer.text}
        if answer.tool:
            block = {
                "type": "tool_use",
                "id": f"toolu_{answer.number:08}",
                "name": answer.tool.name,
                "input": answer.arguments,
            }
        return {
            **self._message(body, answer),
            "content": [block],
            "stop_reason": "tool_use" if answer.tool else "end_turn",
            "usage": self._usage(OUTPUT_TOKENS),
        }

    def stream(self, body: Json, answer: Answer) -> Iterator[bytes]:
        start = {**self._message(body, answer), "usage": self._usage(1)}
        yield self._event("message_start", message=start)
        block: Json = {"type": "text", "text": ""}
        if answer.tool:
            block = {**self.whole(body, answer)["content"][0], "input": {}}
        yield self._event("content_block_start", index=0, content_block=block)
        yield self._event("ping")
        for part in [json.dumps(answer.arguments)] if answer.tool else answer.parts:
            delta = {"type": "text_delta", "text": part}
            if answer.tool:
                delta = {"type": "input_json_delta", "partial_json": part}
            yield self._event("content_block_delta", index=0, delta=delta)
        yield self._event("content_block_stop", index=0)
        yield self._event(
            "message_delta",
            delta={"stop_reason": "tool_use" if answer.tool else "end_turn", "stop_sequence": None},
            usage={"output_tokens": OUTPUT_TOKENS},
        )
        yield self._event("message_stop")

    def _event(self, kind: str, **fields: Any) -> bytes:
        return event({"type": kind, **fields}, kind)

    def _usage(self, output_tokens: int) -> Json:
        return {
            "input_tokens": INPUT_TOKENS - CACHED_TOKENS,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": CACHED_TOKENS,
            "output_tokens": output_tokens,
        }

    def _message(self, body: Json, answer: Answer) -> Json:
        return {
            "id": f"msg_{answer.number:08}",
            "type": "message",
            "role": "assistant",
            "model": body.get("model", "stub"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }


class Responses:
    """OpenAI's newer API."""

    def asked(self, body: Json) -> Asked:
        items = body.get("input", [])
        if isinstance(items, str):
            items = [{"type": "message", "role": "user", "content": items}]
        text, results = "", list[str]()
        for item in items:
            if str(item.get("type", "message")).endswith("_call_output"):
                results.append(str(item.get("output")))
            elif item.get("role") == "user" and (
                said := plain(texts_of(item.get("content"), "input_text", "text"))
            ):
                text, results = said, []
        tools = [
            Tool(
                one.get("name") or one["type"],
                one.get("parameters") or {},
                one.get("type", "function"),
            )
            for one in body.get("tools", [])
        ]
        form = (body.get("text") or {}).get("format") or {}
        return Asked(text, tuple(results), pick(tools), form.get("schema"))

    def whole(self, body: Json, answer: Answer) -> Any:
        return {
            **self._response(body, answer, "completed"),
            "output": [self._item(answer, "completed")],
            "usage": {
                **usage("input_tokens", "output_tokens"),
                "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        }

    def stream(self, body: Json, answer: Answer) -> Iterator[bytes]:
        for number, (kind, fields) in enumerate(self._events(body, answer)):
            yield event({"type": kind, **fields, "sequence_number": number}, kind)

    def _events(self, body: Json, answer: Answer) -> Iterator[tuple[str, Json]]:
        started = self._response(body, answer, "in_progress")
        item = self._item(answer, "completed")
        here: Json = {"output_index": 0, "item_id": item["id"]}
        yield "response.created", {"response": started}
        yield "response.in_progress", {"response": started}
        yield (
            "response.output_item.added",
            {"output_index": 0, "item": self._item(answer, "in_progress")},
        )
        if answer.tool is None:
            yield from self._text(answer, {**here, "content_index": 0})
        elif item["type"] == "function_call":
            arguments = item["arguments"]
            yield "response.function_call_arguments.delta", {**here, "delta": arguments}
            yield "response.function_call_arguments.done", {**here, "arguments": arguments}
        yield "response.output_item.done", {"output_index": 0, "item": item}
        yield "response.completed", {"response": self.whole(body, answer)}

    def _text(self, answer: Answer, here: Json) -> Iterator[tuple[str, Json]]:
        part: Json = {"type": "output_text", "annotations": [], "text": ""}
        yield "response.content_part.added", {**here, "part": part}
        for delta in answer.parts:
            yield "response.output_text.delta", {**here, "delta": delta}
        yield "response.output_text.done", {**here, "text": answer.text}
        yield "response.content_part.done", {**here, "part": {**part, "text": answer.text}}

    def _item(self, answer: Answer, status: str) -> Json:
        done = status == "completed"
        if answer.tool is None:
            content = [{"type": "output_text", "annotations": [], "text": answer.text}]
            return {
                "type": "message",
                "id": f"msg_{answer.number:08}",
                "status": status,
                "role": "assistant",
                "content": content if done else [],
            }
        call: Json = {"id": f"fc_{answer.number:08}", "call_id": f"call_{answer.number:08}"}
        if answer.tool.kind == "local_shell":
            action = {"type": "exec", "command": ["bash", "-lc", answer.command], "env": {}}
            return {"type": "local_shell_call", **call, "status": status, "action": action}
        return {
            "type": "function_call",
            **call,
            "status": status,
            "name": answer.tool.name,
            "arguments": json.dumps(answer.arguments) if done else "",
        }

    def _response(self, body: Json, answer: Answer, status: str) -> Json:
        return {
            "id": f"resp_{answer.number:08}",
            "object": "response",
            "created_at": 1_700_000_000,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": body.get("model", "stub"),
            "output": [],
            "parallel_tool_calls": False,
            "usage": None,
        }


class Chat:
    """OpenAI's older API, which many vendors have too."""

    def asked(self, body: Json) -> Asked:
        text, results = "", list[str]()
        for message in body.get("messages", []):
            if message["role"] == "tool":
                results.append(" ".join(texts_of(message.get("content"), "text")))
            elif message["role"] == "user" and (
                said := plain(texts_of(message.get("content"), "text"))
            ):
                text, results = said, []
        functions = [one["function"] for one in body.get("tools") or [] if "function" in one]
        tools = [Tool(one["name"], one.get("parameters") or {}) for one in functions]
        form = (body.get("response_format") or {}).get("json_schema") or {}
        return Asked(text, tuple(results), pick(tools), form.get("schema"))

    def whole(self, body: Json, answer: Answer) -> Any:
        message: Json = {"role": "assistant", "content": answer.text or None}
        if answer.tool:
            message["tool_calls"] = [self._call(answer)]
        choice = {"index": 0, "message": message, "finish_reason": self._why(answer)}
        return {
            **self._head(body, answer, "chat.completion"),
            "choices": [choice],
            "usage": usage("prompt_tokens", "completion_tokens"),
        }

    def stream(self, body: Json, answer: Answer) -> Iterator[bytes]:
        head = self._head(body, answer, "chat.completion.chunk")

        def chunk(delta: Json, why: str | None = None) -> bytes:
            return event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": why}]})

        yield chunk({"role": "assistant", "content": ""})
        if answer.tool:
            yield chunk({"tool_calls": [{"index": 0, **self._call(answer)}]})
        for part in answer.parts:
            yield chunk({"content": part})
        yield chunk({}, self._why(answer))
        if (body.get("stream_options") or {}).get("include_usage"):
            yield event(
                {**head, "choices": [], "usage": usage("prompt_tokens", "completion_tokens")}
            )
        yield event("[DONE]")

    def _call(self, answer: Answer) -> Json:
        name = answer.tool.name if answer.tool else ""
        function = {"name": name, "arguments": json.dumps(answer.arguments)}
        return {"id": f"call_{answer.number:08}", "type": "function", "function": function}

    def _why(self, answer: Answer) -> str:
        return "tool_calls" if answer.tool else "stop"

    def _head(self, body: Json, answer: Answer, kind: str) -> Json:
        return {
            "id": f"chatcmpl-{answer.number:08}",
            "object": kind,
            "created": 1_700_000_000,
            "model": body.get("model", "stub"),
        }


class Gemini:
    def asked(self, body: Json) -> Asked:
        text, results = "", list[str]()
        for content in body.get("contents", []):
            parts = content.get("parts", [])
            found = [
                json.dumps(one["functionResponse"]) for one in parts if "functionResponse" in one
            ]
            if found:
                results += found
            elif content.get("role", "user") == "user" and (
                said := plain([one["text"] for one in parts if "text" in one])
            ):
                text, results = said, []
        tools = [
            Tool(one["name"], one.get("parametersJsonSchema") or one.get("parameters") or {})
            for group in body.get("tools", [])
            for one in group.get("functionDeclarations", [])
        ]
        config = body.get("generationConfig") or {}
        schema = config.get("responseJsonSchema") or config.get("responseSchema")
        return Asked(text, tuple(results), pick(tools), schema)

    def whole(self, body: Json, answer: Answer) -> Any:
        return self._answer(answer, answer.text, last=True)

    def stream(self, body: Json, answer: Answer) -> Iterator[bytes]:
        parts = answer.parts or ("",)
        for number, part in enumerate(parts, 1):
            yield event(self._answer(answer, part, last=number == len(parts)))

    def _answer(self, answer: Answer, text: str, *, last: bool) -> Json:
        part: Json = {"text": text}
        if answer.tool:
            part = {"functionCall": {"name": answer.tool.name, "args": answer.arguments}}
        candidate: Json = {"content": {"role": "model", "parts": [part]}, "index": 0}
        output = OUTPUT_TOKENS if last else 1
        if last:
            candidate["finishReason"] = "STOP"
        return {
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": INPUT_TOKENS,
                "cachedContentTokenCount": CACHED_TOKENS,
                "candidatesTokenCount": output,
                "totalTokenCount": INPUT_TOKENS + output,
            },
            "modelVersion": "stub",
            "responseId": f"r{answer.number:08}",
        }
