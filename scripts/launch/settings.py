"""The settings of a launch: one small YAML file for all kinds."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, model_validator

from pipeline.config import all_keys, load_config, parse_yaml, preset_names
from pipeline.errors import ConfigError
from pipeline.sections import Section
from scripts.launch.steps import skipped

ROOT = Path(__file__).resolve().parents[2]

# What a Kubernetes label, a file name and a job name all take; a RayJob makes names of its own of at most 47 letters.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Word = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f]+$")]  # one word of a command or a directive
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_\[][^\s@/]*$")]  # no option of ssh
NodePath = Annotated[str, StringConstraints(pattern=r"^/[^\s,:]*$")]


class Reference(Section):
    """Where the value of an environment variable is found; the value itself is in no file."""

    variable: Variable | None = Field(None, description="of the environment of who launches: slurm, ssh")
    secret: Name | None = Field(None, description="a secret of Kubernetes: kuberay")
    key: Word | None = Field(None, description="of the secret")
    node: Variable | None = Field(None, description="set on the nodes before Ray is started there: job")

    @model_validator(mode="after")
    def _check(self) -> Reference:
        if (self.secret is None) != (self.key is None):
            raise ValueError("a secret is named by secret and key")
        if not (self.variable or self.secret or self.node):
            raise ValueError("name a variable, a secret and its key, or a node's variable")
        return self


class JobSettings(Section):
    """A Ray cluster that is there already."""

    address: Word = Field("http://127.0.0.1:8265", description="its dashboard")


class KuberaySettings(Section):
    """Kubernetes with the KubeRay operator."""

    namespace: Name = "default"
    image: Word = Field(
        "none", description="holds Python, Ray of the pinned version and, without install, the packages"
    )
    claims: dict[NodePath, Name] = Field({}, description="persistent volume claims, by the path they are mounted at")


class SlurmSettings(Section):
    options: dict[Annotated[str, StringConstraints(pattern=r"^[a-z][-a-z]*$")], Word | int] = Field(
        {}, description="further options of sbatch: {time: '24:00:00', partition: gpu}"
    )
    setup: tuple[str, ...] = Field(
        (), description="lines of shell at the top: [. /etc/profile, module load python/3.11]"
    )

    @model_validator(mode="after")
    def _check(self) -> SlurmSettings:
        for name, value in self.options.items():
            if isinstance(value, int) and name.startswith(("time", "begin", "deadline")):
                raise ValueError(f"options.{name}: write it in quotes, '24:00:00': YAML reads 24:00:00 as 86400")
        return self


class SshSettings(Section):
    """Machines that are reached by ssh; `ray up` makes a cluster of them."""

    user: Host = "ubuntu"
    key: Path | None = Field(None, description="private key file; ssh's own if null")
    head: Host = Field("none", description="its address; the others are the workers")
    workers: tuple[Host, ...] = ()


class LaunchSettings(Section):
    """The whole file. Sizes are of one node; memory in GiB."""

    name: Name
    config: Word
    out: Word
    set: tuple[str, ...] = ()
    nodes: int = Field(1, ge=1)
    cpus: int = Field(1, ge=1)
    gpus: int = Field(0, ge=0)
    memory: int = Field(4, ge=1)
    python: Word = Field("python", description="Python of the nodes")
    install: tuple[Word, ...] | None = Field(
        None, description="extras to install on the nodes, at the pins of constraints.txt; null: nothing is installed"
    )
    working_dir: Path | None = Field(ROOT, description="the code, shipped to the nodes; null: they have it installed")
    folder: Path = Field(Path("runs/launch"), description="of rendered files; slurm: seen by all nodes")
    env: dict[Variable, Reference] = Field({})
    job: JobSettings = JobSettings()
    kuberay: KuberaySettings = KuberaySettings()
    slurm: SlurmSettings = SlurmSettings()
    ssh: SshSettings = SshSettings()

    @model_validator(mode="after")
    def _check(self) -> LaunchSettings:
        if "://" not in self.out and not PurePosixPath(self.out).is_absolute():
            raise ValueError(f"out: {self.out!r} is another folder on each node; name an absolute path or a URL")
        if self.install is not None and self.working_dir is None:
            raise ValueError("install: constraints.txt is taken from working_dir, which is null")
        return self

    def command(self) -> list[str]:
        """What runs on the head node."""
        words = [self.python, "-m", "pipeline.cli", "run", self.config, "--out", self.out]
        return words + [word for setting in self.set for word in ("--set", setting)]

    def references(self, kind: str, field: str) -> dict[str, Reference]:
        """The variables of `env`, each with `field`, the only reference that this kind can pass on."""
        for name, reference in self.env.items():
            if getattr(reference, field) is None:
                raise ConfigError(f"env.{name}: {kind} passes on {_TAKES[field]}; add it, or leave {name} out")
        return self.env

    def packages(self) -> list[str]:
        """Requirements of pyproject.toml with the extras of `install`, all of them pinned."""
        if self.install is None or self.working_dir is None:
            return []
        path = self.working_dir / "pyproject.toml"
        try:
            project = tomllib.loads(path.read_text("utf-8"))["project"]
        except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: no project to install ({error}); set working_dir, or install: null") from None
        extras = project.get("optional-dependencies", {})
        for extra in self.install:
            if extra not in extras:
                raise ConfigError(f"install: {path} has no extra {extra!r}; it has {', '.join(sorted(extras))}")
        return sorted({*project["dependencies"], *(item for extra in self.install for item in extras[extra])})


_TAKES = {
    "variable": "a variable of your environment (variable: NAME)",
    "secret": "a secret of Kubernetes (secret: NAME, key: KEY), made with `kubectl create secret generic NAME "
    "--from-env-file=FILE`",
    # What a job is sent, Ray writes into the logs of its nodes and shows on its dashboard.
    "node": "what the nodes have (node: NAME), set there before `ray start`: Ray logs what it is sent with a job",
}


def load_settings(path: Path) -> LaunchSettings:
    """Read and check a settings file, the run's configuration with it. Raises ConfigError with one line."""
    try:
        data = parse_yaml(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable ({error}); copy scripts/launch/example.yaml") from None
    try:
        settings = LaunchSettings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_explain(item) for item in error.errors())) from None
    here = path.resolve().parent
    update: dict[str, Any] = {"folder": here / settings.folder.expanduser()}
    if settings.working_dir is not None:
        update["working_dir"] = here / settings.working_dir.expanduser()
        if not update["working_dir"].is_dir():
            raise ConfigError(f"{path}: working_dir: {update['working_dir']} is no folder")
    settings = settings.model_copy(update=update)
    _check_run(path, settings)
    return settings


def _check_run(path: Path, settings: LaunchSettings) -> None:
    """What can be known here of the run's configuration; an absolute path may be one that only the nodes see."""
    name = settings.config
    if name not in preset_names() and not (Path(name).is_absolute() and not Path(name).exists()):
        file = (settings.working_dir or Path("/")) / name
        if not file.is_file():
            raise ConfigError(
                f"{path}: config: {name!r} is no preset ({', '.join(preset_names())}) and no file of working_dir"
            )
        left = [] if Path(name).is_absolute() else [part for part in Path(name).parts if part == ".." or skipped(part)]
        if left:
            raise ConfigError(f"{path}: config: {name} is not shipped to the nodes, for {left[0]!r} in it; move it")
        name = str(file)
    if name in preset_names() or Path(name).is_file():
        load_config(name, settings.set)


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"] if part != "[key]")
    if key.startswith("env.") and item["type"] == "model_type":  # whatever stands there may be the secret itself
        return f"{key}: write where the value is found, for example {{variable: {key[4:]}}}, never the value"
    if item["type"] == "extra_forbidden":
        prefix, _, last = key.rpartition(".")
        known = [name for name in all_keys(LaunchSettings) if name.rpartition(".")[0] in (prefix, _starred(prefix))]
        near = difflib.get_close_matches(last, [name.rpartition(".")[2] for name in known], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(n.rpartition('.')[2] for n in known)}"
        return f"unknown key {key!r}; {hint}"
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if key.startswith("env") or isinstance(item["input"], dict) else f" (it is {item['input']!r})"
    return f"{key}: {message}{shown}" if key else message


def _starred(prefix: str) -> str:
    return "env.*" if prefix.startswith("env.") else prefix
