"""What goes wrong at the local model server when a prompt asks for it: `[[NAME=SECONDS*TIMES]]` within its text."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

# A refusal of 429 by what it says; each is told in Google's and in OpenAI's words.
QUOTA_FAULTS = ("minute", "day", "contradictory", "spend", "shared", "suffix", "header", "mute")
STATUS_FAULTS = {"400": 400, "403": 403, "404": 404, "408": 408, "500": 500, "503": 503}
# slow: answers after so many seconds. close: no reply at all. cut: the connection ends within the reply.
# garbage: 200 with what is no JSON. truncated: MAX_TOKENS. invalid: violates the schema. safety, empty: no text.
# echo: a refusal that repeats the caller's key, as some gateways do.
OTHER_FAULTS = ("slow", "close", "cut", "garbage", "truncated", "invalid", "safety", "empty", "echo")

MARKER = re.compile(r"\[\[([a-z]+|\d{3})(?:=(\d+(?:\.\d+)?))?(?:\*(\d+))?\]\]")
GOOGLE = "type.googleapis.com/google.rpc."


@dataclass(frozen=True)
class Fault:
    """One thing to do wrong."""

    name: str
    seconds: float | None = None


def marked(prompt: str, number: int) -> Fault | None:
    """Return the fault that a prompt asks for when it comes for the `number`th time, counted from 1.

    Several markers follow each other: `[[500*2]][[slow=1*1]]` is two errors, then a slow answer, then good ones.
    """
    for name, seconds, times in MARKER.findall(prompt):
        if name not in (*QUOTA_FAULTS, *STATUS_FAULTS, *OTHER_FAULTS):
            continue
        if not times or number <= int(times):
            return Fault(name, float(seconds) if seconds else None)
        number -= int(times)
    return None


def stormy(storm: dict[str, float], prompt: str, number: int, seed: int) -> Fault | None:
    """Return a fault by chance: `storm` gives each fault's share of the requests; the same every time, by the seed."""
    chance = random.Random(f"{seed}:{number}:{prompt}").random()
    for spec, share in storm.items():
        chance -= share
        if chance < 0:
            name, _, seconds = spec.partition("=")
            return Fault(name, float(seconds) if seconds else None)
    return None


def gemini_refusal(fault: Fault, model: str, limit: float = 15) -> tuple[dict[str, Any], dict[str, str]]:
    """Return body and headers of a 429 in the words of the Gemini API."""
    delay = fault.seconds
    details: list[dict[str, Any]] = [{"@type": f"{GOOGLE}Help", "links": []}]
    message = "You exceeded your current quota, please check your plan and billing details."
    headers: dict[str, str] = {}
    if fault.name in ("minute", "day", "contradictory", "spend", "header"):
        period = "Day" if fault.name in ("day", "contradictory") else "Minute"
        violation = {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": f"GenerateRequestsPer{period}PerProjectPerModel-FreeTier",
            "quotaDimensions": {"location": "global", "model": model},
            "quotaValue": "0" if fault.name == "spend" else f"{limit:g}",
        }
        details.append({"@type": f"{GOOGLE}QuotaFailure", "violations": [violation]})
    if fault.name in ("minute", "contradictory", "spend") or (fault.name == "day" and delay is not None):
        told = {"minute": 1.0, "contradictory": 1.0, "spend": 53.0, "day": 0.0}[fault.name] if delay is None else delay
        details.append({"@type": f"{GOOGLE}RetryInfo", "retryDelay": f"{told:g}s"})
    if fault.name == "suffix":
        message += f"\nPlease retry in {1.0 if delay is None else delay:g}s."
    if fault.name == "header":
        headers["Retry-After"] = f"{1 if delay is None else delay:g}"
    if fault.name == "shared":
        message = "Resource has been exhausted (e.g. check quota)."
    error: dict[str, Any] = {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED"}
    if fault.name not in ("shared", "suffix", "mute"):
        error["details"] = details
    return {"error": error}, headers


def openai_refusal(fault: Fault, model: str, limit: float = 15) -> tuple[dict[str, Any], dict[str, str]]:
    """Return body and headers of a 429 in the words of OpenAI's API."""
    delay = 1.0 if fault.seconds is None else fault.seconds
    code, kind, headers = "rate_limit_exceeded", "requests", {}
    suffix = f" Please try again in {delay:g}s."
    if fault.name == "spend":
        code = kind = "insufficient_quota"
        message = "You exceeded your current quota, please check your plan and billing details."
    elif fault.name in ("shared", "mute"):
        code, message = "", "That model is currently overloaded with other requests."
    elif fault.name == "day" and fault.seconds is None:
        message = f"Rate limit reached for {model} on requests per day (RPD): Limit {limit:g}."
    else:
        unit = "day (RPD)" if fault.name in ("day", "contradictory") else "min (RPM)"
        message = f"Rate limit reached for {model} on requests per {unit}: Limit {limit:g}, Used {limit:g}.{suffix}"
        if fault.name != "suffix":
            headers = {"Retry-After": f"{delay:g}"}
        if fault.name == "header":
            message = "Too many requests"
    return {"error": {"message": message, "type": kind, "param": None, "code": code or None}}, headers
