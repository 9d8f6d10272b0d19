"""urllib3 looks whether an older way to speak TLS is there, which today's Pythons do not need."""

from __future__ import annotations

excludedimports = ["cryptography", "OpenSSL"]
