"""What counts as work."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from search.cost import Cost


def test_work_is_of_processors_also_of_children_and_waiting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    began, later = Cost.now(), time.perf_counter() + 3600
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: later)  # an hour has passed in which nobody did anything
        waited = Cost.now() - began
    assert waited.cpu_seconds < 60 < 3600 <= waited.wall_seconds
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    assert (Cost.now() - began).cpu_seconds >= 0.4
