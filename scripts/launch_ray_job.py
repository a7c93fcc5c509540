"""Submit a run to a Ray cluster that is already there, with the semantics of `ray job submit`.

    ray start --head
    python scripts/launch_ray_job.py --address http://127.0.0.1:8265 -- run quickstart --out /shared/runs/demo

The working directory (this repository) is shipped to the cluster, its requirements are installed there where
`--requirements` asks for it, the words after `--` are given to `speechchat`, and the job's log is followed until it
ends. The status of the job is the exit status. The run folder must be on storage that every node sees.

Nothing of this machine's environment goes along unless `--env` names it. Ray keeps what goes along with the job, where
whoever sees the dashboard can read it: a key (`--env OPENAI_API_KEY`) is better set on the nodes.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parent.parent
# What a job needs of the working directory; models, runs and environments stay at home.
EXCLUDES = [
    "/.git/",
    "/.venv/",
    "/runs/",
    "/build/",
    "**/__pycache__/",
    "/.mypy_cache/",
    "/.ruff_cache/",
    "/.pytest_cache/",
]


def main(
    command: Annotated[list[str], typer.Argument(help="what to give to `speechchat` on the cluster, after `--`")],
    address: Annotated[
        str, typer.Option(help="the cluster's dashboard", envvar="RAY_ADDRESS")
    ] = "http://127.0.0.1:8265",
    working_dir: Annotated[Path, typer.Option(help="shipped to the cluster")] = ROOT,
    requirements: Annotated[
        str | None,
        typer.Option(
            help="pip requirements for the job: a file such as constraints.txt, or a list; nodes are ready if left out"
        ),
    ] = None,
    python: Annotated[str, typer.Option(help="the Python of the nodes, with speechchat's packages")] = "python",
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the job, or NAME alone to pass yours on; repeatable")
    ] = None,
    submission_id: Annotated[str | None, typer.Option(help="a name of your own for the job")] = None,
    follow: Annotated[bool, typer.Option(help="follow the log until the job ends")] = True,
) -> None:
    """Submit, follow, and end with the status of the job."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobStatus, JobSubmissionClient

    from pipeline.engine.cluster import use_token

    environment = runtime_env(working_dir, requirements, env or [])
    use_token()
    try:
        client = JobSubmissionClient(address)
    except AuthenticationError as error:
        raise SystemExit(
            f"launch_ray_job: {address} wants a token ({' '.join(str(error).split())[:120]}); "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or put it into ~/.ray/auth_token"
        ) from None
    except (ConnectionError, RuntimeError) as error:
        raise SystemExit(
            f"launch_ray_job: no Ray dashboard answers at {address} ({' '.join(str(error).split())[:200]}); "
            "start a cluster with `ray start --head`, or name one with --address"
        ) from None
    entrypoint = shlex.join([python, "-m", "pipeline.cli", *command])
    job = submit(client, entrypoint=entrypoint, submission_id=submission_id, runtime_env=environment)
    typer.echo(f"submitted {job}: {entrypoint}")
    if not follow:
        typer.echo(f"follow it: ray job logs --address {address} --follow {job}")
        return
    try:
        asyncio.run(tail(client, job))
    except KeyboardInterrupt:
        typer.echo(f"\nthe job goes on; stop it: ray job stop --address {address} {job}", err=True)
        raise typer.Exit(130) from None
    status = client.get_job_status(job)
    while not status.is_terminal():  # the log ends a moment before the job does, or the connection was lost
        time.sleep(1)
        status = client.get_job_status(job)
    typer.echo(f"{job}: {status}")
    if status != JobStatus.SUCCEEDED:
        typer.echo(f"launch_ray_job: {client.get_job_info(job).message}", err=True)
        raise typer.Exit(1)


def submit(client: Any, patience: float = 60.0, **job: Any) -> str:
    """Submit; a cluster that has only just started has no agent for some seconds, and says so with a 500."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return str(client.submit_job(**job))
        except RuntimeError as error:
            starting = "No available agent" in str(error)
            if not starting or time.monotonic() > deadline:
                # Two Rays on one machine want the same port for the agent that takes jobs; the second goes without.
                way_out = "; is another Ray on that machine? start it with --dashboard-agent-listen-port=0"
                raise SystemExit(
                    f"launch_ray_job: the cluster refuses the job: {' '.join(str(error).split())}"
                    + (way_out if starting else "")
                ) from None
            time.sleep(1)


def runtime_env(working_dir: Path, requirements: str | None, env: list[str]) -> dict[str, Any]:
    """Ray's runtime environment of the job."""
    variables = {}
    for item in env:
        name, eq, value = item.partition("=")
        if not eq and name not in os.environ:
            raise SystemExit(f"launch_ray_job: --env {item}: it is not set here; write it as NAME=VALUE")
        variables[name] = value if eq else os.environ[name]
    environment: dict[str, Any] = {"working_dir": str(working_dir), "excludes": EXCLUDES, "env_vars": variables}
    if requirements:
        environment["pip"] = requirements if Path(requirements).is_file() else requirements.split()
    return environment


async def tail(client: Any, job: str) -> None:
    async for text in client.tail_job_logs(job):
        sys.stdout.write(text)
        sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
