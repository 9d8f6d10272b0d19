"""The line, the rate and the time left that progress shows."""

import pytest

from orchestrator._progress import ProgressMeter, ProgressSnapshot


def counted(meter: ProgressMeter, successful: int, failed: int = 0) -> None:
    for _ in range(successful):
        meter.count(True)
    for _ in range(failed):
        meter.count(False)


def snapshot(**changes: object) -> ProgressSnapshot:
    values = {"total": 320, "successful": 35, "failed": 5, "rate": 8.2, "elapsed": 5.0, "remaining": None, **changes}
    return ProgressSnapshot(**values)  # type: ignore[arg-type]


def test_line_is_the_literal_one() -> None:
    assert snapshot().line() == "Progress: 40/320 (12.5%) - 35 successful, 5 failed (rate: 8.2 tasks/sec)"


def test_line_without_a_total() -> None:
    assert snapshot(total=None).line() == "Progress: 40 - 35 successful, 5 failed (rate: 8.2 tasks/sec)"


@pytest.mark.parametrize(
    ("total", "successful", "start"),
    [(0, 0, "Progress: 0/0 (100.0%)"), (3, 3, "Progress: 3/3 (100.0%)"), (3, 4, "Progress: 4/3 (100.0%)")],
)
def test_share_never_passes_100_percent(total: int, successful: int, start: str) -> None:
    assert snapshot(total=total, successful=successful, failed=0).line().startswith(start)


def test_rate_at_the_very_start_is_zero() -> None:
    now = ProgressMeter(100.0, total=10).snapshot(100.0)
    assert (now.rate, now.remaining, now.elapsed) == (0.0, None, 0.0)


def test_rate_is_the_recent_one() -> None:
    meter = ProgressMeter(0.0, total=1_000)
    counted(meter, 300)
    for second in range(1, 101):
        meter.snapshot(float(second))
    counted(meter, 60)
    now = meter.snapshot(130.0)
    assert now.rate == pytest.approx(2.0)
    assert now.remaining == pytest.approx(640 / 2.0)


def test_rate_falls_back_to_the_overall_one_when_nothing_finished_lately() -> None:
    meter = ProgressMeter(0.0, total=400)
    counted(meter, 200)
    for second in range(1, 101):
        meter.snapshot(float(second))
    now = meter.snapshot(200.0)
    assert now.rate == pytest.approx(1.0)
    assert now.remaining == pytest.approx(200.0)


def test_final_rate_is_the_overall_one() -> None:
    meter = ProgressMeter(0.0)
    for second in range(1, 101):
        meter.snapshot(float(second))
    counted(meter, 90, failed=10)
    now = meter.snapshot(100.0, final=True)
    assert (now.rate, now.successful, now.failed, now.done) == (1.0, 90, 10, 100)


def test_nothing_left_takes_no_time() -> None:
    assert ProgressMeter(0.0, total=0).snapshot(5.0).remaining == 0.0


def test_samples_do_not_grow_with_the_run() -> None:
    meter = ProgressMeter(0.0)
    for tenth in range(100_000):
        meter.count(True)
        meter.snapshot(tenth / 10)
    assert len(meter._samples) < 100
