"""The Gemini REST API as google-genai calls it, for the local model server."""

from __future__ import annotations

import re
from typing import Any

from _llm_faults import Fault, gemini_refusal
from _llm_protocol import Call, Reply
from _llm_replies import count_tokens

PATH = re.compile(
    r"/v\d\w*/models/([^:/]+):(generateContent|streamGenerateContent|countTokens|embedContent|batchEmbedContents)$"
)
ENDPOINTS = {
    "generateContent": "generate",
    "streamGenerateContent": "stream",
    "countTokens": "count",
    "embedContent": "embed",
    "batchEmbedContents": "embed",
}
STATUSES = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 500: "INTERNAL", 503: "UNAVAILABLE"}


class Gemini:
    """See `_llm_protocol.Protocol`."""

    name = "gemini"

    def read(self, path: str, content: dict[str, Any]) -> Call | None:
        found = PATH.search(path)
        if found is None:
            return None
        model, method = found.groups()
        single = method == "embedContent"
        wanted = content["requests"] if method == "batchEmbedContents" else [content] if single else []
        config = content.get("generationConfig", {})
        texts = [_text([request["content"]]) for request in wanted]
        prompt = "\n".join(texts) if wanted else _text([content.get("systemInstruction", {}), *content["contents"]])
        dimensions = next(
            (request["outputDimensionality"] for request in wanted if "outputDimensionality" in request), 0
        )
        schema = config.get("responseJsonSchema") or config.get("responseSchema")
        return Call(ENDPOINTS[method], model, prompt, texts, schema, dimensions or None, single)

    def key(self, headers: Any, query: dict[str, list[str]]) -> str | None:
        return headers.get("x-goog-api-key") or next(iter(query.get("key", [])), None)

    def bad_key(self) -> Reply:
        reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        message = "API key not valid. Please pass a valid API key."
        error = {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": [reason]}
        return Reply.of(400, {"error": error})

    def refused(self, fault: Fault, model: str, limit: float) -> Reply:
        return Reply.of(429, *gemini_refusal(fault, model, limit))

    def failed(self, status: int, message: str = "it failed") -> Reply:
        return Reply.of(
            status, {"error": {"code": status, "message": message, "status": STATUSES.get(status, "UNKNOWN")}}
        )

    def counted(self, tokens: int) -> Reply:
        return Reply.of(200, {"totalTokens": tokens})

    def embedded(self, call: Call, vectors: list[list[float]]) -> Reply:
        found = [{"values": values} for values in vectors]
        return Reply.of(200, {"embedding": found[0]} if call.single else {"embeddings": found})

    def generated(self, call: Call, text: str, fault: str, tokens: int) -> Reply:
        output = count_tokens(text)
        usage = {
            "promptTokenCount": tokens,
            "candidatesTokenCount": output,
            "thoughtsTokenCount": 7,
            "cachedContentTokenCount": tokens // 10,
            "totalTokenCount": tokens + output + 7,
        }
        if fault == "safety":
            blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": tokens}}
            return Reply.of(200, blocked)
        ended = "MAX_TOKENS" if fault == "truncated" else "STOP"
        parts = [{"text": text}] if text else []

        def candidate(parts: list[dict[str, str]], **more: Any) -> dict[str, Any]:
            content = {"role": "model", "parts": parts}
            return {"candidates": [{"content": content, "index": 0, **more}], "modelVersion": call.model}

        whole = {**candidate(parts, finishReason=ended), "usageMetadata": usage}
        if call.endpoint == "stream":
            half = len(text) // 2
            last = {**candidate([{"text": text[half:]}], finishReason=ended), "usageMetadata": usage}
            return Reply.events([candidate([{"text": text[:half]}]), last])
        return Reply.of(200, whole)


def _text(contents: list[dict[str, Any]]) -> str:
    found = (part.get("text", "") for content in contents for part in content.get("parts", []))
    return "\n".join(text for text in found if text)


GEMINI = Gemini()
