"""Workflows made at random, a worker that answers as a job's payload says, and how a run of them must end."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

QUEUE = "steps"
_ATTEMPTS = 50  # of a job: a killed server can cost it one
_JOBS = ("succeed", "succeed", "succeed", "fail once", "die", "die once")


def work(job: Any) -> tuple[str, dict[str, Any]]:
    """What becomes of a job: the report's verb, and its body."""
    wanted = job["payload"]
    match wanted["does"]:
        case "fail once" if job["attempts"] == 1:
            return "fail", {"error": "not yet", "retryable": True}
        case "die":
            return "fail", {"error": "never", "retryable": False}
        case "die once" if not wanted["again"]:
            return "fail", {"error": "not this time", "retryable": False}
    return "complete", {"result": {"n": wanted["n"] + 1}}


def definitions(dice: random.Random, count: int) -> list[dict[str, Any]]:
    """So many workflows, each of some steps and perhaps a group; two that get nowhere; one whose runs share jobs."""
    return [*(_Maker(dice).definition(f"flow-{number}") for number in range(count)), STUCK, LATE, SHARED]


class _Maker:
    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._names: list[str] = []
        self._waited: list[str] = []  # jobs before, which a condition can ask about

    def definition(self, name: str) -> dict[str, Any]:
        steps = [self._step() for _ in range(self._dice.randint(3, 6))]
        if self._dice.random() < 0.7:
            steps.insert(self._dice.randint(1, len(steps)), self._group())
        steps.append({"name": "last", "action": self._job("succeed", "last", wait=True)})
        return {"name": name, "steps": steps}

    def _name(self) -> str:
        self._names.append(f"step_{len(self._names)}")
        return self._names[-1]

    def _group(self) -> dict[str, Any]:
        known = list(self._waited)  # branches run side by side: none of them can ask about another
        branches = []
        for _ in range(self._dice.randint(2, 3)):
            self._waited = list(known)
            branches.append([self._step() for _ in range(self._dice.randint(1, 2))])
        self._waited = known
        return {"name": self._name(), "parallel": branches, "on_failure": self._dice.choice(["Continue", "Stop"])}

    def _step(self) -> dict[str, Any]:
        name = self._name()
        step: dict[str, Any] = {"name": name}
        condition = self._condition()
        match self._dice.choice(["Job", "Job", "Job", "Delay", "SetVariable"]):
            case "Delay":
                step["action"] = {"Delay": {"seconds": self._dice.choice([0, 0.1, 0.7, "{{ pause }}"])}}
            case "SetVariable":
                step["action"] = {"SetVariable": {"key": "noted", "value": {"at": "{{ n }}", "run": "{{ run.id }}"}}}
            case _:
                does = self._dice.choice(_JOBS)
                is_waited = self._dice.random() < 0.8
                step["action"] = self._job(does, name, wait=is_waited)
                if does != "succeed":
                    # A run that stops ends the sooner: few do, so that there is something to kill.
                    step["on_failure"] = self._dice.choice(
                        ["Continue", {"Retry": {"max_attempts": 2}}, {"Retry": {"max_attempts": 2}}, "Stop"]
                    )
                if is_waited:
                    self._waited.append(name)
        if condition is not None:
            step["condition"] = condition
        return step

    def _job(self, does: str, step: str, *, wait: bool) -> dict[str, Any]:
        payload = {"does": does, "n": "{{ n }}", "again": f"{{{{ steps.{step}.error | default('') }}}}"}
        return {"Job": {"queue": QUEUE, "kind": "work", "payload": payload, "max_attempts": _ATTEMPTS, "wait": wait}}

    def _condition(self) -> dict[str, Any] | None:
        if self._dice.random() < 0.6:
            return None
        if self._waited and self._dice.random() < 0.5:
            field_ = f"steps.{self._dice.choice(self._waited)}.job_result.n"
            return {"field": field_, "operator": "gt", "value": "{{ n }}"}
        return {"field": "n", "operator": self._dice.choice(["gt", "lt"]), "value": self._dice.randint(5, 45)}


_PARKED = {
    "name": "both",
    "parallel": [
        {"name": "waits", "action": {"Job": {"queue": "nobody's", "kind": "work", "wait": True}}},
        {"name": "sleeps", "action": {"Delay": {"seconds": 3_600}}},
    ],
}
STUCK = {"name": "stuck", "steps": [_PARKED]}  # until somebody cancels it
LATE = {"name": "late", "steps": [_PARKED], "timeout_secs": 2}
_COMMON = {"queue": QUEUE, "kind": "work", "payload": {"does": "succeed", "n": "{{ n }}"}, "max_attempts": _ATTEMPTS}
SHARED = {  # some runs wait for one job, which may have ended before they come
    "name": "shared",
    "steps": [
        {"name": "common", "action": {"Job": {**_COMMON, "idempotency_key": "common {{ lot }}", "wait": True}}},
        {"name": "own", "action": {"Job": {**_COMMON, "wait": True}}},
    ],
}


@dataclass
class End:
    """How a run must end."""

    is_failed: bool = False
    steps: dict[str, str] = field(default_factory=dict)  # the states of those that began
    tries: Counter[str] = field(default_factory=Counter)  # how many jobs a step enqueued, one after the other
    errors: set[str] = field(default_factory=set)  # what they begin with: the steps that failed
    steps_run: int = 0

    @property
    def jobs(self) -> list[str]:
        """As their keys name them: the step, and its attempt beyond the first."""
        return [name if n == 1 else f"{name}:{n}" for name, tries in self.tries.items() for n in range(1, tries + 1)]


def end_of(definition: dict[str, Any], n: int, retries: int) -> End:
    """What the contract says of a run whose context has that `n`, and that was retried by hand so often."""
    if definition in (STUCK, LATE):
        why = "cancelled by user" if definition is STUCK else "timed out after 2 s"
        states = dict.fromkeys(["both", "waits", "sleeps"], "cancelled")
        return End(is_failed=True, steps=states, tries=Counter({"waits": 1}), errors={why})
    end = End()
    for _ in range(retries + 1):
        end.errors.clear()
        end.is_failed = not _follow(definition["steps"], n, end)
    return end


def _follow(steps: Sequence[dict[str, Any]], n: int, end: End) -> bool:
    """Whether a sequence gets to its end."""
    for step in steps:
        name, goes_on = step["name"], step.get("on_failure") == "Continue"
        if name not in end.steps and not _holds(step.get("condition"), n, end):
            end.steps[name] = "skipped"
        if end.steps.get(name, "failed") != "failed":
            continue
        succeeds = _succeeds(step, n, end)
        end.steps_run += 1
        if succeeds:
            end.steps[name] = "completed"
            continue
        end.errors.add(name)
        end.steps[name] = "passed" if goes_on else "failed"
        if not goes_on:
            return False
    return True


def _holds(condition: dict[str, Any] | None, n: int, end: End) -> bool:
    match condition:
        case None:
            return True
        case {"field": "n", "operator": "gt", "value": value}:
            return n > int(value)
        case {"field": "n", "operator": "lt", "value": value}:
            return n < int(value)
        case {"field": path}:  # a job's result is n + 1, where there is one
            return end.steps.get(path.split(".")[1]) == "completed"
    raise AssertionError(condition)


def _succeeds(step: dict[str, Any], n: int, end: End) -> bool:
    if "parallel" in step:
        # A branch goes on whatever becomes of the others.
        have_arrived = [_follow(branch, n, end) for branch in step["parallel"]]
        if all(have_arrived):
            return True
        if step["on_failure"] == "Continue":
            within = [inner["name"] for branch in step["parallel"] for inner in branch]
            end.steps.update({name: "passed" for name in within if end.steps.get(name) == "failed"})
        return False
    job, on_failure = step["action"].get("Job"), step.get("on_failure")
    if job is None:
        return True
    for _ in range(on_failure["Retry"]["max_attempts"] if isinstance(on_failure, dict) else 1):
        if "idempotency_key" not in job:
            end.tries[step["name"]] += 1
        match job["payload"]["does"]:
            case "die" if job["wait"]:
                continue
            case "die once" if job["wait"] and end.tries[step["name"]] == 1:
                continue
        return True
    return False
