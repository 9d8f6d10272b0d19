"""Jobs that tell a secret in every way that a job can tell anything; its value is in `SECRETIVE_KEY`."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import logging
import os
import subprocess
import sys
import urllib.parse
import warnings
from typing import NoReturn

from orchestrator import child

NAME = "SECRETIVE_KEY"


def key() -> str:
    return os.environ[NAME]


def digest() -> str:
    return hashlib.sha256(key().encode()).hexdigest()


def forms() -> list[str]:
    value = key()
    yields = [value, json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value), repr({"k": value})]
    yields += [json.dumps(json.dumps({"k": value})), ascii(value), repr(value.encode()), str([value.encode()])]
    return [*yields, urllib.parse.quote(value), urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value)]


class Rejected(Exception):
    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


def _rejected() -> Rejected:
    error = Rejected(f"key {key()} was rejected: {forms()}", key())
    error.add_note(f"it was {key()!r}")
    return error


def tell() -> None:
    """Print, log, warn, report: from here, from C code's place, and from another process."""
    logging.basicConfig(level=logging.INFO)
    for form in forms():
        print("out", form)
        print("err", form, file=sys.stderr)
        logging.getLogger("client").warning("logged %s", form)
        child.log(f"said {form}", nested={"list": [form], form: 1}, plain=form)
        child.progress(1, text=f"at {form}")
        os.write(2, f"raw {form}\n".encode())
    warnings.warn(f"warned {key()}", stacklevel=1)
    print("x" * 20_000 + key())
    print("y" * 16_380 + key() + "z" * 10)
    value = key().encode()
    for piece in (b"in pieces ", value[:3], value[3:9], value[9:], b"\n"):
        os.write(2, piece)
    sys.stdout.write(key()[:5])
    sys.stdout.write(f"{key()[5:]}\n")
    os.write(2, b"l" * (16 * 1024 - 10) + value + b" behind\n")
    program = f"import os; os.write(2, b'grandchild ' + os.environ['{NAME}'].encode() + b'\\n')"
    subprocess.run([sys.executable, "-c", program], check=True)
    try:
        raise _rejected()
    except Rejected:
        logging.getLogger("client").exception("with a traceback")


def fail() -> NoReturn:
    try:
        raise _rejected()
    except Rejected as error:
        raise ValueError(f"cannot go on with {key()}" + "." * 40_000 + key()) from error


def return_it() -> object:
    """Return what cannot travel, and says so with its repr."""
    return {key(): float("nan")}


async def fail_async() -> NoReturn:
    child.progress(1, text=key())
    raise _rejected()


def crash() -> NoReturn:
    print(f"dying with {key()}", file=sys.stderr)
    os.write(2, f"dying with {json.dumps(key())} and no line end".encode())
    faulthandler._sigsegv()
    raise AssertionError


def look() -> list[str]:
    """Return what others see of this process."""
    found = []
    for name in ("cmdline", "environ"):
        with open(f"/proc/self/{name}", encoding="utf-8", errors="replace") as file:
            found.append(file.read())
    return found


def preload_fails() -> NoReturn:
    raise ImportError(f"no module for {key()}")
