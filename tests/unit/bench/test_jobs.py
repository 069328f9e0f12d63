"""Short runs share a job; a job waits for those it builds on."""

import pytest
from support.study import plan

from edc.bench.cost import Estimate
from edc.bench.jobs import PER_RUN, batched
from edc.errors import EdcError
from edc.pipeline.snakemake import flag, read_jobs, write_jobs
from edc.pipeline.status import runs

MINUTES = 4 * PER_RUN / 60


@pytest.mark.parametrize("minutes", [1e-9, MINUTES, 1e9])
def test_every_run_is_in_one_job_that_waits_for_what_it_builds_on(minutes):
    whole = plan()
    jobs = batched(whole, runs(whole), minutes)
    assert [(stage, key) for (stage, _), job in jobs.items() for key in job.runs] == runs(whole)
    home = {(stage, key): name for name in jobs for stage in [name[0]] for key in jobs[name].runs}
    for (stage, first), job in jobs.items():
        upstream = {flag(home[up]) for key in job.runs for up in whole.upstream(stage, key)}
        assert first == job.runs[0]
        assert set(job.after) == upstream
    assert len(jobs) == {1e-9: len(runs(whole)), 1e9: 8}.get(minutes, len(jobs))


def test_more_arithmetic_takes_jobs_of_their_own_and_more_time():
    whole = plan()
    fast, slow = (batched(whole, runs(whole), MINUTES, rate) for rate in (1e3, 1e-4))
    assert len(fast) < len(slow)
    name, job = next((name, job) for name, job in slow.items() if name[0] == "evaluate")
    cost = Estimate(whole).evaluate(whole.evaluate[name[1]])
    assert job.minutes > 60 * cost.hours(1e-4)
    assert job.runs == [name[1]]


def test_jobs_are_read_as_they_were_written(tmp_path, monkeypatch):
    jobs = batched(plan(), runs(plan()), 1)
    monkeypatch.chdir(tmp_path)
    write_jobs(jobs)
    assert read_jobs() == jobs


@pytest.mark.parametrize(("minutes", "rate"), [(0, None), (-1, None), (float("nan"), None), ("x", None), (1, 0)])
def test_numbers_that_are_not_above_zero_are_refused(minutes, rate):
    with pytest.raises(EdcError, match="expected a number above 0"):
        batched(plan(), [], minutes, rate)
