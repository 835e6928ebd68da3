"""Commands that check before anything runs: validate, plan, doctor, list."""

from typing import Annotated, Literal

import typer

from hpo.cli.options import Json, Storage, emit, emit_json

StudyFile = Annotated[str, typer.Argument(help="Path of a study file, or the name of a shipped one.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. budget.trials=50."),
]


def validate(study: StudyFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Check a study file: keys, ranges, methods, knobs, model path. Nothing is loaded or written.

    Example: hpo validate my_study.yaml
    """
    from hpo.cli.launching import located
    from hpo.run.launch import check_study
    from hpo.study_file import read_study

    document = read_study(study, overrides or [])
    with located(study):
        check_study(document)
    if as_json:
        emit_json(document.to_mapping() | {"hash": document.hash})
    else:
        size = document.space.size
        count = "uncountably many" if size is None else f"at most {size:,}"
        emit(
            f"{document.name} is valid: {len(document.objectives)} objectives, "
            f"{len(document.space)} parameters ({count} candidates), "
            f"sampler {document.search.sampler}, "
            f"budget {document.budget}"
        )


def plan(study: StudyFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Say what a study would try and cost, before anything is launched: nothing is stored.

    Loads and profiles the model (cached for the launch), then plans the anchors and a spread of
    candidates exactly.

    Example: hpo plan quickstart
    """
    from hpo.cli.launching import located
    from hpo.cli.planning import forecast, forecast_table
    from hpo.study_file import read_study

    document = read_study(study, overrides or [])
    with located(study):
        found = forecast(document)
    if as_json:
        emit_json(found.to_mapping())
    else:
        emit(forecast_table(found))


def doctor(storage: Storage = None, as_json: Json = False) -> None:
    """Check this machine: versions, devices, energy counters, cache, store, Ray, Chromium.

    Example: hpo doctor --storage postgresql://localhost/hpo
    """
    from hpo.cli.diagnosis import diagnose, diagnosis_table

    findings = diagnose(storage)
    if as_json:
        emit_json([finding.to_mapping() for finding in findings])
    else:
        emit(diagnosis_table(findings))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


Listed = Literal["methods", "spaces", "studies", "metrics", "samplers"]


def list_registered(
    what: Annotated[Listed, typer.Argument(help="methods, spaces, studies, metrics or samplers.")],
    as_json: Json = False,
) -> None:
    """List what can be named in a study file, one line each.

    Example: hpo list methods
    """
    from hpo.cli.planning import listing

    rows = listing(what)
    if as_json:
        emit_json([dict(row) for row in rows])
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        rest = "  ".join(value for key, value in row.items() if key != "name" and value)
        emit(f"{row['name']:<{width}}  {rest}")
