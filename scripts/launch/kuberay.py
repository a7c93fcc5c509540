"""Kind `kuberay`: a RayJob, which makes a cluster, runs in it and takes it away."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Container
from copy import deepcopy
from functools import cached_property
from importlib.metadata import version
from typing import Any

import yaml

from pipeline.errors import ConfigError, UsageError
from scripts.launch.ray_job import status_in
from scripts.launch.settings import LaunchSettings
from scripts.launch.steps import Action, Call, Step, Write, archive, output

CODE = "/opt/speechchat"  # of the code in each pod
LARGEST = 1_000_000  # bytes of code; a ConfigMap holds 1 MiB
ENDED = {"Complete", "Failed"}


class Kuberay:
    """The code travels as a ConfigMap and is unpacked in each pod before Ray starts there."""

    def __init__(self, settings: LaunchSettings):
        self._settings = settings
        claims = settings.kuberay.claims
        if settings.kuberay.image == "none":
            raise ConfigError("kuberay.image: name the image of the pods")
        if "://" not in settings.out and not any(settings.out.startswith(f"{path.rstrip('/')}/") for path in claims):
            raise ConfigError(
                f"out: {settings.out} is a folder of one pod; name a URL, or mount shared storage there: "
                "kuberay.claims={/shared: CLAIM}"
            )
        self._env: list[dict[str, Any]] = [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": reference.secret, "key": reference.key}}}
            for name, reference in sorted(settings.references("kuberay", "secret").items())
        ]
        self._kubectl = ["kubectl", f"--namespace={settings.kuberay.namespace}"]

    @cached_property
    def _code(self) -> Write | None:
        settings = self._settings
        if settings.working_dir is None:
            return None
        data = archive(settings.working_dir, settings.folder)
        if len(data) > LARGEST:
            raise ConfigError(
                f"working_dir: {len(data)} bytes of code, packed, and a ConfigMap takes {LARGEST}; "
                "put the code into the image and set working_dir: null"
            )
        return Write(settings.folder / f"{settings.name}-code.tar.gz", data)

    def manifest(self) -> dict[str, Any]:
        """The RayJob, of API ray.io/v1."""
        settings = self._settings
        spec: dict[str, Any] = {
            "entrypoint": shlex.join(settings.command()),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 300,
            "rayClusterSpec": {
                "rayVersion": version("ray"),
                "headGroupSpec": {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": self._pod("ray-head")},
            },
        }
        if workers := settings.nodes - 1:
            group = {
                "groupName": "workers",
                "replicas": workers,
                "minReplicas": workers,
                "maxReplicas": workers,
                "rayStartParams": {},
                "template": self._pod("ray-worker"),
            }
            spec["rayClusterSpec"]["workerGroupSpecs"] = [group]
        if packages := settings.packages():
            pip = [f"--constraint {CODE}/constraints.txt", *packages]
            spec["runtimeEnvYAML"] = yaml.safe_dump({"pip": pip}, sort_keys=False, width=120)
        metadata = {"name": settings.name, "namespace": settings.kuberay.namespace}
        return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}

    def _pod(self, name: str) -> dict[str, Any]:
        settings = self._settings
        size: dict[str, str] = {"cpu": str(settings.cpus), "memory": f"{settings.memory}Gi"}
        if settings.gpus:
            size["nvidia.com/gpu"] = str(settings.gpus)
        claims = sorted(settings.kuberay.claims.items())
        mounts = [{"name": f"claim-{place}", "mountPath": path} for place, (path, _) in enumerate(claims)]
        volumes: list[dict[str, Any]] = [
            {"name": f"claim-{place}", "persistentVolumeClaim": {"claimName": claim}}
            for place, (_, claim) in enumerate(claims)
        ]
        container: dict[str, Any] = {
            "name": name,
            "image": settings.kuberay.image,
            "resources": {"requests": size, "limits": dict(size)},
            "env": deepcopy(self._env),  # YAML would join what is one object
            "volumeMounts": mounts,
        }
        pod: dict[str, Any] = {"containers": [container], "volumes": volumes}
        if settings.working_dir is not None:
            code = {"name": "code", "mountPath": CODE}
            mounts.append(code)
            volumes.append({"name": "code", "emptyDir": {}})
            volumes.append({"name": "packed", "configMap": {"name": f"{settings.name}-code"}})
            container["env"].append({"name": "PYTHONPATH", "value": CODE})
            container["workingDir"] = CODE
            unpack = {
                "name": "unpack",
                "image": settings.kuberay.image,
                "command": [settings.python, "-m", "tarfile", "-e", "/packed/code.tar.gz", CODE],
                "volumeMounts": [dict(code), {"name": "packed", "mountPath": "/packed"}],
            }
            pod["initContainers"] = [unpack]
        return {"spec": pod}

    def render(self) -> str:
        return yaml.safe_dump(self.manifest(), sort_keys=False, width=120)

    def submit(self) -> list[Step]:
        name, folder = self._settings.name, self._settings.folder
        steps: list[Step] = [Action(f"refuse if rayjob/{name} is there and has not ended", self._refuse_if_live)]
        steps.append(Call([*self._kubectl, "delete", f"rayjob/{name}", "--ignore-not-found"]))
        if self._code is not None:
            packed = f"configmap/{name}-code"
            steps += [self._code, Call([*self._kubectl, "delete", packed, "--ignore-not-found"])]
            source = f"--from-file=code.tar.gz={self._code.path}"
            steps.append(Call([*self._kubectl, "create", "configmap", f"{name}-code", source]))
        file = folder / f"{name}.rayjob.yaml"
        return [*steps, Write(file, self.render().encode()), Call([*self._kubectl, "create", f"--filename={file}"])]

    def stop(self) -> list[Step]:
        names = [f"rayjob/{self._settings.name}"]
        if self._settings.working_dir is not None:
            names.append(f"configmap/{self._settings.name}-code")
        return [Call([*self._kubectl, "delete", *names, "--ignore-not-found"])]

    def follow(self) -> int:
        if self._status() is None:
            raise UsageError(f"there is no rayjob/{self._settings.name}; submit it first")
        if self._until({"Running", *ENDED}) is not None:
            # The pod that submits has the log of the run; it is kept until the RayJob is deleted.
            Call([*self._kubectl, "logs", "--follow", f"job/{self._settings.name}"]).do()
        status = self._until(ENDED)
        if status is None:
            raise UsageError(f"rayjob/{self._settings.name} was deleted: the run was stopped; submit it again to go on")
        print(f"{self._settings.name}: {status.get('jobStatus', status['jobDeploymentStatus'])}", flush=True)
        if status.get("jobStatus") == "SUCCEEDED":
            return 0
        print(f"launch: {status.get('message', status.get('reason', ''))}", file=sys.stderr)
        return status_in(status.get("message"))

    def _until(self, states: Container[str]) -> dict[str, Any] | None:
        """Wait for one of these; each other one is said once. Returns null if the RayJob is deleted."""
        said = ""
        while (status := self._status()) is not None:
            state = status.get("jobDeploymentStatus", "Submitted")
            if state in states:
                break
            if state != said:
                print(f"rayjob/{self._settings.name}: {state}", file=sys.stderr, flush=True)
                said = state
            time.sleep(2)
        return status

    def _refuse_if_live(self) -> None:
        status = self._status()
        if status is not None and status.get("jobDeploymentStatus") not in ENDED:
            raise UsageError(f"rayjob/{self._settings.name} has not ended: follow it, or stop it and submit again")

    def _status(self) -> dict[str, Any] | None:
        """Of the RayJob; null if there is none."""
        name = f"rayjob/{self._settings.name}"
        text = output([*self._kubectl, "get", name, "--ignore-not-found", "--output=json"])
        return json.loads(text).get("status", {}) if text.strip() else None
