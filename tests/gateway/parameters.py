"""What becomes of every parameter that the official clients know: honoured here, passed on, or refused by its name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}}
FUNCTION = {"name": "f", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
HI = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class Here:
    """The gateway itself does what it says; `by` names the tests that show it."""

    by: str


@dataclass(frozen=True)
class On:
    """It reaches the engine, and where it needs a capability, a model without it is refused by the field's name."""

    value: Any
    as_: Mapping[str, Any] | None = None
    """Fields of the engine's request; None: the same name with the same value."""
    capability: str = ""
    param: str = ""
    """Of the refusal; the parameter's own name unless it is said."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What else must be sent for it to make sense."""


@dataclass(frozen=True)
class No:
    """It is 400 with this `code` and `param`; the parameter's own name unless it is said."""

    value: Any
    code: str = "unsupported_parameter"
    param: str = ""
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Nothing:
    """Taken, and documented to change nothing here; `why` it need not."""

    value: Any
    why: str


Fate = Here | On | No | Nothing

CHAT: dict[str, Fate] = {
    "messages": Here("test_requests"),
    "model": Here("test_answers"),
    "stream": Here("test_answers"),
    "audio": On({"voice": "a", "format": "wav"}, capability="audio_output"),
    "frequency_penalty": On(0.5),
    "function_call": On("auto", capability="functions", beside={"functions": [FUNCTION]}, param="functions"),
    "functions": On([FUNCTION], capability="functions"),
    "logit_bias": On({"17": -100}),
    "logprobs": On(value=True, capability="logprobs"),
    "max_completion_tokens": On(7),
    "max_tokens": On(7),
    "metadata": On({"project": "p"}),
    "modalities": On(["text", "audio"], capability="audio_output"),
    "moderation": On({"model": "m"}, capability="moderation"),
    "n": On(2),
    "parallel_tool_calls": On(value=False),
    "prediction": On({"type": "content", "content": "x"}, capability="prediction"),
    "presence_penalty": On(0.5),
    "prompt_cache_key": On("k"),
    "prompt_cache_options": On({"ttl": "30m"}),
    "prompt_cache_retention": On("24h"),
    "reasoning_effort": On("low"),
    "response_format": On({"type": "json_object"}, capability="json_schema"),
    "safety_identifier": On("s"),
    "seed": On(7),
    "service_tier": On("flex", capability="service_tier"),
    "stop": On(["x"]),
    "store": On(value=True, capability="store"),
    "stream_options": On({"include_usage": True}, beside={"stream": True}),
    "temperature": On(0.5),
    "tool_choice": On("auto"),
    "tools": On([TOOL], capability="tools"),
    "top_logprobs": On(3, capability="logprobs", param="logprobs", beside={"logprobs": True}),
    "top_p": On(0.5),
    "user": On("u"),
    "verbosity": On("low"),
    "web_search_options": On({"search_context_size": "low"}, capability="web_search"),
}

COMPLETIONS: dict[str, Fate] = {
    "model": Here("test_other_requests"),
    "prompt": Here("test_other_requests"),
    "stream": Here("test_other_requests"),
    "best_of": On(2, capability="best_of"),
    "echo": On(value=True),
    "frequency_penalty": On(0.5),
    "logit_bias": On({"17": -100}),
    "logprobs": On(2, capability="logprobs"),
    "max_tokens": On(7),
    "n": On(2),
    "presence_penalty": On(0.5),
    "seed": On(7),
    "stop": On(["x"]),
    "stream_options": On({"include_usage": True}, beside={"stream": True}),
    "suffix": On("end", capability="suffix"),
    "temperature": On(0.5),
    "top_p": On(0.5),
    "user": On("u"),
}

EMBEDDINGS: dict[str, Fate] = {
    "input": Here("test_other_requests"),
    "model": Here("test_other_requests"),
    "dimensions": On(4, capability="dimensions"),
    "encoding_format": On("float"),
    "user": On("u"),
}

MODERATIONS: dict[str, Fate] = {"input": Here("test_other_requests"), "model": Here("test_other_requests")}

_RESPONSE_TOOL = {"type": "function", **FUNCTION}
RESPONSES: dict[str, Fate] = {
    "include": Here("batches/test_responses; dialects/test_responses_request"),
    "input": Here("batches/test_responses"),
    "metadata": Here("batches/test_responses"),
    "model": Here("batches/test_responses"),
    "previous_response_id": Here("batches/test_responses"),
    "store": Here("batches/test_responses"),
    "stream": Here("batches/test_responses"),
    "access_programs": No({"cyber": "x"}),
    "background": No(value=True),
    "context_management": No([{"type": "compaction"}]),
    "conversation": No("conv_1"),
    "image": No({"context_compression": "enabled"}),
    "instructions": On("be brief", {"messages": [{"role": "system", "content": "be brief"}, *HI]}),
    "max_output_tokens": On(7, {"max_completion_tokens": 7}),
    "max_tool_calls": Nothing(3, "only calls of tools that run at OpenAI are counted by it"),
    "moderation": No({"model": "m"}),
    "parallel_tool_calls": On(value=False),
    "prompt": No({"id": "pmpt_1"}),
    "prompt_cache_key": On("k"),
    "prompt_cache_options": On({"ttl": "30m"}),
    "prompt_cache_retention": On("24h"),
    "reasoning": On({"effort": "low", "summary": "auto"}, {"reasoning_effort": "low"}),
    "safety_identifier": On("s"),
    "service_tier": On("flex", capability="service_tier"),
    "stream_options": No(
        {"include_obfuscation": True}, param="stream_options.include_obfuscation", beside={"stream": True}
    ),
    "temperature": On(0.5),
    "text": On(
        {"format": {"type": "json_object"}, "verbosity": "low"},
        {"response_format": {"type": "json_object"}, "verbosity": "low"},
        capability="json_schema",
        param="response_format",
    ),
    "tool_choice": On("required", {"tool_choice": "required"}, beside={"tools": [_RESPONSE_TOOL]}),
    "tools": On([_RESPONSE_TOOL], {"tools": [TOOL]}, capability="tools"),
    "top_logprobs": On(3, {"logprobs": True, "top_logprobs": 3}, capability="logprobs", param="logprobs"),
    "top_p": On(0.5),
    "truncation": Nothing("auto", "what is too long is condensed, whatever it says"),
    "user": On("u"),
}
REASONING: dict[str, Fate] = {
    "context": No("all_turns", "invalid_request_error", "reasoning.context"),
    "effort": On("low", {"reasoning_effort": "low"}),
    "generate_summary": Nothing("auto", "thoughts come whole"),
    "mode": No("pro", "invalid_request_error", "reasoning.mode"),
    "summary": Nothing("auto", "thoughts come whole"),
}
TEXT: dict[str, Fate] = {
    "format": On({"type": "json_object"}, {"response_format": {"type": "json_object"}}),
    "verbosity": On("low", {"verbosity": "low"}),
}

_MESSAGES_TOOL = {"name": "f", "input_schema": SCHEMA}
_IN_HEADER = "the client sends it as a header"
MESSAGES: dict[str, Fate] = {
    "max_tokens": Here("test_messages"),
    "messages": Here("test_messages"),
    "model": Here("test_messages"),
    "stream": Here("test_messages"),
    "betas": Nothing(["x-2026-01-01"], _IN_HEADER),
    "billing_policy": No({"type": "billing_policy", "bill_to": "user_profile"}),
    "cache_control": Nothing({"type": "ephemeral"}, "a prefix that is known is used again by itself"),
    "compaction": No({"type": "enabled"}),
    "container": No("container_1"),
    "context_management": No({"edits": [{"type": "clear_tool_uses_20250919"}]}),
    "diagnostics": No({"previous_message_id": "msg_1"}),
    "fallback_credit_token": No("token"),
    "fallbacks": No([{"model": "other"}]),
    "inference_geo": No("eu"),
    "mcp_servers": No([{"type": "url", "url": "https://mcp.example.org", "name": "x"}]),
    "metadata": On({"user_id": "u"}, {"user": "u"}),
    "output_config": On({"effort": "low"}, {"reasoning_effort": "low"}),
    "service_tier": Nothing("standard_only", "there is one"),
    "speed": No("fast", "invalid_request_error"),
    "stop_sequences": On(["x"], {"stop": ["x"]}),
    "system": On("be brief", {"messages": [{"role": "system", "content": "be brief"}, *HI]}),
    "thinking": On({"type": "enabled", "budget_tokens": 1024}, {"reasoning_effort": "low"}),
    "thread": No({"type": "create"}),
    "tool_choice": On({"type": "any"}, {"tool_choice": "required"}, beside={"tools": [_MESSAGES_TOOL]}),
    "tools": On([_MESSAGES_TOOL], {"tools": [TOOL]}, capability="tools"),
    "user_profile_id": Nothing("profile_1", _IN_HEADER),
    "workspace_id": Nothing("wrkspc_1", _IN_HEADER),
}
MESSAGES_TOOL: dict[str, Fate] = {
    "input_schema": Here("dialects/test_messages_request"),
    "name": Here("dialects/test_messages_request"),
    "type": Here("dialects/test_messages_request"),
    "allowed_callers": No(["code_execution_20260120"], param="tools[0].allowed_callers"),
    "cache_control": Nothing({"type": "ephemeral"}, "a prefix that is known is used again by itself"),
    "defer_loading": No(value=True, param="tools[0].defer_loading"),
    "description": On("d", {"tools": [{"type": "function", "function": {**FUNCTION, "description": "d"}}]}),
    "eager_input_streaming": Nothing(value=True, why="arguments are streamed as they come"),
    "input_examples": No([{"a": True}], param="tools[0].input_examples"),
    "strict": On(value=True, as_={"tools": [{"type": "function", "function": {**FUNCTION, "strict": True}}]}),
}
