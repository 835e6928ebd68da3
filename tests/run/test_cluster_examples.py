"""The examples of clusters: what they say can be read, and the commands in them exist."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

import studies
from hpo.cli.main import build
from hpo.study import Run

HOME = Path(studies.__file__).parent / "cluster"
DOCS = Path(__file__).parents[2] / "docs" / "cluster.md"
EXAMPLES = (HOME / "kuberay.yaml", HOME / "slurm.sh", DOCS)


def manifests() -> list[Any]:
    return list(yaml.safe_load_all((HOME / "kuberay.yaml").read_text()))


def containers(of: Any) -> Iterator[dict[str, Any]]:
    """Yield every container below a node of a manifest."""
    if isinstance(of, dict):
        yield from of.get("containers", ())
    for below in of.values() if isinstance(of, dict) else of if isinstance(of, list) else ():
        yield from containers(below)


def commands(path: Path) -> list[str]:
    """Return the lines of a file that call hpo, without comments behind them."""
    text = path.read_text().replace("\\\n", " ")
    found = re.findall(r"(?:^|#|entrypoint:|`|-- )\s*(hpo [a-z][^`\n]*)", text, flags=re.MULTILINE)
    return [line.split("  #")[0].split("    #")[0].strip(" &") for line in found]


def test_each_example_has_commands_to_check() -> None:
    assert [len(commands(path)) for path in EXAMPLES] >= [2, 2, 6]


@pytest.mark.parametrize("line", [line for path in EXAMPLES for line in commands(path)])
def test_every_command_in_the_examples_parses(line: str) -> None:
    line = re.sub(r"\$\(\([^)]*\)\)", "8", line)
    command: Any = typer.main.get_command(build())
    name, *arguments = shlex.split(line)[1:]
    with click.Context(command) as context:
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name!r}"
        found.make_context(name, arguments, parent=context)


def test_every_part_of_the_cluster_has_the_store_the_shared_place_and_a_token() -> None:
    job, policy = manifests()
    assert (job["kind"], policy["kind"]) == ("RayJob", "NetworkPolicy")
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    found = list(containers(job))
    assert len(found) == 3
    for container in found:
        names = {entry["name"]: entry for entry in container["env"]}
        assert {"HPO_STORAGE", "HPO_SHARED", "HPO_CACHE"} <= set(names)
        assert "value" not in names["HPO_STORAGE"], "it holds a password"


def test_nothing_in_the_examples_opens_a_port_to_everybody() -> None:
    for path in EXAMPLES:
        assert "0.0.0.0" not in path.read_text()
        assert "RAY_AUTH_MODE=token" in path.read_text() or "mode: token" in path.read_text()


def test_the_lane_of_the_example_is_one_and_asks_for_what_its_nodes_offer() -> None:
    text = (HOME / "kuberay.yaml").read_text()
    (line,) = re.findall(r"#\s+run: (.*)", text)
    run = Run.model_validate(yaml.safe_load(line))
    groups = manifests()[0]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    offered = next(g for g in groups if g["groupName"] == "target")["rayStartParams"]["resources"]
    assert yaml.safe_load(yaml.safe_load(offered)) == run.lanes["time"].resources


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_slurm_script_is_a_script() -> None:
    checked = subprocess.run(["bash", "-n", HOME / "slurm.sh"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_symmetric_run_takes_what_the_script_gives_it() -> None:
    from ray.scripts.symmetric_run import symmetric_run

    text = (HOME / "slurm.sh").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"ray symmetric-run ([^&]*)", text)
    context = symmetric_run.make_context("symmetric-run", shlex.split(line), resilient_parsing=True)
    assert context.params["address"] == "$HEAD:$PORT"
    rest = list(context.params["ray_args_and_entrypoint"])
    assert "hpo" in rest
    for refused in ("--head", "--port", "--block", "--node-ip-address"):
        assert refused not in rest
