"""The sample worker of `atomo-gql dev`: a slow pipeline that makes a video, and sometimes stumbles."""

import asyncio
import random

from atomo_gql.worker import JobContext, Worker

worker = Worker(queues=["media-gen"], concurrency=4)

_STAGES = ("calling the provider", "rendering frames", "encoding", "uploading")
_STEPS = 8  # per stage


@worker.on("video.generate")
async def generate(ctx: JobContext) -> dict[str, object]:
    """Pretend to make a video. The payload may say `seconds` (how long), and `flaky` (the chance to fail: 0 to 1)."""
    payload = ctx.job.payload if isinstance(ctx.job.payload, dict) else {}
    pause = float(payload.get("seconds", 4)) / (len(_STAGES) * _STEPS)
    stumbles = random.random() < float(payload.get("flaky", 0.2)) and ctx.job.attempts < ctx.job.max_attempts  # noqa: S311
    for number, stage in enumerate(_STAGES):
        for step in range(_STEPS):
            done = (number * _STEPS + step) / (len(_STAGES) * _STEPS)
            await ctx.progress(percent=round(done, 3), message=stage, data={"stage": number + 1, "of": len(_STAGES)})
            await asyncio.sleep(pause)
        if stumbles and number == 1:
            raise RuntimeError("the provider hung up in the middle (as it does now and then)")
    return {"assetId": f"video-{ctx.job.id[-12:]}", "frames": len(_STAGES) * _STEPS * 24}
