"""Ray does the rows on two machines, one of which is lost in the middle; every row ends once, as on one machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from goldens import FIXTURES

from nezha_convert.batches import on_ray
from nezha_convert.batches.needs import Needs
from nezha_convert.batches.pool import Limits, Task
from nezha_convert.batches.row import Row
from nezha_convert.errors import UsageError

ROWS = 24 if os.environ.get("NEZHA_BATCH") else 0
COPY = FIXTURES / "transformers-4.40.2-pretraining"


class _Lost(Exception):  # noqa: N818
    """What Ray raises when it gave a task up."""


class _Cluster:
    """Ray in a process: a task runs when it is asked for; of `lost` rows the machine is gone each time."""

    def __init__(self, lost: str = "", **resources: float) -> None:
        self.exceptions = SimpleNamespace(RayError=_Lost)
        self._lost, self._resources, self.asked = lost, resources, list[dict[str, object]]()

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, object]]:
        return [{"Alive": True, "Resources": self._resources}, {"Alive": False, "Resources": {"memory": 1e15}}]

    def remote(self, function):
        def options(**asked):
            self.asked.append(asked)
            return SimpleNamespace(remote=lambda *arguments: (len(self.asked), function, arguments))

        return SimpleNamespace(options=options)

    def wait(self, references, num_returns):
        return references[-1:], references[:-1]

    def get(self, reference):
        _, function, (task, work, folder) = reference
        if task["row"]["source"] == self._lost:
            raise _Lost("the node died")
        return function(task, work, folder)

    def cancel(self, reference):
        raise AssertionError("nothing is left to cancel")


@pytest.fixture
def cluster(monkeypatch):
    def make(**settings):
        fake = _Cluster(**settings)
        fake.remote = _hashable(fake.remote)
        monkeypatch.setitem(sys.modules, "ray", fake)
        return fake

    return make


def _hashable(remote):
    class Reference(tuple):
        __hash__ = object.__hash__
        __slots__ = ()

    def wrapped(function):
        made = remote(function)

        def options(**asked):
            inner = made.options(**asked)
            return SimpleNamespace(remote=lambda *arguments: Reference(inner.remote(*arguments)))

        return SimpleNamespace(options=options)

    return wrapped


def tasks(*sources: str, memory: int = 10) -> list[Task]:
    rows = [Row(n, f"line {n}", source, f"out/{n}") for n, source in enumerate(sources, 1)]
    return [Task(row, Needs(1, memory, 5)) for row in rows]


def run(todo):
    results = on_ray.run_on_ray(todo, Limits(1, 1, 1), "row_work", lambda *_: None)
    return sorted(results, key=lambda result: result.number)


def test_each_row_asks_for_its_memory_and_for_disk_where_machines_name_it(cluster):
    fake = cluster(memory=100.0)
    assert [result.outcome for result in run(tasks("quick", "quick"))] == ["converted"] * 2
    assert [(one["memory"], one["resources"], one["max_retries"]) for one in fake.asked] == [(10, None, 5)] * 2
    fake = cluster(memory=100.0, disk=50.0)
    run(tasks("quick"))
    assert fake.asked[0]["resources"] == {"disk": 5}


def test_a_row_that_no_machine_can_hold_says_so_and_is_not_waited_for(cluster):
    cluster(memory=100.0)
    (result,) = run(tasks("quick", memory=101))
    assert result.outcome == "failed" and "largest machine of the cluster" in result.reason


def test_a_row_that_ray_gives_up_is_one_failed_row(cluster):
    cluster(memory=100.0, lost="lost")
    results = run(tasks("quick", "lost", "quick"))
    assert [result.outcome for result in results] == ["converted", "failed", "converted"]
    assert "the node died" in results[1].reason and results[1].commands


def test_ray_is_imported_only_when_it_is_asked_for_and_named_where_it_is_missing(monkeypatch):
    code = "import nezha_convert.commands.batch, sys; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError) as error:
        on_ray.connect("auto")
    assert "'nezha-convert[ray]'" in error.value.hint


def test_an_address_at_which_no_cluster_is_says_so_at_once(cluster):
    cluster().is_initialized = lambda: False
    with pytest.raises(UsageError, match="no cluster answers"):
        on_ray.connect("127.0.0.1:1")


@pytest.mark.skipif(not ROWS, reason="it takes minutes; NEZHA_BATCH=all runs it, as nightly.yml does")
def test_a_lost_machine_s_rows_are_done_once_and_the_report_is_that_of_one_machine(tmp_path):
    pytest.importorskip("ray")
    for number in range(ROWS):
        shutil.copytree(COPY, tmp_path / "models" / f"m{number:02}", ignore=shutil.ignore_patterns("*.npz"))
    shutil.copytree(FIXTURES / "huawei-tf-classifier", tmp_path / "models" / "question")
    program = textwrap.dedent(
        """
        import json, sys, threading, time
        from pathlib import Path
        import ray
        from ray.cluster_utils import Cluster
        import nezha_convert

        folder = Path(sys.argv[1])
        one = nezha_convert.batch(folder / "models", folder / "out", jobs=2)
        (folder / "out").rename(folder / "alone")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "memory": 4 << 30})
        second = cluster.add_node(num_cpus=1, memory=4 << 30)
        cluster.wait_for_nodes()
        inodes = {}
        lost = threading.Event()

        def lose():
            while len(list((folder / "out").glob("m*/conversion.json"))) < 4:
                time.sleep(0.05)
            for path in (folder / "out").glob("m*/conversion.json"):
                inodes[path.parent.name] = path.with_name("model.safetensors").stat().st_ino
            cluster.remove_node(second, allow_graceful=False)
            lost.set()

        thread = threading.Thread(target=lose, daemon=True)
        thread.start()
        begun = time.monotonic()
        two = nezha_convert.batch(folder / "models", folder / "out", ray=cluster.address)
        took = time.monotonic() - begun
        thread.join(1)
        after = {p.parent.name: p.with_name("model.safetensors").stat().st_ino
                 for p in (folder / "out").glob("m*/conversion.json")}
        journal = [json.loads(line)["output"] for line in (folder / "out" / "batch.jsonl").read_text().splitlines()]
        print(json.dumps({
            "lost": lost.is_set(),
            "alive": sum(node["Alive"] for node in ray.nodes()),
            "same": one.without_timings() == two.without_timings(),
            "counts": two.counts,
            "kept": inodes.items() <= after.items(),
            "once": len(journal) == len(set(journal)) == len(two.rows),
            "left": [path.name for path in (folder / "out").glob(".*.part")],
            "seconds": [one.seconds, took],
        }))
        ray.shutdown()
        cluster.shutdown()
        """
    )
    place = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": str(place),
        "OMP_NUM_THREADS": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    said = json.loads(done.stdout.splitlines()[-1])
    print(said)
    assert said["lost"] and said["alive"] == 1, said
    assert said["same"] and said["kept"] and said["once"] and said["left"] == [], said
    assert said["counts"] == {"verified": ROWS, "needs a decision": 1}
