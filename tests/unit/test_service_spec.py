"""What a service may be: every wrong option is refused by its name, before anything starts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import HttpProbe, RetryPolicy, Service, TcpProbe
from orchestrator.exceptions import ConfigurationError

WRONG: list[tuple[str, dict[str, Any]]] = [
    *(("service.name", {"name": value}) for value in ("", "a b", "a/b", ".hidden", "x" * 65, None, 3)),
    ("service 'ui'", {"target": None}),
    ("service 'ui'", {"script": "page.py"}),
    ("service 'ui': target", {"target": 3}),
    ("service 'ui': kwargs", {"target": None, "argv": ["true"], "kwargs": {"a": 1}}),
    ("service 'ui': args", {"target": None, "argv": ["true"], "args": ["x"]}),
    ("service 'ui': args", {"args": "one string"}),
    ("service 'ui': argv", {"target": None, "argv": "one string"}),
    ("service 'ui': argv", {"target": None, "argv": []}),
    ("service 'ui': argv[1]", {"target": None, "argv": ["true", 3]}),
    ("service 'ui': args[0]", {"target": None, "script": "page.py", "args": [3]}),
    *(("service 'ui': port", {"port": value}) for value in (0, -1, 65536, "8501", True, 1.0, "")),
    *(("service 'ui': host", {"host": value}) for value in ("", "a b", None)),
    *(("service 'ui': ready", {"ready": value}) for value in ("soon", 3, TcpProbe)),
    ("service 'ui': ready", {"ready": TcpProbe(), "port": None}),
    ("service 'ui': ready", {"target": None, "argv": ["true"], "ready": "message"}),
    *(("service 'ui': health", {"health": value}) for value in ("message", 3)),
    ("service 'ui': health", {"health": HttpProbe(), "port": None}),
    *(("service 'ui': start_timeout", {"start_timeout": value}) for value in (0, -1, "1", None)),
    *(("service 'ui': stop", {"stop": value}) for value in (-1, "1")),
    ("service 'ui': restart", {"restart": RetryPolicy()}),
    *(("service 'ui': max_rss", {"max_rss": value}) for value in (0, 1024, 1.5e9, "1G")),
    ("service 'ui': depends_on", {"depends_on": "db"}),
    ("service 'ui': depends_on", {"depends_on": ["ui"]}),
    ("service 'ui': depends_on", {"depends_on": [3]}),
    *(("service 'ui': env", {"env": value}) for value in ("A=1", {"": "1"}, {"A=": "1"})),
    ("service 'ui': env['A']", {"env": {"A": 1}}),
    ("service 'ui': cwd", {"cwd": "/no/such/folder"}),
]
PROBES: list[tuple[str, type, dict[str, Any]]] = [
    *(("probe.path", HttpProbe, {"path": value}) for value in ("health", "", "/a\nb", None)),
    *(("probe.status", HttpProbe, {"status": value}) for value in ((), "200", 7, ("200",))),
    *(("probe.timeout", kind, {"timeout": value}) for kind in (HttpProbe, TcpProbe) for value in (0, -1, "1")),
    *(("probe.every", kind, {"every": value}) for kind in (HttpProbe, TcpProbe) for value in (0, None)),
    *(("probe.failures", kind, {"failures": value}) for kind in (HttpProbe, TcpProbe) for value in (0, 1.5)),
]


@pytest.mark.parametrize(("field", "options"), WRONG, ids=lambda value: str(value)[:60])
def test_wrong_options_name_their_field(field: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        Service(**{"name": "ui", "target": "package.module:serve", **options})
    assert wrong.value.field == field


@pytest.mark.parametrize(("field", "kind", "options"), PROBES, ids=lambda value: str(value)[:60])
def test_wrong_probes_name_their_field(field: str, kind: type, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        kind(**options)
    assert wrong.value.field == field


def test_values_are_kept_as_they_were() -> None:
    args, env = ["a"], {"A": "1"}
    service = Service(
        "ui", script=Path("page.py"), args=args, env=env, depends_on=[Service("db", target="a:b"), "api", "db"],
        start_timeout=timedelta(minutes=1), stop=0,
    )  # fmt: skip
    args.append("b")
    env["B"] = "2"
    assert (service.script, service.args, service.env) == ("page.py", ("a",), {"A": "1"})
    assert service.depends_on == ("db", "api") and (service.start_timeout, service.stop) == (60.0, 0.0)


def test_who_is_asked_for_readiness() -> None:
    assert Service("a", target="a:b").probe == TcpProbe()
    assert Service("a", target="a:b", ready=HttpProbe("/x")).probe == HttpProbe("/x")
    assert Service("a", target="a:b", ready="message").probe is None
    assert Service("a", target="a:b", port=None).probe is None
    assert HttpProbe(status=204).status == (204,)
