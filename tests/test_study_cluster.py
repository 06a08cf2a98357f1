"""A study on a real Ray cluster of two nodes on this machine, one of which is killed in the middle."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from equipoise.progress import Silent
from equipoise.study.plan_study import plan_study
from equipoise.study.run_study import run_study
from experiments import contents, make_experiment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_lost_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node has one run; the run of the node that is lost goes on at the other one, to the same bytes."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from equipoise.study.executor_ray import cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "src"))
    first = make_experiment(tmp_path)
    second = tmp_path / "second.yaml"
    second.write_text(first.read_text().replace("name: tiny", "name: second"))
    out = tmp_path / "study"
    entries = plan_study([first, second], [0], out)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    lost = nodes.add_node(num_cpus=1)
    try:
        ray.init(address=nodes.address, log_to_driver=False)
        threading.Thread(target=lose, args=(nodes, lost, out), daemon=True).start()
        record = run_study(entries, out, cluster(None), Silent())
    finally:
        ray.shutdown()
        nodes.shutdown()
    assert [row["state"] for row in record["rows"]] == ["done", "done"], record["rows"]
    begun = [log.read_text().count("--- ") for log in sorted((out / "logs").iterdir())]
    assert sorted(begun) == [1, 2]
    assert contents(out / "tiny-seed0") == contents(out / "second-seed0")


def lose(nodes: Any, node: Any, out: Path) -> None:
    """Kill a node as soon as both runs have measured the base."""
    until = time.monotonic() + 200
    while len(list(out.glob("*/scores/base/done"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    nodes.remove_node(node, allow_graceful=False)
