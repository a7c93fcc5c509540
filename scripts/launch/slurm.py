"""Kind `slurm`: a batch script that starts Ray over the nodes of its allocation."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from pipeline.errors import ConfigError, EndpointError, UsageError
from scripts.launch.settings import LaunchSettings
from scripts.launch.steps import Call, Step, Write, archive, need_variables, output

ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}

# Values of the settings are variables of the script, so that its text is the same for all of them.
_START = r"""
work=/tmp/speechchat-$SLURM_JOB_ID  # of each node; short, as sockets lie in it
log=$log-$SLURM_JOB_ID-ray.log
on_nodes=(srun --export=ALL --overlap --no-kill)
# Slurm starts no new step of a job that is cancelled, so that each step takes away what it made when it is told to end;
# the job itself tells the steps when it ends otherwise, and looks after them.
ray=
end() {
  trap '' TERM
  # shellcheck disable=SC2016  # expanded on the node
  "${on_nodes[@]}" --quiet bash -c '[ ! -e "$1/pid" ] || kill "$(cat "$1/pid")"' - "$work" 2>/dev/null || true
  for _ in {1..25}; do
    if [ -z "$ray" ] || ! kill -0 "$ray" 2>/dev/null; then break; fi
    sleep 1
  done
  "${on_nodes[@]}" --quiet rm -rf "$work" 2>/dev/null || true
}
trap end EXIT
PREPARE=$(cat <<'END'
set -eu
work=$1 python=$2 archive=$3
shift 3  # what is left are packages
trap 'exit 143' TERM
trap '[ "$?" = 0 ] || rm -rf "$work"' EXIT
rm -rf "$work"  # of a first try, where the job was requeued
mkdir -m 700 "$work"  # fails where somebody else made it: everybody may write to /tmp
mkdir "$work/code"
[ -z "$archive" ] || "$python" -m tarfile -e "$archive" "$work/code"
if [ "$#" -gt 0 ]; then
  "$python" -m venv "$work/venv"
  "$work/venv/bin/python" -m pip install -q --disable-pip-version-check -c "$work/code/constraints.txt" "$@"
fi
END
)
"${on_nodes[@]}" bash -c "$PREPARE" - "$work" "$python" "$archive" ${packages[@]+"${packages[@]}"}
[ -z "$archive" ] || { cd "$work/code"; export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}; }
[ "${#packages[@]}" = 0 ] || python=$work/venv/bin/python
# Other users reach these ports: Ray answers only who shows the token, which is in no file.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0  # Slurm kills 30 s after it told a job to end
head=$("$python" -c 'from ray.util import get_node_ip_address; print(get_node_ip_address())')
port=$((20000 + SLURM_JOB_ID % 10000))  # two jobs may share a node
export RAY_ADDRESS=$head:$port
NODE=$(cat <<'END'
work=$1 python=$2 port=$3 cpus=$4 gpus=$5 memory=$6 child=
stop() {
  trap '' TERM
  [ -z "$child" ] || kill "$child" 2>/dev/null
  for _ in {1..20}; do kill -0 "$child" 2>/dev/null || break; sleep 1; done
  exit 143
}
trap stop TERM
trap 'rm -rf "$work" 2>/dev/null || { sleep 2; rm -rf "$work"; }' EXIT  # Ray may still write its last lines
echo "$$" >"$work/pid"
ray() {
  "$python" -m ray.scripts.scripts start --block --num-cpus="$cpus" --num-gpus="$gpus" --memory="$memory" \
    --object-store-memory="$((memory / 10))" --dashboard-agent-listen-port=0 "$@" &
  child=$!
  wait "$child"
}
if [ "$SLURM_NODEID" = 0 ]; then
  address=$RAY_ADDRESS
  unset RAY_ADDRESS
  ray --head --node-ip-address="${address%:*}" --port="$port" --temp-dir="$work/ray" --include-dashboard=false
else
  until ray --address="$RAY_ADDRESS"; do sleep 5; done  # the head may come later; a raylet that dies comes back
fi
END
)
"${on_nodes[@]}" bash -c "$NODE" - "$work" "$python" "$port" "$cpus" "$gpus" "$memory" >"$log" 2>&1 &
ray=$!
"$python" - "$SLURM_JOB_NUM_NODES" <<'END'
import sys, time
import ray
deadline = time.monotonic() + 300
while True:
    try:
        ray.init(logging_level="error", log_to_driver=False)
        break
    except ConnectionError:
        if time.monotonic() > deadline:
            sys.exit("Ray did not start within 300 s; its log is beside this one")
        time.sleep(2)
while (alive := sum(node["Alive"] for node in ray.nodes())) < int(sys.argv[1]) and time.monotonic() < deadline:
    time.sleep(1)
print(f"Ray runs on {alive} of {sys.argv[1]} nodes", flush=True)
END
"$python" "${arguments[@]}" &
run=$!
trap 'kill "$run" 2>/dev/null' TERM  # near the end of the time: what is published stays, the next submission goes on
wait "$run" || status=$?
while kill -0 "$run" 2>/dev/null; do wait "$run" || status=$?; done  # a trap ends `wait` before the run has ended
exit "${status:-0}"
"""


class Slurm:
    """`sbatch`, with the code beside the script: what a waiting job will run does not change under it."""

    def __init__(self, settings: LaunchSettings):
        self._settings = settings
        if re.search(r"[\s%]", str(settings.folder)):
            raise ConfigError(f"folder: {str(settings.folder)!r}: sbatch takes no space and no % in it; name another")
        self._variables = {
            name: str(reference.variable) for name, reference in settings.references("slurm", "variable").items()
        }

    @cached_property
    def _code(self) -> Write | None:
        settings = self._settings
        if settings.working_dir is None:
            return None
        data = archive(settings.working_dir, settings.folder)
        return Write(settings.folder / f"{settings.name}-{hashlib.sha256(data).hexdigest()[:12]}.tar.gz", data)

    @property
    def _script(self) -> Path:
        return self._settings.folder / f"{self._settings.name}.sbatch"

    def render(self) -> str:
        settings = self._settings
        exported = ["HOME", "USER", "LANG", "PATH", *sorted(set(self._variables.values()))]
        options: dict[str, str | int] = {
            "job-name": settings.name,
            "nodes": settings.nodes,
            "ntasks-per-node": 1,
            "cpus-per-task": settings.cpus,
            "mem": f"{settings.memory}G",
            **({"gpus-per-node": settings.gpus} if settings.gpus else {}),
            "output": f"{settings.folder}/{settings.name}-%j.log",
            "chdir": str(settings.folder),
            "open-mode": "append",
            "requeue": "",
            "no-kill": "",  # a node that fails does not end the run
            "dependency": "singleton",  # submissions of one run follow one another, each goes on with it
            "signal": "B:TERM@120",
            "export": ",".join(exported),
            **settings.slurm.options,
        }
        archive = "" if self._code is None else str(self._code.path)
        lines = ["#!/bin/bash"]
        lines += [
            f"#SBATCH --{name}={value}" if value != "" else f"#SBATCH --{name}" for name, value in options.items()
        ]
        lines += ["set -eo pipefail", *settings.slurm.setup, "set -u"]  # many a `module` reads what is not set
        lines += [f'export {name}="${{{here}:?}}"' for name, here in sorted(self._variables.items())]
        lines += [
            f"python={shlex.quote(settings.python)} archive={shlex.quote(archive)}",
            f"packages=({shlex.join(settings.packages())})",
            f"cpus={settings.cpus} gpus={settings.gpus} memory={settings.memory * 2**30}",
            f"log={shlex.quote(str(settings.folder / settings.name))}",
            f"arguments=({shlex.join(settings.command()[1:])})",
        ]
        return "\n".join(lines) + _START

    def submit(self) -> list[Step]:
        code = [] if self._code is None else [self._code]
        script = Write(self._script, self.render().encode())
        return [need_variables(self._variables.values()), *code, script, Call(["sbatch", str(self._script)])]

    def stop(self) -> list[Step]:
        return [Call(["scancel", "--me", f"--name={self._settings.name}"])]

    def follow(self) -> int:
        job, place = self._job(), 0
        print(f"Slurm job {job}", flush=True)
        while True:
            fields = _fields(output(["scontrol", "--oneliner", "show", "job", job]))
            ended = fields["JobState"] in ENDED
            place = _print_from(Path(fields["StdOut"]), place)
            if ended:
                break
            time.sleep(2)
        print(f"{job}: {fields['JobState']}", flush=True)
        return _status(fields)

    def _job(self) -> str:
        """The first of this name that has not ended, else the last: Slurm remembers it for some minutes."""
        words = ["squeue", "--me", "--noheader", "--states=all", "--format=%i %T", f"--name={self._settings.name}"]
        rows = sorted((int(job), state) for job, state in map(str.split, output(words).splitlines()))
        if not rows:
            raise UsageError(f"Slurm knows no job {self._settings.name!r} of yours; submit it first")
        return str(next((job for job, state in rows if state not in ENDED), rows[-1][0]))


def _fields(line: str) -> Mapping[str, str]:
    """Of `scontrol --oneliner show job`."""
    fields = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))
    if not {"JobState", "StdOut", "ExitCode"} <= fields.keys():
        raise EndpointError(f"scontrol answers {line[:200]!r}, which names no state")
    return fields


def _status(fields: Mapping[str, str]) -> int:
    """ExitCode is STATUS:SIGNAL; a job that timed out or lost its node may have 0:0."""
    code, signal = map(int, fields["ExitCode"].split(":"))
    return code or (128 + signal if signal else int(fields["JobState"] != "COMPLETED"))


def _print_from(path: Path, place: int) -> int:
    """Print what a log has after `place`, in bytes. Returns where it ends now."""
    if not path.is_file():
        return place
    with path.open("rb") as log:
        log.seek(place)
        sys.stdout.write(log.read().decode("utf-8", "replace"))
        sys.stdout.flush()
        return log.tell()
