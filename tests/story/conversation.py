"""What a model is shown in a request for chat completions: what people said, and the calls with what they came to."""

from collections.abc import Mapping
from typing import Any

import msgspec


class Call(msgspec.Struct, frozen=True):
    """A tool call, and its result; its number counts from the beginning of the conversation."""

    number: int
    name: str
    arguments: Mapping[str, Any]
    result: str


class Conversation(msgspec.Struct, frozen=True):
    """One conversation, as it stands."""

    said: tuple[str, ...]  # by people, in order
    calls: tuple[Call, ...]

    def last(self, name: str, sign: str, **arguments: str) -> Call | None:
        """The last call of a tool, with these arguments, whose result shows that it worked."""
        found = (call for call in reversed(self.calls) if call.name == name and sign in call.result)
        return next((call for call in found if is_called_with(call, arguments)), None)

    def last_try(self, *names: str, **arguments: str) -> int:
        """The number of the last call of these tools, whatever came of it; -1 if there was none."""
        found = (call for call in reversed(self.calls) if call.name in names and is_called_with(call, arguments))
        return next((call.number for call in found), -1)


def is_called_with(call: Call, arguments: Mapping[str, str]) -> bool:
    """Whether the call has these arguments, among others."""
    return all(call.arguments.get(name) == value for name, value in arguments.items())


def read_conversation(body: Mapping[str, Any]) -> Conversation:
    """The conversation in the body of a request."""
    said: list[str] = []
    open_calls: dict[str, tuple[str, Mapping[str, Any]]] = {}
    calls: list[Call] = []
    for message in body["messages"]:
        match message["role"]:
            case "user":
                said.append(message["content"])
            case "assistant":
                for call in message.get("tool_calls", ()):
                    function = call["function"]
                    open_calls[call["id"]] = function["name"], msgspec.json.decode(function["arguments"])
            case "tool":
                name, arguments = open_calls[message["tool_call_id"]]
                calls.append(Call(len(calls), name, arguments, message["content"]))
    return Conversation(tuple(said), tuple(calls))
