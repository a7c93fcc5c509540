"""scripts/launch: one settings file, rendered for each kind of cluster. tests/e2e/test_launch.py submits for real."""

from __future__ import annotations

import io
import shlex
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from pipeline.errors import ConfigError
from scripts.launch.kuberay import Kuberay
from scripts.launch.ray_job import RayJob
from scripts.launch.ray_up import RayUp
from scripts.launch.settings import ROOT
from scripts.launch.slurm import Slurm
from scripts.launch.steps import archive
from tests.scripts.launch_settings import KINDS, SECRET, launch, settings, write

RUN = "-m pipeline.cli run quickstart --out /shared/runs/trial --set dialogues=6400 --set unit_size=64"


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_says_all_and_does_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "MY_KEY", "NODE_KEY"):
        monkeypatch.setenv(name, SECRET)
    done = launch(kind, write(tmp_path / "s.yaml"), "--dry-run")
    assert done.exit_code == 0, done.output
    assert RUN in " ".join(done.output.split())
    stopped = launch(kind, tmp_path / "s.yaml", "stop", "--dry-run")
    assert stopped.exit_code == 0 and "trial" in stopped.output
    file = launch(kind, tmp_path / "s.yaml", "--out", tmp_path / "rendered")
    assert file.exit_code == 0
    rendered = (tmp_path / "rendered").read_text()
    assert all(line.strip() in done.output for line in rendered.splitlines())
    assert SECRET not in done.output + stopped.output + rendered
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rendered", "s.yaml"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_is_good_for_every_kind(kind: str) -> None:
    assert launch(kind, ROOT / "scripts" / "launch" / "example.yaml", "--dry-run").exit_code == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nods": 2}, "unknown key 'nods'; did you mean 'nodes'?"),
        ({"ssh": {"haed": "a"}}, "unknown key 'ssh.haed'; did you mean 'head'?"),
        ({"env": {"A": {"varable": "B"}}}, "unknown key 'env.A.varable'; did you mean 'variable'?"),
        ({"env": {"A": {"secret": "s"}}}, "env.A: a secret is named by secret and key"),
        ({"env": {"A": {}}}, "env.A: name a variable"),
        ({"out": "runs/demo"}, "name an absolute path or a URL"),
        ({"name": "Demo run"}, "name: "),
        ({"nodes": 0}, "nodes: "),
        ({"working_dir": None, "install": []}, "install: constraints.txt is taken from working_dir"),
        ({"working_dir": "no/such"}, "is no folder"),
        ({"config": "quikstart"}, "config: 'quikstart' is no preset"),
        ({"set": ["dialoges=2"]}, "did you mean 'dialogues'?"),
        ({"slurm": {"options": {"time": "1\n#SBATCH --uid=root"}}}, "slurm.options.time"),
        ({"slurm": {"options": {"time": 86400}}}, "slurm: options.time: write it in quotes, '24:00:00'"),
        ({"ssh": {"user": "-oProxyCommand=id"}}, "ssh.user"),
        ({"config": "../run.yaml"}, "config: '../run.yaml' is no preset"),
        ({"config": "tests/text/select.en.yaml"}, "is not shipped to the nodes, for 'tests' in it; move it"),
    ],
)
def test_bad_settings_are_one_line_with_the_way_out(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    done = launch("job", write(tmp_path / "s.yaml", **changes), "--dry-run")
    assert done.exit_code == 2
    assert done.stderr.startswith("launch: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_value_in_place_of_a_reference_is_refused_unseen(tmp_path: Path) -> None:
    done = launch("slurm", write(tmp_path / "s.yaml", env={"OPENAI_API_KEY": SECRET}), "--dry-run")
    assert done.exit_code == 2
    assert "{variable: OPENAI_API_KEY}, never the value" in done.stderr and SECRET not in done.output
    done = launch("slurm", write(tmp_path / "s.yaml", env={"OPENAI_API_KEY": {"variable": SECRET}}), "--dry-run")
    assert done.exit_code == 2 and SECRET not in done.output


@pytest.mark.parametrize(
    ("kind", "reference", "wanted"),
    [
        ("job", {"variable": "A"}, "node: NAME"),
        ("kuberay", {"variable": "A"}, "secret: NAME, key: KEY"),
        ("slurm", {"node": "A"}, "variable: NAME"),
        ("ssh", {"secret": "a", "key": "b"}, "variable: NAME"),
    ],
)
def test_a_reference_that_the_kind_cannot_pass_on_is_refused(
    kind: str, reference: dict[str, str], wanted: str, tmp_path: Path
) -> None:
    done = launch(kind, write(tmp_path / "s.yaml", env={"KEY": reference}), "--dry-run")
    assert done.exit_code == 2 and "env.KEY" in done.stderr and wanted in done.stderr


def test_a_job_asks_the_nodes_for_their_variables(tmp_path: Path) -> None:
    request = RayJob(settings(tmp_path)).request()
    entry, environment = request["entrypoint"], request["runtime_env"]
    assert environment["env_vars"] == {"OPENAI_API_KEY": "${NODE_KEY}"}
    assert environment["working_dir"] == str(ROOT) and ".git" in environment["excludes"] and "pip" not in environment
    # As Ray does: through a shell of the head node.
    missing = subprocess.run(["bash", "-c", entry], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert missing.returncode == 2 and missing.stderr == "NODE_KEY: not set on the head node\n"
    entry = entry.replace("/opt/venv/bin/python", "echo")
    there = subprocess.run(["bash", "-c", entry], capture_output=True, text=True, env={"NODE_KEY": "x"})
    assert there.stdout.strip() == RUN


def test_what_is_installed_is_pinned(tmp_path: Path) -> None:
    pip = RayJob(settings(tmp_path, install=["embedded"])).request()["runtime_env"]["pip"]
    assert pip[0] == "--constraint ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/constraints.txt"
    assert any(item.startswith("ray[default]==") for item in pip) and any("faster-whisper==" in item for item in pip)
    assert all("==" in item for item in pip[1:])
    with pytest.raises(ConfigError, match=r"no extra 'embeded'; it has .*embedded"):
        RayJob(settings(tmp_path, install=["embeded"]))


def test_a_rayjob_has_what_kuberay_reads(tmp_path: Path) -> None:
    """Fields of the operator's RayJob, ray.io/v1, and of the pods in it."""
    manifest = yaml.safe_load(Kuberay(settings(tmp_path, install=[])).render())
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    assert manifest["metadata"] == {"name": "trial", "namespace": "lab"}
    spec = manifest["spec"]
    known = {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec", "runtimeEnvYAML"}
    assert spec.keys() == known
    assert shlex.split(spec["entrypoint"]) == ["/opt/venv/bin/python", *shlex.split(RUN)]
    assert spec["shutdownAfterJobFinishes"] is True and isinstance(spec["ttlSecondsAfterFinished"], int)
    pip = yaml.safe_load(spec["runtimeEnvYAML"])["pip"]
    assert pip[0] == "--constraint /opt/speechchat/constraints.txt" and len(pip) > 10
    cluster = spec["rayClusterSpec"]
    assert cluster.keys() == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert cluster["headGroupSpec"].keys() == {"rayStartParams", "template"}
    (workers,) = cluster["workerGroupSpecs"]
    counted = {name: workers.pop(name) for name in ("replicas", "minReplicas", "maxReplicas")}
    assert set(counted.values()) == {2}
    assert workers.keys() == {"groupName", "rayStartParams", "template"}
    for group in (cluster["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,), (unpack,) = pod["containers"], pod["initContainers"]
        size = {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"}
        assert container["resources"] == {"requests": size, "limits": size}
        key = {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "speech", "key": "openai"}}}
        assert container["env"] == [key, {"name": "PYTHONPATH", "value": "/opt/speechchat"}]
        mounted = {mount["name"] for mount in container["volumeMounts"] + unpack["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert {"claimName": "shared-claim"} in [volume.get("persistentVolumeClaim") for volume in pod["volumes"]]
        assert container["image"] == unpack["image"] == "speechchat:0.1"


def test_a_folder_that_pods_cannot_see_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"out: .*one pod.*kuberay\.claims"):
        Kuberay(settings(tmp_path, out="/elsewhere/run"))
    Kuberay(settings(tmp_path, out="s3://bucket/run", kuberay={"image": "i"}))
    with pytest.raises(ConfigError, match=r"kuberay\.image"):
        Kuberay(settings(tmp_path, kuberay={}))


def test_a_batch_script_is_shell_with_the_directives(tmp_path: Path) -> None:
    script = Slurm(settings(tmp_path, install=["embedded"])).render()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    head = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]
    # sbatch stops to read directives at the first command.
    assert script.splitlines()[1 : 1 + len(head)] == [f"#SBATCH {line}" for line in head]
    wanted = {"--job-name=trial", "--nodes=3", "--cpus-per-task=4", "--mem=8G", "--gpus-per-node=1", "--time=1:00:00"}
    assert wanted | {"--requeue", "--no-kill", "--dependency=singleton"} <= set(head)
    (exported,) = (line for line in head if line.startswith("--export="))
    assert exported.removeprefix("--export=").split(",")[-1] == "MY_KEY" and "ALL" not in exported
    assert 'export OPENAI_API_KEY="${MY_KEY:?}"' in script
    assert "/constraints.txt" in script and "'ray[default]==" in script and "\nmodule load cuda\n" in script
    done = launch("slurm", write(tmp_path / "s.yaml", folder="a b"), "--dry-run")
    assert done.exit_code == 2 and "sbatch takes no space and no % in it; name another" in done.stderr


def test_ray_takes_the_file_of_its_launcher(tmp_path: Path) -> None:
    """Ray's own validation, as `ray up` does it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    for install in (None, ["embedded"]):
        cluster = yaml.safe_load(RayUp(settings(tmp_path, install=install)).render())
        prepared = prepare_config(cluster)
        validate_config(prepared)
        (node_type,) = prepared["available_node_types"].values()
        assert node_type["min_workers"] == node_type["max_workers"] == 2
        start = prepared["head_start_ray_commands"][-1]
        assert ". ~/.speechchat/trial/env; " in start and "--dashboard-host=127.0.0.1" in start
    assert "constraints.txt" in " ".join(prepared["file_mounts"]) and "pip install" in prepared["setup_commands"][-1]
    with pytest.raises(ConfigError, match=r"nodes: 3, but ssh names 1"):
        RayUp(settings(tmp_path, ssh={"head": "a"}))


def test_the_code_is_packed_to_the_same_bytes_without_what_stays_at_home(tmp_path: Path) -> None:
    for name in ("pipeline/a.py", ".git/x", "runs/b.tar", "pipeline/__pycache__/a.pyc", ".env", "key.pem", "mine/c"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    first = archive(tmp_path, tmp_path / "mine")
    (tmp_path / "pipeline" / "a.py").touch()
    assert archive(tmp_path, tmp_path / "mine") == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert tar.getnames() == ["pipeline/a.py"]
    (tmp_path / "pipeline" / "a.py").write_text("changed")
    assert archive(tmp_path, tmp_path / "mine") != first
