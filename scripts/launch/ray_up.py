"""Kind `ssh`: `ray up` makes a cluster of machines that are reached by ssh; the run is a Ray job through a tunnel."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import yaml

from pipeline.errors import ConfigError, EndpointError, UsageError
from scripts.launch.ray_job import RayJob
from scripts.launch.settings import LaunchSettings
from scripts.launch.steps import Call, Step, Write, need_variables

DASHBOARD = 8265


class RayUp:
    """Values of variables go through ssh into a file of each node that only its user reads, until `stop`."""

    def __init__(self, settings: LaunchSettings):
        self._settings = settings
        ssh = settings.ssh
        if ssh.head == "none":
            raise ConfigError("ssh.head: name the machine that becomes the head, and the others as ssh.workers")
        if settings.nodes != 1 + len(ssh.workers):
            raise ConfigError(f"nodes: {settings.nodes}, but ssh names {1 + len(ssh.workers)} machines")
        references = settings.references("ssh", "variable")
        self._variables = {name: str(reference.variable) for name, reference in references.items()}
        self._home = f".speechchat/{settings.name}"  # under the user's home on each node
        own = settings if settings.install is None else settings.model_copy(update={"python": "python"})
        self._job = RayJob(own, self._tunnel)

    def cluster(self) -> dict[str, Any]:
        """The file of the cluster launcher, provider `local`."""
        settings, ssh = self._settings, self._settings.ssh
        constraints = f"~/{self._home}/constraints.txt"
        venv, mounts, setup, ray = (
            f"~/{self._home}/venv",
            {},
            [],
            f"{shlex.quote(settings.python)} -m ray.scripts.scripts",
        )
        if settings.install is not None and settings.working_dir is not None:
            mounts = {constraints: str(settings.working_dir / "constraints.txt")}
            setup = [
                f"[ -x {venv}/bin/python ] || {shlex.quote(settings.python)} -m venv {venv}",
                f"{venv}/bin/python -m pip install -q -c {constraints} {shlex.join(settings.packages())}",
            ]
            ray = f"export PATH={venv}/bin:$PATH; python -m ray.scripts.scripts"  # the job finds its Python there
        size = f"--num-cpus={settings.cpus} --num-gpus={settings.gpus} --memory={settings.memory * 2**30}"
        # A worker, unlike a head, shows a token that it has only when it is told to.
        token = '[ -z "${RAY_AUTH_TOKEN-}" ] || export RAY_AUTH_MODE=token; '
        start = (f". ~/{self._home}/env; {token}" if self._variables else "") + f"{ray} start {size}"
        return {
            "cluster_name": settings.name,
            "provider": {"type": "local", "head_ip": ssh.head, "worker_ips": list(ssh.workers)},
            "auth": {"ssh_user": ssh.user, **({"ssh_private_key": str(ssh.key.expanduser())} if ssh.key else {})},
            "file_mounts": mounts,
            "setup_commands": setup,
            "head_start_ray_commands": [
                f"{ray} stop",
                f"{start} --head --port=6379 --dashboard-host=127.0.0.1 --dashboard-port={DASHBOARD} "
                "--autoscaling-config=~/ray_bootstrap_config.yaml",
            ],
            "worker_start_ray_commands": [f"{ray} stop", f"{start} --address=$RAY_HEAD_IP:6379"],
            "metadata": {"ray": version("ray")},
        }

    def render(self) -> str:
        return yaml.safe_dump(self.cluster(), sort_keys=False, width=120)

    def submit(self) -> list[Step]:
        file = self._settings.folder / f"{self._settings.name}.ray.yaml"
        steps: list[Step] = [need_variables(self._variables.values()), self._job.refuse_if_live()]
        if self._variables:
            script = f"umask 077 && mkdir -p {self._home} && cat > {self._home}/env"
            steps += [Call([*self._ssh(host), script], self._variables) for host in self._hosts]
        up = Call(["ray", "up", "--yes", str(file)])
        return [*steps, Write(file, self.render().encode()), up, *self._job.submit()]

    def stop(self) -> list[Step]:
        file = self._settings.folder / f"{self._settings.name}.ray.yaml"
        steps = self._job.stop()
        if self._variables:
            steps += [Call([*self._ssh(host), f"rm -f {self._home}/env"]) for host in self._hosts]
        return [*steps, Write(file, self.render().encode()), Call(["ray", "down", "--yes", str(file)])]

    def follow(self) -> int:
        return self._job.follow()

    @property
    def _hosts(self) -> tuple[str, ...]:
        return (self._settings.ssh.head, *self._settings.ssh.workers)

    def _ssh(self, host: str, *options: str) -> list[str]:
        ssh = self._settings.ssh
        key = ["-i", str(ssh.key.expanduser())] if ssh.key else []
        return ["ssh", "-o", "BatchMode=yes", *key, *options, f"{ssh.user}@{host}"]

    @contextlib.contextmanager
    def _tunnel(self) -> Iterator[str]:
        """The dashboard listens on the head's loopback only; ssh brings it here."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        options = ("-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:127.0.0.1:{DASHBOARD}")
        words = self._ssh(self._settings.ssh.head, *options)
        try:
            tunnel = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        except FileNotFoundError:
            raise UsageError("ssh: not installed here; launch from a machine that has it") from None
        try:
            _wait_for(port, tunnel, self._settings.ssh.head)
            yield f"http://127.0.0.1:{port}"
        finally:
            tunnel.terminate()
            tunnel.wait()


def _wait_for(port: int, tunnel: subprocess.Popen[bytes], host: str) -> None:
    deadline = time.monotonic() + 30
    while tunnel.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
            return
        time.sleep(0.2)
    raise EndpointError(f"ssh.head: no tunnel to the dashboard on {host}; the words of ssh are above")
