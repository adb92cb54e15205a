"""The main job, end to end, through a server that listens."""

from tests.conftest import Server


async def test_a_job_goes_from_enqueue_to_its_result(server: Server) -> None:
    job_id = await server.enqueue("media-gen", "video.generate", payload={"prompt": "dawn"})
    worker = await server.mint("media-gen")

    [leased] = await worker.lease("media-gen")
    assert (leased["id"], leased["payload"], leased["attempts"]) == (job_id, {"prompt": "dawn"}, 1)
    assert await worker.report("heartbeat", leased) == (204, "")
    assert await worker.report("progress", leased, percent=0.5, message="half") == (204, "")
    assert (await server.job(job_id))["progress"] == {"percent": 0.5, "message": "half", "data": None}
    assert await worker.report("complete", leased, result={"ok": True}) == (204, "")

    job = await server.job(job_id)
    assert (job["status"], job["result"], job["attempts"], job["error"]) == ("succeeded", {"ok": True}, 1, None)
    assert (await worker.report("complete", leased))[0] == 409
