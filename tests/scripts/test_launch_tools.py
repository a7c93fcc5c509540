"""What scripts/launch does with sbatch, kubectl and ssh, which here are scripts that answer as the tools do."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.launch.steps import Call
from tests.scripts.launch_settings import SECRET, dashboard, launch, tool, write

JOB = "JobId=8 JobName=trial JobState={state} Reason=None ExitCode={code} StdErr=/x StdOut={log} Power=\n"


# ssh -N -L 127.0.0.1:PORT:…: what comes to PORT goes to another one.
TUNNEL = """
import asyncio, sys
async def copy(source, sink):
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()
async def accept(source, sink):
    try:
        far_source, far_sink = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    except OSError:
        sink.close()
        return
    await asyncio.gather(copy(source, far_sink), copy(far_source, sink))
async def main():
    server = await asyncio.start_server(accept, "127.0.0.1", int(sys.argv[1].split(":")[1]))
    await server.serve_forever()
asyncio.run(main())
"""


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """ssh to machines whose dashboard is at a port here."""
    (folder / "tunnel.py").write_text(TUNNEL)
    script = f"""
case "$*" in *" -N "*) exec {sys.executable} tunnel.py "${{@: -2:1}}" {port};; esac
export HOME=$PWD/home-$$; mkdir $HOME; cd $HOME; eval "${{@: -1}}" """
    tool(folder, monkeypatch, "ssh", script)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.mark.parametrize(
    ("state", "code", "status"),
    [
        ("COMPLETED", "0:0", 0),
        ("FAILED", "5:0", 5),
        ("CANCELLED", "0:15", 143),
        ("TIMEOUT", "0:0", 1),
    ],
)
def test_a_slurm_job_is_submitted_and_followed_to_its_exit_status(
    state: str, code: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "job.log"
    (tmp_path / "running").write_text(JOB.format(state="RUNNING", code="0:0", log=log))
    (tmp_path / "ended").write_text(JOB.format(state=state, code=code, log=log))
    tool(tmp_path, monkeypatch, "sbatch", 'cp "$1" submitted; echo "Submitted batch job 8"; echo first >> job.log')
    # An older job of the name has ended, a later one waits for this one.
    tool(tmp_path, monkeypatch, "squeue", 'echo "9 PENDING"; echo "7 COMPLETED"; echo "8 RUNNING"')
    tool(
        tmp_path,
        monkeypatch,
        "scontrol",
        "cat running; [ ! -e ended ] || { mv -f ended running; echo second >> job.log; }",
    )
    done = launch("slurm", write(tmp_path / "s.yaml"))
    assert done.exit_code == status, done.output
    assert done.stdout.splitlines()[-3:] == ["first", "second", f"8: {state}"]
    assert "scontrol --oneliner show job 8" in calls(tmp_path)
    script = (tmp_path / "submitted").read_text()
    (code_file,) = (tmp_path / "runs" / "launch").glob("trial-*.tar.gz")
    assert str(code_file) in script and SECRET not in script + done.output


def test_a_slurm_run_is_stopped_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, monkeypatch, "scancel", "")
    assert launch("slurm", write(tmp_path / "s.yaml"), "stop").exit_code == 0
    assert calls(tmp_path) == ["scancel --me --name=trial"]
    tool(tmp_path, monkeypatch, "squeue", "")
    unknown = launch("slurm", tmp_path / "s.yaml", "follow")
    assert unknown.exit_code == 2 and "no job 'trial' of yours; submit it first" in unknown.stderr


@pytest.mark.parametrize(
    ("job", "message", "status"),
    [
        ("SUCCEEDED", "", 0),
        ("FAILED", "Job entrypoint command failed with exit code 4, last available logs:", 4),
        ("STOPPED", "", 1),
    ],
)
def test_a_rayjob_is_made_anew_and_followed_to_its_exit_status(
    job: str, message: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = {"jobDeploymentStatus": "Complete", "jobStatus": job, "message": message}
    states = [{"jobDeploymentStatus": "Failed"}, {}, {"jobDeploymentStatus": "Running"}, ended, ended]
    (tmp_path / "states").write_text("".join(json.dumps({"status": state}) + "\n" for state in states))
    script = """case "$2" in get) head -n1 states; sed -i 1d states;; logs) echo spoken;; esac"""
    tool(tmp_path, monkeypatch, "kubectl", script)
    done = launch("kuberay", write(tmp_path / "s.yaml"))
    assert done.exit_code == status, done.output
    assert done.stdout.splitlines() == ["spoken", f"trial: {job}"]
    verbs = [line.split()[2] for line in calls(tmp_path)]
    assert verbs == ["get", "delete", "delete", "create", "create", "get", "get", "logs", "get"]
    assert all("--namespace=lab" in line for line in calls(tmp_path))


def test_a_rayjob_that_has_not_ended_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, monkeypatch, "kubectl", """echo '{"status": {"jobDeploymentStatus": "Running"}}'""")
    done = launch("kuberay", write(tmp_path / "s.yaml"))
    assert done.exit_code == 2 and "has not ended: follow it, or stop it" in done.stderr
    assert len(calls(tmp_path)) == 1


def test_keys_go_through_ssh_and_are_in_no_file_or_line_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f"{SECRET} it's $HOME")
    machine(tmp_path, monkeypatch, closed_port())
    tool(tmp_path, monkeypatch, "ray", "exit 9")
    done = launch("ssh", write(tmp_path / "s.yaml"))
    assert done.exit_code == 3 and "`ray up --yes" in done.stderr and "ended with 9" in done.stderr
    hosts = [line.split(" umask")[0].split("@")[1] for line in calls(tmp_path) if "umask" in line]
    assert hosts == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    nodes = sorted(tmp_path.glob("home-*/.speechchat/trial/env"))
    assert len(nodes) == 3
    for node in nodes:
        assert node.stat().st_mode & 0o077 == 0
        words = ["bash", "-c", f'. {node}; printf %s "$OPENAI_API_KEY"']
        assert subprocess.run(words, capture_output=True, text=True).stdout == f"{SECRET} it's $HOME"
    here = [path for path in tmp_path.rglob("*") if path.is_file() and path not in nodes]
    assert not [path for path in here if SECRET.encode() in path.read_bytes()]
    assert SECRET not in done.output


def test_a_run_that_goes_on_is_not_ended_by_setting_up_its_machines_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"type": "SUBMISSION", "submission_id": "trial-4", "status": "RUNNING", "entrypoint": "x"}
    tool(tmp_path, monkeypatch, "ray", "")
    with dashboard(jobs=[job]) as server:
        machine(tmp_path, monkeypatch, server.server_address[1])
        done = launch("ssh", write(tmp_path / "s.yaml"))
    assert done.exit_code == 2 and "trial-4 is RUNNING: follow it, or stop it" in done.stderr, done.output
    (tunnel,) = calls(tmp_path)
    assert " -N " in tunnel and tunnel.endswith("ubuntu@10.0.0.1")


def test_stop_takes_the_keys_away_where_no_ray_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, closed_port())
    tool(tmp_path, monkeypatch, "ray", "exit 1")
    done = launch("ssh", write(tmp_path / "s.yaml"), "stop")
    assert done.exit_code == 3 and "`ray down --yes" in done.stderr and "nothing to stop" in done.stdout
    removals = [line for line in calls(tmp_path) if line.endswith("rm -f .speechchat/trial/env")]
    assert len(removals) == 3 and calls(tmp_path)[-1].startswith("ray down")
    assert (tmp_path / "runs" / "launch" / "trial.ray.yaml").is_file()


def test_a_log_is_printed_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command goes on only when its first line was seen."""
    seen = tmp_path / "seen"
    tool(tmp_path, monkeypatch, "speaker", f"echo first; until [ -e {seen} ]; do /bin/sleep 0.02; done; echo second")

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            if "first" in text:
                seen.touch()
            return super().write(text)

    monkeypatch.setattr("sys.stdout", screen := Screen())
    Call(["timeout", "20", "speaker"]).do()
    assert screen.getvalue() == "first\nsecond\n"


@pytest.mark.parametrize("kind", ["slurm", "ssh"])
def test_a_variable_that_is_missing_here_is_said_before_anything_is_done(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY")
    done = launch(kind, write(tmp_path / "s.yaml"))
    assert done.exit_code == 2 and "MY_KEY is not set here; export it" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_a_tool_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "s.yaml")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = launch("slurm", tmp_path / "s.yaml")
    assert done.exit_code == 2 and "sbatch: not installed here" in done.stderr
