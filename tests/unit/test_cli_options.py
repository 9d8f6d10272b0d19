"""Options of the command line: what is understood, and one clear sentence for what is not."""

from pathlib import Path

import pytest

from orchestrator._models import Limit
from orchestrator.cli import main
from orchestrator.cli._options import (
    UsageProblem,
    check_output,
    check_python,
    check_source,
    parse_duration,
    parse_limit,
    parse_limits,
    parse_size,
    target_problem,
)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("api=50/1s:6", Limit("api", rate=50, per=1, concurrency=6)),
        ("api=50/s", Limit("api", rate=50, per=1)),
        ("api=0.5/500ms", Limit("api", rate=0.5, per=0.5)),
        ("api=100/1.5m", Limit("api", rate=100, per=90)),
        ("api=3600/1h", Limit("api", rate=3600, per=3600)),
        ("api=60/60", Limit("api", rate=60, per=60)),
        ("db=:6", Limit("db", concurrency=6)),
    ],
)
def test_limit_grammar(text: str, limit: Limit) -> None:
    assert parse_limit(text) == limit


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("api", "is not a limit"),
        ("=5/1s", "is not a limit"),
        ("api=", "is not a limit"),
        ("api=:", "is not a limit"),
        ("api=5/1s:", "is not a limit"),
        ("api=50", "add one, such as api=50/1s"),
        ("api=0/1s", "greater than zero"),
        ("api=-5/1s", "greater than zero"),
        ("api=nan/1s", "greater than zero"),
        ("api=five/1s", "greater than zero"),
        ("api=5/", "is not a duration"),
        ("api=5/1w", "is not a duration"),
        ("api=5/0s", "greater than zero"),
        ("api=5/1s:0", "at least 1"),
        ("api=:-1", "at least 1"),
        ("api=:1.5", "at least 1"),
    ],
)
def test_wrong_limit_names_the_option_and_the_remedy(text: str, said: str) -> None:
    with pytest.raises(UsageProblem, match=r"^--limit") as caught:
        parse_limit(text)
    assert said in str(caught.value)


def test_a_limit_given_twice_is_refused() -> None:
    with pytest.raises(UsageProblem, match="given twice"):
        parse_limits(["api=5/1s", "api=:6"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("1.5", 1.5), (".5s", 0.5), ("500ms", 0.5), ("2m", 120), ("1h", 3600), ("s", 1)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--timeout") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", " ", "0", "-1", "1d", "one", "nan", "inf", "1e3", "5 seconds"])
def test_wrong_durations_name_the_option(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"^--timeout: "):
        parse_duration(text, "--timeout")


@pytest.mark.parametrize("target", ["json:dumps", "a.b_c.d1:f", "a.b:Class.method", "módulo:función"])
def test_targets(target: str) -> None:
    assert target_problem(target) is None


@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        ("json.dumps", '"json:dumps"'),
        ("jobs/pages.py:fetch", '"jobs.pages:fetch"'),
        ("pages.py:fetch", '"pages:fetch"'),
        ("./pages.py:fetch", '"pages:fetch"'),
        ("fetch", '"package.module:function"'),
        ("a:b:c", '"package.module:function"'),
        ("a-b:c", '"package.module:function"'),
        (":f", '"package.module:function"'),
        ("a:", '"package.module:function"'),
        ("a:<lambda>", '"package.module:function"'),
    ],
)
def test_wrong_target_suggests_the_right_one(target: str, remedy: str) -> None:
    problem = target_problem(target)
    assert problem is not None
    assert remedy in problem


def test_format_follows_the_name_of_the_file(tmp_path: Path) -> None:
    rows = tmp_path / "ROWS.CSV"
    rows.touch()
    assert check_source(str(rows), None, "a:b") == (rows, "csv")
    assert check_source(str(rows), "jsonl", None) == (rows, "jsonl")
    assert check_source("-", None, None) == (None, "jsonl")
    assert check_source("-", "csv", "a:b") == (None, "csv")


@pytest.mark.parametrize(
    ("file", "format", "said"),
    [
        ("missing.jsonl", None, "FILE: .* does not exist"),
        (".", None, "FILE: .* is a folder"),
        ("rows.csv", None, "--target: rows of CSV need it"),
        ("-", "xml", "--format: 'xml' is not known; use jsonl or csv"),
    ],
)
def test_wrong_input(file: str, format: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").touch()
    with pytest.raises(UsageProblem, match=said):
        check_source(file, format, None)


def test_output_never_destroys_the_input_or_earlier_outcomes(tmp_path: Path) -> None:
    source, output, empty = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "empty.jsonl"))
    source.write_text("1\n")
    output.write_text("{}\n")
    empty.touch()
    check_output(None, source, append=False, overwrite=False)
    check_output(empty, source, append=False, overwrite=False)
    check_output(output, source, append=True, overwrite=False)
    check_output(output, source, append=False, overwrite=True)
    with pytest.raises(UsageProblem, match="keep what it has with --append, or replace it with --overwrite"):
        check_output(output, source, append=False, overwrite=False)
    with pytest.raises(UsageProblem, match="is the input file"):
        check_output(source, source, append=True, overwrite=False)
    with pytest.raises(UsageProblem, match="does not exist; make it first"):
        check_output(tmp_path / "no" / "out.jsonl", source, append=False, overwrite=False)
    with pytest.raises(UsageProblem, match="is a folder"):
        check_output(tmp_path, source, append=False, overwrite=False)
    with pytest.raises(UsageProblem, match="contradict"):
        check_output(output, source, append=True, overwrite=True)
    with pytest.raises(UsageProblem, match="add --output FILE"):
        check_output(None, source, append=True, overwrite=False)


def test_python_must_be_a_program(tmp_path: Path) -> None:
    assert check_python(None) is None
    with pytest.raises(UsageProblem, match=r"^--python: .* is not a program"):
        check_python(str(tmp_path / "python"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "-", "--workers", "-3"], "--workers: must be a whole number of at least 1, not -3."),
        (["run", "-", "--workers", "many"], "--workers"),
        (["run", "-", "--concurrency", "0"], "--concurrency: must be a whole number of at least 1, not 0."),
        (["run", "-", "--retries", "-1"], "--retries: must be a whole number of at least 0, not -1."),
        (["run", "-", "--max-failures", "0"], "--max-failures: must be a whole number of at least 1, not 0."),
        (["run", "-", "--progress", "fast"], "--progress: 'fast' is not known; use auto, bar, log or none."),
        (["run", "-", "--log-level", "loud"], "--log-level: 'loud' is not known"),
        (["run", "-", "--timeout", "soon"], "--timeout: 'soon' is not a duration"),
        (["run", "-", "--target", "json.dumps"], "--target: 'json.dumps' is not a target; a colon parts"),
        (["run", "-", "--cwd", "nowhere"], "--cwd: 'nowhere' is not a folder; name an existing one."),
        (["run", "-", "--workrs", "3"], "No such option: --workrs (Possible options: --workers)"),
        (["run", "a", "b"], "unexpected extra argument"),
        (["doctor", "--workers", "0"], "--workers: must be a whole number of at least 1, not 0."),
        (["rum"], "No such command 'rum'"),
    ],
)
def test_user_errors_are_one_line_and_exit_2(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert said in err
    assert err.count("\n") == 1


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out.startswith("orchestrator ")


def test_nothing_prints_the_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "doctor" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("2G", 2**31), ("500m", 500 * 2**20), ("1.5GiB", 3 * 2**29), ("64 KB", 2**16), ("1T", 2**40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--memory-limit") == size


@pytest.mark.parametrize("text", ["", "0", "-1G", "G", "2X", "1e9", "0.0001", "nan"])
def test_wrong_sizes_name_the_option_and_the_remedy(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"^--max-rss: .* such as 500M or 2G"):
        parse_size(text, "--max-rss")
