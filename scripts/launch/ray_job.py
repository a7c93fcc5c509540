"""Kind `job`: `ray job submit` to a cluster that is there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import yaml

from pipeline.engine.cluster import use_token
from pipeline.errors import EndpointError, UsageError
from scripts.launch.settings import LaunchSettings
from scripts.launch.steps import SKIP, Action, Step

Reach = Callable[[], AbstractContextManager[str]]


class NoDashboard(EndpointError):
    """Nobody answers where the dashboard should be."""


class RayJob:
    """Each submission is a job of its own, NAME-1, NAME-2 and so on, so that nothing is remembered here.

    reach: gives the address of the dashboard for as long as it is held; that of the settings if null.
    """

    def __init__(self, settings: LaunchSettings, reach: Reach | None = None):
        """reach: to nodes that are set up for this run, with its packages and variables."""
        self._settings = settings
        self._own_nodes = own_nodes = reach is not None
        self._where = "the head, through ssh" if own_nodes else settings.job.address
        self._reach = reach or (lambda: contextlib.nullcontext(settings.job.address))
        self._variables = {} if own_nodes else settings.references("job", "node")
        self._packages = [] if own_nodes else settings.packages()

    def request(self) -> dict[str, Any]:
        """Arguments of `JobSubmissionClient.submit_job`; values of variables are names of the nodes' own."""
        settings = self._settings
        environment: dict[str, Any] = {}
        if settings.working_dir is not None:
            inside = settings.folder.is_relative_to(settings.working_dir)
            own = [f"/{settings.folder.relative_to(settings.working_dir)}"] if inside else []
            environment |= {"working_dir": str(settings.working_dir), "excludes": [*SKIP, *own]}
        if self._packages:
            pins = "--constraint ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/constraints.txt"
            environment["pip"] = [pins, *self._packages]
        names = {name: str(reference.node) for name, reference in self._variables.items()}
        if renamed := {name: f"${{{node}}}" for name, node in names.items() if name != node}:
            environment["env_vars"] = renamed
        # A variable that is missing is said before any work, and not by whoever wants it first.
        needed = "".join(
            f'[ -n "${node}" ] || {{ echo "{node}: not set on the head node" >&2; exit 2; }}; '
            for node in names.values()
        )
        return {
            "entrypoint": needed + shlex.join(settings.command()),
            "runtime_env": environment,
            "metadata": {"name": settings.name},
        }

    def render(self) -> str:
        return yaml.safe_dump(self.request(), sort_keys=False, width=120)

    def submit(self) -> list[Step]:
        return [Action(f"submit to {self._where} as {self._settings.name}-N:\n{self.render()}", self._submit)]

    def stop(self) -> list[Step]:
        return [Action(f"stop what runs of {self._settings.name}-N at {self._where}", self._stop)]

    def follow(self) -> int:
        from ray.job_submission import JobStatus

        with self._session() as client:
            job = self._latest(client)
            if job is None:
                raise UsageError(f"{self._where} knows no job of {self._settings.name}; submit it first")
            asyncio.run(_tail(client, job.submission_id))
            info = client.get_job_info(job.submission_id)
            while not info.status.is_terminal():  # the log ends a moment before the job does
                time.sleep(1)
                info = client.get_job_info(job.submission_id)
        print(f"{job.submission_id}: {info.status}", flush=True)
        if info.status == JobStatus.SUCCEEDED:
            return 0
        print(f"launch: {info.message}", file=sys.stderr)
        code = info.driver_exit_code
        if code is None:
            return status_in(info.message)
        return 128 - code if code < 0 else code & 0xFF or 1  # below 0: the signal that ended it

    def refuse_if_live(self) -> Step:
        """For nodes that are to be set up anew, which ends whatever runs there."""
        return Action(f"refuse if a job of {self._settings.name} runs at {self._where}", self._refuse_if_live)

    def _refuse_if_live(self) -> None:
        with contextlib.suppress(NoDashboard), self._session() as client:
            self._last_ended(client)

    def _last_ended(self, client: Any) -> Any:
        last = self._latest(client)
        if last is not None and not last.status.is_terminal():
            raise UsageError(f"{last.submission_id} is {last.status}: follow it, or stop it and submit again")
        return last

    def _submit(self) -> None:
        with self._session() as client:
            last = self._last_ended(client)
            number = 1 + (int(last.submission_id.rpartition("-")[2]) if last else 0)
            job = _send(client, submission_id=f"{self._settings.name}-{number}", **self.request())
        print(f"submitted {job}: {shlex.join(self._settings.command())}", flush=True)

    def _stop(self) -> None:
        try:
            self._stop_job()
        except NoDashboard as error:
            if not self._own_nodes:
                raise
            print(f"nothing to stop: {error}")

    def _stop_job(self) -> None:
        with self._session() as client:
            job = self._latest(client)
            if job is None or job.status.is_terminal():
                print(f"nothing of {self._settings.name} runs")
                return
            client.stop_job(job.submission_id)
            while not client.get_job_status(job.submission_id).is_terminal():
                time.sleep(1)
        print(f"stopped {job.submission_id}")

    @contextlib.contextmanager
    def _session(self) -> Iterator[Any]:
        """A JobSubmissionClient. What it raises in trouble becomes one line."""
        import aiohttp
        import requests

        with self._reach() as address:
            client = _client(address, self._where)
            try:
                yield client
            except (ConnectionError, RuntimeError, requests.RequestException, aiohttp.ClientError) as error:
                raise EndpointError(
                    f"{self._where}: the dashboard answers no more ({' '.join(str(error).split())[:200]}); "
                    "the run may go on: follow it when the cluster is back"
                ) from None

    def _latest(self, client: Any) -> Any:
        own = re.compile(re.escape(self._settings.name) + r"-(\d+)")
        jobs = [job for job in client.list_jobs() if own.fullmatch(job.submission_id or "")]
        return max(jobs, key=lambda job: int(job.submission_id.rpartition("-")[2]), default=None)


def status_in(message: str | None) -> int:
    """The exit status that Ray names in the message of a job that failed; 1 if it names none."""
    found = re.search(r"exit code (\d+)", message or "")
    return int(found[1]) & 0xFF or 1 if found else 1


def _client(address: str, where: str) -> Any:
    """Raises NoDashboard, and EndpointError if the cluster wants a token that is not here."""
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.WARNING)  # it names each file that it does not ship

    def refused() -> bool:
        try:
            JobSubmissionClient(address)
        except AuthenticationError:
            return True
        return False

    try:
        use_token(where, refused)
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError, requests.RequestException) as error:
        raise NoDashboard(
            f"no Ray dashboard answers at {address} ({' '.join(str(error).split())[:200]}); "
            "start a cluster with `ray start --head`, or name one as job.address"
        ) from None


def _send(client: Any, patience: float = 60.0, **job: Any) -> str:
    """Submit; a cluster that has only just started has no agent for some seconds, and says so with a 500."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return str(client.submit_job(**job))
        except (RuntimeError, ValueError) as error:
            starting = "No available agent" in str(error)
            if not starting or time.monotonic() > deadline:
                # Two Rays on one machine want the same port for the agent that takes jobs; the second goes without.
                way_out = "; is another Ray on that machine? start it with --dashboard-agent-listen-port=0"
                line = " ".join(str(error).split())
                raise EndpointError(f"the cluster refuses the job: {line}{way_out if starting else ''}") from None
            time.sleep(1)


async def _tail(client: Any, job: str) -> None:
    async for text in client.tail_job_logs(job):
        sys.stdout.write(text)
        sys.stdout.flush()
