"""Workflows made at random, a worker that answers as a job's payload says, and how a run of them must end."""

import random
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
    """So many workflows, each of some steps and perhaps a group."""
    return [_Maker(dice).definition(f"flow-{number}") for number in range(count)]


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


@dataclass
class End:
    """How a run must end."""

    is_failed: bool = False
    steps: dict[str, str] = field(default_factory=dict)  # the states of those that began
    jobs: list[str] = field(default_factory=list)  # as their keys name them: the step, and an attempt beyond the first
    errors: set[str] = field(default_factory=set)  # the steps that failed
    steps_run: int = 0


def end_of(definition: dict[str, Any], n: int) -> End:
    """What the contract says of a run whose context has that `n`."""
    end = End()
    end.is_failed = not _follow(definition["steps"], n, end)
    return end


def _follow(steps: Sequence[dict[str, Any]], n: int, end: End) -> bool:
    """Whether a sequence gets to its end."""
    for step in steps:
        name, on_failure = step["name"], step.get("on_failure", "Stop")
        if not _holds(step.get("condition"), n, end):
            end.steps[name] = "skipped"
            continue
        end.steps_run += 1
        if _succeeds(step, n, end):
            end.steps[name] = "completed"
            continue
        end.errors.add(name)
        end.steps[name] = "passed" if on_failure == "Continue" else "failed"
        if on_failure != "Continue":
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
            return end.steps[path.split(".")[1]] == "completed" if path.split(".")[1] in end.steps else False
    raise AssertionError(condition)


def _succeeds(step: dict[str, Any], n: int, end: End) -> bool:
    if "parallel" in step:
        arrived = [
            _follow(branch, n, end) for branch in step["parallel"]
        ]  # each goes on whatever becomes of the others
        if all(arrived):
            return True
        if step["on_failure"] == "Continue":
            within = [inner["name"] for branch in step["parallel"] for inner in branch]
            end.steps.update({name: "passed" for name in within if end.steps.get(name) == "failed"})
        return False
    job = step["action"].get("Job")
    if job is None:
        return True
    end.jobs.append(step["name"])
    does = job["payload"]["does"]
    if not job["wait"] or does in ("succeed", "fail once"):
        return True
    if not isinstance(step.get("on_failure"), dict):
        return False
    end.jobs.append(f"{step['name']}:2")
    return bool(does == "die once")
