"""OpenAI's REST API as its client calls it, for the local model server."""

from __future__ import annotations

import base64
import struct
from typing import Any

from _llm_faults import Fault, openai_refusal
from _llm_protocol import Call, Reply
from _llm_replies import count_tokens


class OpenAI:
    """See `_llm_protocol.Protocol`."""

    name = "openai"

    def read(self, path: str, content: dict[str, Any]) -> Call | None:
        if path == "/v1/embeddings":
            wanted = content["input"]
            texts = [wanted] if isinstance(wanted, str) else list(wanted)
            dimensions = content.get("dimensions")
            coded = content.get("encoding_format") == "base64"
            return Call("embed", content["model"], "\n".join(texts), texts, None, dimensions, coded)
        if path != "/v1/chat/completions":
            return None
        messages = [message["content"] for message in content["messages"]]
        kind = content.get("response_format") or {}
        schema = kind.get("json_schema", {}).get("schema")
        endpoint = "stream" if content.get("stream") else "generate"
        return Call(endpoint, content["model"], "\n".join(messages), [], schema, None, False)

    def key(self, headers: Any, query: dict[str, list[str]]) -> str | None:
        kind, _, key = (headers.get("Authorization") or "").partition(" ")
        return key if kind == "Bearer" else None

    def bad_key(self) -> Reply:
        return self._error(401, "Incorrect API key provided.", "invalid_api_key")

    def refused(self, fault: Fault, model: str, limit: float) -> Reply:
        return Reply.of(429, *openai_refusal(fault, model, limit))

    def failed(self, status: int, message: str = "it failed") -> Reply:
        return self._error(status, message, None)

    def counted(self, tokens: int) -> Reply:
        return self._error(404, "there is no such endpoint", None)

    def embedded(self, call: Call, vectors: list[list[float]]) -> Reply:
        def coded(values: list[float]) -> Any:
            return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode() if call.single else values

        data = [{"object": "embedding", "index": n, "embedding": coded(values)} for n, values in enumerate(vectors)]
        tokens = count_tokens(call.prompt)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Reply.of(200, {"object": "list", "model": call.model, "data": data, "usage": usage})

    def generated(self, call: Call, text: str, fault: str, tokens: int) -> Reply:
        output = count_tokens(text)
        usage = {
            "prompt_tokens": tokens,
            "completion_tokens": output + 7,
            "total_tokens": tokens + output + 7,
            "prompt_tokens_details": {"cached_tokens": tokens // 10},
            "completion_tokens_details": {"reasoning_tokens": 7},
        }
        ended = {"truncated": "length", "safety": "content_filter"}.get(fault, "stop")
        common = {"id": "chatcmpl-1", "created": 1, "model": call.model}
        if call.endpoint == "stream":
            half = len(text) // 2
            pieces = [{"delta": {"content": piece}, "index": 0} for piece in (text[:half], text[half:])]
            chunks: list[dict[str, Any]] = [
                {**common, "object": "chat.completion.chunk", "choices": [{**piece, "finish_reason": None}]}
                for piece in pieces
            ]
            chunks[-1]["choices"][0]["finish_reason"] = ended
            return Reply.events([*chunks, {**chunks[-1], "choices": [], "usage": usage}], "[DONE]")
        message = {"role": "assistant", "content": text or None}
        choice = {"index": 0, "message": message, "finish_reason": ended}
        return Reply.of(200, {**common, "object": "chat.completion", "choices": [choice], "usage": usage})

    def _error(self, status: int, message: str, code: str | None) -> Reply:
        kind = "invalid_request_error" if status < 500 else "server_error"
        return Reply.of(status, {"error": {"message": message, "type": kind, "param": None, "code": code}})


OPENAI = OpenAI()
