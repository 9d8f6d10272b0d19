"""Run the worked example of an LLM batch: thousands of emojis, a local model server with quotas, a real small model."""

import _venv

_venv.enter("llm", ".venv-llm")

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

EXAMPLE = _venv.ROOT / "scripts" / "llm_batch"
DEFAULT = _venv.ROOT / ".llm-batch"
# What the server allows, as params.yaml says it too. Of what it answers, a few in a hundred are what a real one does
# on a bad day.
QUOTAS = [["requests", 100, 1], ["tokens", 6_000, 1]]
STORM = {"503": 0.01, "invalid": 0.01, "close": 0.003, "minute=0.5": 0.0005}
COMMAND = (
    "batch run --target handlers:enrich --input emoji.jsonl --output enriched.jsonl --params params.yaml "
    "--secret GEMINI_API_KEY"
)


def main() -> int:
    """Run it and say what came of it."""
    parser = argparse.ArgumentParser(prog="llm_batch.py", description=__doc__)
    parser.add_argument("--records", type=int, metavar="N", help="only the first N emojis")
    parser.add_argument("--kill", action="store_true", help="kill the run with -9 after a third, and give it again")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run did")
    parser.add_argument(
        "--folder", type=Path, default=DEFAULT, metavar="DIR", help="where it works and leaves its files"
    )
    parser.add_argument("--query", default="something hot to drink", metavar="TEXT", help="what to look for at the end")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    if options.fresh and (folder / ".orchestrator").exists():
        shutil.rmtree(folder / ".orchestrator")
    records = prepare(folder, options.records)
    print(f"{records} emojis are in {folder / 'emoji.jsonl'}", flush=True)
    key = secrets.token_urlsafe(24)
    with model_server(key) as url:
        code = run(folder, url, key, kill_after=records // 3 if options.kill else None)
        stats = json.load(urlopen(f"{url}/stats"))
    report(folder, stats)
    if code == 0:
        look_for(options.query, folder)
    return code


def prepare(folder: Path, most: int | None) -> int:
    """Put handler, params and input into the folder; return how many records there are."""
    import emoji

    folder.mkdir(parents=True, exist_ok=True)
    if folder == DEFAULT:  # a folder that git passes over, wherever it is asked
        (folder / ".gitignore").write_text("*\n", "utf-8")
    for path in EXAMPLE.iterdir():
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    complete = emoji.STATUS["fully_qualified"]
    records = [
        {"emoji": character, "name": data["en"].strip(":").partition("_skin_tone")[0].replace("_", " ")}
        for character, data in emoji.EMOJI_DATA.items()
        if data["status"] == complete
    ]
    tones = (" medium-dark", " medium-light", " light", " medium", " dark")
    for record in records:
        for tone in tones:
            record["name"] = record["name"].removesuffix(tone)
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records[:most]]
    (folder / "emoji.jsonl").write_text("".join(lines), "utf-8")
    return len(lines)


@contextmanager
def model_server(key: str) -> Iterator[str]:
    """Run the server beside; yields its address."""
    config = {"key": key, "quotas": QUOTAS, "storm": STORM, "latency": 0.02}
    command = [sys.executable, str(_venv.ROOT / "scripts" / "_llm_server.py"), "--config", json.dumps(config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["url"]


def run(folder: Path, url: str, key: str, kill_after: int | None) -> int:
    """Give the command once, or a second time after the first was killed."""
    environment = {**os.environ, "GEMINI_API_KEY": key, "GOOGLE_GEMINI_BASE_URL": url}
    command = [sys.executable, "-m", "orchestrator", *COMMAND.split()]
    print(f"$ orchestrator {COMMAND}", flush=True)
    if kill_after is not None:
        with subprocess.Popen(command, cwd=folder, env=environment) as process:
            while process.poll() is None and json.load(urlopen(f"{url}/stats"))["answered"] < kill_after:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        print("\nThe run was killed. The same command again:", flush=True)
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def report(folder: Path, stats: dict[str, Any]) -> None:
    """Say what the server counted, beside what the batch did."""
    print("\nWhat the server counted for itself:")
    print(f"  requests {stats['requests']}, answered {stats['answered']}, refused for a quota {stats['refused']}")
    for quota in stats["quotas"]:
        most = f"{quota['peak']:g} of {quota['amount']:g} {quota['metric']}"
        print(f"  at most {most} in any {quota['per']:g} s, never more than {stats['most_open']} requests at once")
    print(f"  tokens told: {stats['prompt_tokens']} of prompts, {stats['output_tokens']} of answers")
    print(f"What the batch says is in {folder / 'metrics.json'}")


def look_for(query: str, folder: Path) -> None:
    """Show which emojis are nearest to a text."""
    import numpy

    sys.path.insert(0, str(folder))
    from handlers import vector_of  # type: ignore[import-not-found]

    lines = (folder / "enriched.jsonl").read_text("utf-8").splitlines()
    records = list({record["name"]: record for record in map(json.loads, lines)}.values())
    nearness = numpy.array([record["vector"] for record in records]) @ numpy.array(vector_of(query))
    found = [records[index] for index in nearness.argsort()[::-1][:8]]
    print(f"\n{query!r} is near " + ", ".join(f"{record['emoji']} {record['name']}" for record in found))


if __name__ == "__main__":
    sys.exit(main())
