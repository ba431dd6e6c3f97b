"""A small runner of composite actions: the scripts of action.yml run by bash, as GitHub's runner does.

Steps that use another action are not run: they run on GitHub alone. What they are pinned to is checked, and the
statement that they were skipped stands in the result.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40}")


@dataclass
class Ended:
    """How the action ended.

    Attributes:
        code: the exit code of the first step that failed, or 0.
        log: what all steps printed.
        summary: the job's summary.
        outputs: the action's own.
        steps: the outputs of each step.
        skipped: a statement for each step that was not run.
    """

    code: int = 0
    log: str = ""
    summary: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    steps: dict[str, dict[str, str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


class Runner:
    """Runs the action in the folder `action`.

    Args:
        temp: the runner's folder for temporary files. It outlives an action, as on a runner.
        given: the outputs of steps that cannot run here, by their ids.
        environment: variables of the job.
    """

    def __init__(
        self, action: Path, temp: Path, given: Mapping[str, Mapping[str, str]], environment: Mapping[str, str]
    ) -> None:
        self.action, self.temp, self.given, self.environment = action, temp, given, environment
        self.content: dict[str, Any] = yaml.safe_load((action / "action.yml").read_text("utf-8"))

    def run(self, workspace: Path, inputs: Mapping[str, str], only: tuple[str, ...] = ()) -> Ended:
        """Run it in `workspace`; with `only`, of its scripts those of these ids."""
        declared = self.content["inputs"]
        assert set(inputs) <= set(declared), f"the action has no input {set(inputs) - set(declared)}"
        values = {name: one.get("default", "") for name, one in declared.items()} | dict(inputs)
        missing = [name for name, one in declared.items() if one.get("required") and name not in inputs]
        assert not missing, f"required: {missing}"
        ended = Ended(steps={name: dict(outputs) for name, outputs in self.given.items()})
        for number, step in enumerate(self.content["runs"]["steps"]):
            name = step.get("id", f"step-{number}")
            if not self._due(step.get("if", "success()"), ended, values):
                ended.skipped.append(f"{name}: not due")
            elif "uses" in step:
                assert PINNED.fullmatch(step["uses"]), f"{step['uses']} is not pinned by a commit"
                shown = {key: self._filled(str(text), ended, values) for key, text in step.get("with", {}).items()}
                ended.skipped.append(f"{name}: {step['uses']} runs on GitHub alone; it would get {shown}")
            elif only and name not in only:
                ended.skipped.append(f"{name}: not asked for")
            else:
                self._script(name, step, ended, values, workspace)
        ended.outputs = {
            name: self._filled(one["value"], ended, values) for name, one in self.content["outputs"].items()
        }
        return ended

    def _script(
        self, name: str, step: Mapping[str, Any], ended: Ended, values: Mapping[str, str], workspace: Path
    ) -> None:
        assert step["shell"] == "bash" and not EXPRESSION.search(step["run"]), "an input would be text of the script"
        files = {key: self.temp / f"_{key.lower()}" for key in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for path in files.values():
            path.write_text("")
        script = self.temp / "_script.sh"
        script.write_text(step["run"], "utf-8")
        environment = {
            **self.environment,
            **{
                "GITHUB_ACTIONS": "true",
                "CI": "true",
                "RUNNER_TEMP": str(self.temp),
                "GITHUB_WORKSPACE": str(workspace),
            },
            **{key: str(path) for key, path in files.items()},
            **{key: self._filled(str(text), ended, values) for key, text in step.get("env", {}).items()},
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=workspace,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        ended.log += done.stdout.decode()
        ended.code = ended.code or done.returncode
        ended.summary += files["GITHUB_STEP_SUMMARY"].read_text("utf-8")
        ended.steps[name] = outputs_of(files["GITHUB_OUTPUT"].read_text("utf-8"))

    def _due(self, condition: str, ended: Ended, values: Mapping[str, str]) -> bool:
        """Whether a step is run: terms of `success()`, `!cancelled()` and comparisons with a text."""
        terms = (EXPRESSION.sub(r"\1", condition)).split("&&")
        return all(self._holds(term.strip(), ended, values) for term in terms)

    def _holds(self, term: str, ended: Ended, values: Mapping[str, str]) -> bool:
        if term == "success()":
            return ended.code == 0
        if term == "!cancelled()":
            return True
        name, text = re.fullmatch(r"([\w.-]+) != '([^']*)'", term).groups()
        return self._value(name, ended, values) != text

    def _filled(self, text: str, ended: Ended, values: Mapping[str, str]) -> str:
        return EXPRESSION.sub(lambda found: self._value(found[1], ended, values), text)

    def _value(self, name: str, ended: Ended, values: Mapping[str, str]) -> str:
        match name.split("."):
            case ["inputs", one]:
                return values[one]
            case ["github", "action_path"]:
                return str(self.action)
            case ["runner", "temp"]:
                return str(self.temp)
            case ["runner", "os" | "arch"]:
                return os.uname().sysname if name.endswith("os") else os.uname().machine
            case ["steps", step, "outputs", one]:
                return ended.steps.get(step, {}).get(one, "")
        raise AssertionError(f"the runner does not know {name}")


def outputs_of(text: str) -> dict[str, str]:
    """The outputs in a file of GITHUB_OUTPUT: `name=value`, or `name<<END`, lines, `END`."""
    outputs, lines = {}, iter(text.split("\n"))
    for line in lines:
        if match := re.fullmatch(r"([\w-]+)<<(.+)", line):
            value = []
            while (line := next(lines)) != match[2]:
                value.append(line)
            outputs[match[1]] = "\n".join(value)
        elif line:
            name, equals, value = line.partition("=")
            assert equals, f"{line!r} is no output"
            outputs[name] = value
    return outputs
