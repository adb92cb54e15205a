"""The rules of a worker: each is a play of its own, in which the worker is started, and watched."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from atomo_gql.conformance.rules import Broken, RuleBook, must, shown
from atomo_gql.conformance.stage import QUEUE, TOKEN, Call, Stage, StageJob, problem

WORKER: RuleBook["Troupe"] = RuleBook("W")
CONCURRENCY = 5
VISIBILITY_SECONDS = 3
DRAIN_SECONDS = 1
START_SECONDS = 30  # an interpreter may take its time


@dataclass(frozen=True, slots=True)
class Troupe:
    """The worker's command, run once in each play."""

    command: Sequence[str]

    @contextlib.asynccontextmanager
    async def play(self) -> AsyncIterator["Play"]:
        """A stage, and the worker on it once it has asked for the first time."""
        async with Stage().playing() as stage:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                env={
                    **os.environ,
                    "ATOMO_URL": stage.url,
                    "ATOMO_WORKER_TOKEN": TOKEN,
                    "ATOMO_QUEUES": QUEUE,
                    "ATOMO_CONCURRENCY": str(CONCURRENCY),
                    "ATOMO_VISIBILITY_SECS": str(VISIBILITY_SECONDS),
                    "ATOMO_DRAIN_SECS": str(DRAIN_SECONDS),
                },
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            play = Play(stage, process)
            try:
                if not await stage.until(lambda: stage.calls or process.returncode is not None, START_SECONDS):
                    must(False, f"the worker asked for nothing within {START_SECONDS} s")
                if process.returncode is not None:
                    status, words = process.returncode, await play.last_words()
                    raise Broken(f"the worker ended at once, with status {status}, saying {words}")
                yield play
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.communicate()


@dataclass(frozen=True, slots=True)
class Play:
    """A worker on a stage."""

    stage: Stage
    process: asyncio.subprocess.Process

    async def last_words(self) -> str:
        """What it wrote to standard error, where it has ended."""
        _, err = await self.process.communicate()
        return shown(err.decode(errors="replace")[-500:], 500)

    async def all_are(self, jobs: Sequence[StageJob], state: str, seconds: float = 20) -> None:
        """Wait until the jobs are in that state."""
        came = await self.stage.until(lambda: all(job.state == state for job in jobs), seconds)
        states = sorted({job.state for job in jobs})
        must(came, f"after {seconds:g} s the jobs are {', '.join(states)}, not {state}")


@WORKER.rule("Every call has the token in its header and JSON as its media type, and nothing secret in its URL")
async def _headers(troupe: Troupe) -> None:
    async with troupe.play() as play:
        await play.all_are(play.stage.put("echo", count=3), "succeeded")
        for call in play.stage.calls:
            must(call.headers.get("x-worker-token") == TOKEN, f"{call.path} came without the token")
            media_type = call.headers.get("content-type", "")
            must(media_type.partition(";")[0] == "application/json", f"{call.path} came as {media_type!r}")
            must(TOKEN not in call.path + call.query, f"the token is in the URL {call.path}?…")


@WORKER.rule("What a handler returns is reported under its lease, once")
async def _results(troupe: Troupe) -> None:
    async with troupe.play() as play:
        payloads: list[Any] = [None, 0, False, "é😀", [], {"n": {"m": [1.5]}}, "x" * 10_000, {"a": None}]
        jobs = [job for payload in payloads for job in play.stage.put("echo", payload)]
        await play.all_are(jobs, "succeeded")
        for job in jobs:
            [said, *others] = job.ending()
            result = said.fields.get("result")
            must(not others, f"a job was ended {len(others) + 1} times")
            must(result == job.payload, f"the result of {shown(job.payload)} is {shown(result)}")


@WORKER.rule("What a handler raises is a retryable failure with its message, unless it says that it is final")
async def _failures(troupe: Troupe) -> None:
    async with troupe.play() as play:
        [fails] = play.stage.put("fail", {"message": "the provider is down"})
        [fatal] = play.stage.put("fatal", {"message": "there is no such thing"})
        await play.all_are([fails, fatal], "failed")
        for job, retryable in ((fails, True), (fatal, False)):
            fields = job.ending()[0].fields
            must(job.payload["message"] in (fields.get("error") or ""), f"the error is {shown(fields.get('error'))}")
            said = fields.get("retryable", True)
            must(said is retryable, f"{job.kind} was reported with retryable {said!r}")


@WORKER.rule("A job without a handler is dead at once")
async def _unknown(troupe: Troupe) -> None:
    async with troupe.play() as play:
        [job] = play.stage.put("of-which-nobody-has-heard")
        await play.all_are([job], "failed")
        must(job.ending()[0].fields.get("retryable") is False, "it was reported as retryable")


@WORKER.rule("A worker asks for no more jobs than it has room for")
async def _room(troupe: Troupe) -> None:
    async with troupe.play() as play:
        jobs = play.stage.put("sleep", {"seconds": 0.3}, count=20)
        most = 0

        def ended() -> bool:
            nonlocal most
            most = max(most, sum(job.state == "leased" for job in jobs))
            return all(job.state == "succeeded" for job in jobs)

        must(await play.stage.until(ended), "the jobs were not done within 20 s")
        asked = max(call.body.get("capacity", 1) for call in play.stage.calls if call.is_lease)
        must(asked <= CONCURRENCY, f"with a concurrency of {CONCURRENCY} it asked for {asked} jobs at once")
        must(most <= 2 * CONCURRENCY, f"with a concurrency of {CONCURRENCY} it held {most} jobs")


@WORKER.rule("A lease never runs out while its handler runs")
async def _heartbeat(troupe: Troupe) -> None:
    async with troupe.play() as play:
        jobs = play.stage.put("sleep", {"seconds": 2.5 * VISIBILITY_SECONDS}, count=2)
        await play.all_are(jobs, "succeeded", 4 * VISIBILITY_SECONDS)
        for job in jobs:
            must(not job.has_expired, f"{VISIBILITY_SECONDS} s passed without a heartbeat")


@WORKER.rule("After a 409 it stops the work, and says no more about it")
async def _lost(troupe: Troupe) -> None:
    async with troupe.play() as play:
        [job] = play.stage.put("sleep", {"seconds": 4})
        must(await play.stage.until(lambda: job.state == "leased"), "the job was not leased")
        job.state = "lost"
        must(await play.stage.until(lambda: job.said, 2 * VISIBILITY_SECONDS), "no heartbeat came")
        await asyncio.sleep(4)
        must(not job.ending(), f"after the 409 came a {job.said[-1].type}")
        must(len(job.said) <= 2, f"after the 409 came {len(job.said) - 1} others")
        await play.all_are(play.stage.put("echo"), "succeeded")


@WORKER.rule("A lease whose answer was lost is asked for again under the same requestId")
async def _lost_lease(troupe: Troupe) -> None:
    async with troupe.play() as play:
        lost: list[Call] = []

        def loses(call: Call) -> bool:
            if call.given and not lost:
                lost.append(call)
                return True
            return False

        play.stage.loses = loses
        jobs = play.stage.put("echo", count=3)
        await play.all_are(jobs, "succeeded")
        must(all(job.attempts == 1 for job in jobs), "an attempt was lost with the answer")
        ids = [call.body.get("requestId") for call in play.stage.calls if call.is_lease]
        must(all(ids), "a lease came without a requestId")


@WORKER.rule("A report is repeated until it is answered")
async def _repeated(troupe: Troupe) -> None:
    async with troupe.play() as play:
        refused: list[Call] = []

        def trouble(call: Call) -> web.Response | None:
            if any(report["type"] in ("complete", "fail") for report in call.reports()) and len(refused) < 3:
                refused.append(call)
                return problem(503, "UNAVAILABLE")
            return None

        play.stage.trouble = trouble
        jobs = [*play.stage.put("echo", "kept"), *play.stage.put("fail", {"message": "kept"})]
        came = await play.stage.until(lambda: all(job.state in ("succeeded", "failed") for job in jobs), 30)
        must(came and refused, "the reports were not repeated within 30 s")
        must(jobs[0].ending()[0].fields.get("result") == "kept", "the result was lost")


@WORKER.rule("A report that is repeated because its answer was lost, and is then 409, has arrived")
async def _arrived(troupe: Troupe) -> None:
    async with troupe.play() as play:
        lost: list[Call] = []

        def loses(call: Call) -> bool:
            if not lost and any(report["type"] == "complete" for report in call.reports()):
                lost.append(call)
                return True
            return False

        play.stage.loses = loses
        [job] = play.stage.put("echo", 7)
        must(await play.stage.until(lambda: len(job.ending()) > 1, 20), "the report was not repeated within 20 s")
        await play.all_are(play.stage.put("echo", 8), "succeeded")
        types = [said.type for said in job.ending()]
        must(set(types) == {"complete"}, f"after its complete the job was reported as {', '.join(types[1:])}")
        must(len(types) <= 3, f"it was completed {len(types)} times")


@WORKER.rule("A result that the server does not take costs its own job, and nothing else")
async def _unacceptable(troupe: Troupe) -> None:
    async with troupe.play() as play:

        def trouble(call: Call) -> web.Response | None:
            said = [report for report in call.reports() if report["type"] == "complete"]
            is_too_large = any(report.get("result") == "too large" for report in said)
            return problem(413, "PAYLOAD_TOO_LARGE") if is_too_large else None

        play.stage.trouble = trouble
        [large] = play.stage.put("echo", "too large")
        others = play.stage.put("echo", "small", count=3 * CONCURRENCY)
        await play.all_are(others, "succeeded")
        await play.all_are([large], "failed")
        fields = large.ending()[0].fields
        must(fields.get("retryable") is False, "it was reported as retryable: the next result would be as large")
        must(all(job.attempts == 1 for job in [large, *others]), "an attempt was lost")


@WORKER.rule("While the server says 'not now' it backs off, and goes on by itself")
async def _backs_off(troupe: Troupe) -> None:
    async with troupe.play() as play:
        await play.all_are(play.stage.put("echo"), "succeeded")
        play.stage.trouble = lambda call: problem(503, "UNAVAILABLE")
        play.stage.end_polls()
        began, before = time.monotonic(), len(play.stage.calls)
        jobs = play.stage.put("echo", count=3)
        await asyncio.sleep(5)
        calls = len(play.stage.calls) - before
        play.stage.trouble = lambda call: None
        must(calls <= 150, f"it made {calls} calls in {time.monotonic() - began:.0f} s of 503")
        await play.all_are(jobs, "succeeded", 30)


@WORKER.rule("Retry-After is obeyed")
async def _retry_after(troupe: Troupe) -> None:
    async with troupe.play() as play:
        refused: list[Call] = []

        def trouble(call: Call) -> web.Response | None:
            if call.is_lease and not refused:
                refused.append(call)
                return problem(503, "UNAVAILABLE", retry_after=3)
            return None

        play.stage.trouble = trouble
        play.stage.end_polls()

        def later() -> list[Call]:
            return [call for call in play.stage.calls if refused and call.is_lease and call.at > refused[0].at]

        must(await play.stage.until(later, 30), "it did not ask again within 30 s")
        waited = later()[0].at - refused[0].at
        must(waited >= 2.8, f"told to come back in 3 s, it came after {waited:.1f} s")


@WORKER.rule("Empty answers that come at once are not asked for in a hot loop")
async def _idle(troupe: Troupe) -> None:
    async with troupe.play() as play:
        play.stage.waits = False
        play.stage.end_polls()
        before = len(play.stage.calls)
        await asyncio.sleep(4)
        must((calls := len(play.stage.calls) - before) <= 40, f"it made {calls} calls in 4 s, with nothing to do")
        await play.all_are(play.stage.put("echo"), "succeeded")


@WORKER.rule("A token that is refused stops it")
async def _refused(troupe: Troupe) -> None:
    async with troupe.play() as play:
        play.stage.trouble = lambda call: problem(401, "UNAUTHENTICATED")
        before = len(play.stage.calls)
        play.stage.end_polls()
        must(await play.stage.until(lambda: len(play.stage.calls) > before, 30), "it did not ask again within 30 s")
        await asyncio.sleep(1)
        calls = len(play.stage.calls)
        await asyncio.sleep(3)
        must(len(play.stage.calls) == calls, "it goes on asking with a token that is refused")


@WORKER.rule("A server that is restarted finds it back at work, and loses no result")
async def _restart(troupe: Troupe) -> None:
    async with troupe.play() as play:
        jobs = play.stage.put("sleep", {"seconds": 1}, count=3)
        must(await play.stage.until(lambda: all(job.state == "leased" for job in jobs)), "the jobs were not leased")
        await play.stage.close()
        await asyncio.sleep(3)
        await play.stage.open()
        await play.all_are(jobs, "succeeded", 40)
        await play.all_are(play.stage.put("echo"), "succeeded", 40)
        must(all(job.attempts == 1 for job in jobs), "an attempt was lost with the restart")


@WORKER.rule("A job's timeout ends its handler, and is a retryable failure")
async def _timeout(troupe: Troupe) -> None:
    async with troupe.play() as play:
        [job] = play.stage.put("sleep", {"seconds": 60}, timeout_secs=1)
        await play.all_are([job], "failed", 30)
        must(job.ending()[0].fields.get("retryable", True) is True, "it was reported as not retryable")


@WORKER.rule("On SIGTERM it takes no more, releases what does not finish in time, and exits with 0")
async def _stop(troupe: Troupe) -> None:
    async with troupe.play() as play:
        jobs = play.stage.put("sleep", {"seconds": 60}, count=CONCURRENCY)
        must(await play.stage.until(lambda: all(job.state == "leased" for job in jobs)), "the jobs were not leased")
        [short] = play.stage.put("echo")
        play.process.send_signal(signal.SIGTERM)
        await play.all_are(jobs, "released", DRAIN_SECONDS + 30)
        try:
            status = await asyncio.wait_for(play.process.wait(), 30)
        except TimeoutError:
            must(False, "it had released everything, and did not exit within 30 s")
        if status != 0:
            raise Broken(f"it exited with {status}: {await play.last_words()}")
        must(short.state == "queued" or short.ending(), "it took a job after SIGTERM, and left it")
