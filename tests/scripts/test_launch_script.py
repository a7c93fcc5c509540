"""The batch script of scripts/launch, run by bash on one node, with scripts that do as srun and Python do."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.launch.slurm import Slurm
from tests.scripts.launch_settings import SECRET, settings

PATIENCE = 30.0  # seconds for what takes a tenth of one

# Slurm starts no new step of a job that was cancelled.
SRUN = """
[ ! -e {here}/cancelled ] || { echo "srun: error: Slurm job has expired" >&2; exit 1; }
while [[ $1 == -* ]]; do shift; done
export SLURM_NODEID=0
exec "$@"
"""
# Ray writes where it was told to until it is told to end; the run ends by itself with 7, or when its Ray has ended.
PYTHON = """
here={here}
case "$*" in
  *tarfile*) echo "$5" > $here/code; touch "$5/unpacked"; [ ! -e $here/slow ] || exec sleep 60;;
  *get_node_ip_address*) echo 127.0.0.1;;
  *ray.scripts.scripts*)
    [[ "$*" == *--temp-dir=*/ray* && -n $RAY_AUTH_TOKEN ]] || exit 9
    echo $$ > $here/ray
    trap 'rm $here/ray; echo told >> $here/rays; exit 0' TERM
    while :; do mkdir -p "$(dirname "$(cat $here/code)")/ray/$RANDOM"; sleep 0.05; done;;
  "- 1") cat > /dev/null; until [ -e $here/ray ]; do sleep 0.05; done;;
  *pipeline.cli*)
    env > $here/environment; printf '%s\\n' "$@" > $here/words; touch $here/running
    [ -e $here/long ] || exit 7
    while [ -e $here/ray ]; do sleep 0.05; done; exit 1;;
esac
"""


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


class Job:
    """The script as Slurm runs it; `work` is what it makes on its node."""

    def __init__(self, folder: Path, taken: bool = False, **changes: Any):
        self.folder = folder
        for name, script in (("srun", SRUN), ("python", PYTHON)):
            (folder / name).write_text("#!/bin/bash\n" + script.replace("{here}", str(folder)))
            (folder / name).chmod(0o755)
        values = {"nodes": 1, "python": str(folder / "python"), "slurm": {"setup": ["module_of_site=$UNSET_HERE"]}}
        launcher = Slurm(settings(folder, **{**values, **changes}))
        *steps, _ = launcher.submit()  # all but sbatch
        for step in steps:
            step.do()
        number = 900_000_000 + os.getpid()
        self.work = Path(f"/tmp/speechchat-{number}")
        if taken:
            self.work.mkdir()
        environment = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "MY_KEY": SECRET,
            "SLURM_JOB_ID": str(number),
            "SLURM_JOB_NUM_NODES": "1",
        }
        script = folder / "job.sh"
        script.write_text(launcher.render())
        self.process = subprocess.Popen(["bash", str(script)], cwd=folder, env=environment, start_new_session=True)

    def reaches(self, name: str) -> None:
        until((self.folder / name).exists)

    def cancel(self) -> None:
        """As scancel does: every process of every step is told to end, and no new step starts."""
        (self.folder / "cancelled").touch()
        for process in psutil.Process(self.process.pid).children(recursive=True):
            process.send_signal(signal.SIGTERM)

    def ends(self) -> int:
        return self.process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Job]]:
    monkeypatch.setenv("MY_KEY", SECRET)
    jobs: list[Job] = []

    def begin(**changes: Any) -> Job:
        jobs.append(Job(tmp_path, **changes))
        return jobs[-1]

    yield begin
    for job in jobs:
        if job.process.poll() is None:
            os.killpg(job.process.pid, signal.SIGKILL)
            job.process.wait()
        subprocess.run(["rm", "-rf", str(job.work)], check=True)


def test_a_run_that_ends_leaves_nothing_on_its_nodes(start: Callable[..., Job], tmp_path: Path) -> None:
    out = "/shared/it's$HOME`id`;\\"
    job = start(out=out)
    assert job.ends() == 7
    assert (tmp_path / "rays").read_text() == "told\n" and not job.work.exists()
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:6] == ["-m", "pipeline.cli", "run", "quickstart", "--out", out]
    environment = (tmp_path / "environment").read_text().splitlines()
    assert f"OPENAI_API_KEY={SECRET}" in environment and "RAY_AUTH_MODE=token" in environment
    assert f"PYTHONPATH={job.work}/code" in environment
    log = tmp_path / "runs" / "launch" / f"trial-{job.work.name.rpartition('-')[2]}-ray.log"
    token = next(line for line in environment if line.startswith("RAY_AUTH_TOKEN=")).partition("=")[2]
    assert len(token) == 64 and token not in log.read_text() + (tmp_path / "job.sh").read_text()


def test_a_run_that_is_cancelled_leaves_nothing_on_its_nodes(start: Callable[..., Job], tmp_path: Path) -> None:
    (tmp_path / "long").touch()
    job = start()
    job.reaches("running")
    assert (job.work / "code" / "unpacked").exists() and job.work.stat().st_mode & 0o077 == 0
    job.cancel()
    assert job.ends() != 0
    assert not job.work.exists()


def test_a_job_that_is_cancelled_while_it_is_made_ready_leaves_nothing(
    start: Callable[..., Job], tmp_path: Path
) -> None:
    (tmp_path / "slow").touch()
    job = start()
    job.reaches("code")
    job.cancel()
    assert job.ends() != 0
    assert not job.work.exists() and not (tmp_path / "running").exists()


def test_a_folder_that_somebody_else_made_is_not_used(start: Callable[..., Job], tmp_path: Path) -> None:
    (tmp_path / "rm").write_text("#!/bin/bash\n")  # it stays, as where its owner alone may remove it
    (tmp_path / "rm").chmod(0o755)
    job = start(taken=True)
    assert job.ends() != 0
    assert list(job.work.iterdir()) == [] and not (tmp_path / "running").exists()
