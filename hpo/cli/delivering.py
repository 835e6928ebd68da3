"""The command that takes a model home: export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import Json, Name, Storage, emit, emit_json, say
from hpo.deliver.form import Form
from hpo.errors import UsageError

if TYPE_CHECKING:  # hpo --help must not load torch
    from hpo.deliver.export import Exported
    from hpo.deliver.rebuild import Rebuilt


def export(
    name: Name,
    out: Annotated[Path, typer.Option(help="Directory to write; it must not exist.")],
    trial: Annotated[int | None, typer.Argument(help="Number of the trial.")] = None,
    knee: Annotated[bool, typer.Option("--knee", help="Take the knee of the front.")] = False,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--limit", metavar="METRIC<=VALUE", help="Take the knee of the front within this; repeatable."
        ),
    ] = None,
    form: Annotated[
        Form,
        typer.Option(help="factored: small, loads with trust_remote_code. dense: plain weights, no code."),
    ] = Form.FACTORED,
    verify: Annotated[
        bool, typer.Option("--verify", help="Reload it in a fresh process, compare and measure again.")
    ] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> int:
    """Write a trial's compressed model as a directory that transformers loads, with its model card.

    Example: hpo export quickstart --knee --out small --verify
    """
    _exactly_one(trial, knee, limits)
    from hpo.deliver.choose import chosen
    from hpo.deliver.export import export as write
    from hpo.deliver.export import refuse_existing
    from hpo.deliver.rebuild import rebuild
    from hpo.store.store import Store
    from hpo.trial import TrialState

    refuse_existing(out)
    with Store.open(storage, read_only=True) as store:
        record = store.study(name)
        found = chosen(store, record.study, trial, limits or [])
        trials = {t.number: t for t in store.trials(name)}
    dense = next((t for t in trials.values() if t.is_dense and t.state is TrialState.COMPLETED), None)
    say(f"making trial {found.number} of {name} again: {found.candidate}")
    rebuilt = rebuild(record, found, trials)
    exported = write(rebuilt, record, dense, out, form, check=verify)
    emit_json(_mapping(rebuilt, exported)) if as_json else emit(_text(rebuilt, exported))
    return 0 if exported.verification is None or exported.verification.passed else 1


def _exactly_one(trial: int | None, knee: bool, limits: list[str] | None) -> None:
    given = [trial is not None, knee, bool(limits)]
    if sum(given) != 1:
        raise UsageError(
            f"{'none' if not any(given) else 'more than one'} of TRIAL, --knee and --limit is given",
            "choose the trial by exactly one of them, e.g. hpo export NAME --knee --out DIR",
        )


def _mapping(rebuilt: "Rebuilt", exported: "Exported") -> dict[str, object]:
    return {
        "directory": str(exported.directory),
        "study": rebuilt.study.name,
        "trial": rebuilt.trial.number,
        "plan": rebuilt.plan.hash,
        "form": str(exported.form),
        "bytes": exported.bytes,
        "files": list(exported.files),
        "nll": {"trial": rebuilt.stored_nll, "rebuilt": rebuilt.nll},
        "verification": None if exported.verification is None else exported.verification.to_mapping(),
    }


def _text(rebuilt: "Rebuilt", exported: "Exported") -> str:
    from hpo.format import value_text

    trust = ", trust_remote_code=True" if exported.form is Form.FACTORED else ""
    lines = [
        f"wrote {exported.directory}: trial {rebuilt.trial.number} of {rebuilt.study.name}, {exported.form}, "
        f"weights {value_text(exported.bytes, 'bytes')}",
        f'load it with: AutoModelForCausalLM.from_pretrained("{exported.directory}"{trust})',
    ]
    if exported.verification is not None:
        for check in exported.verification.checks:
            mark = "ok    " if check.passed else "FAILED"
            lines.append(f"{mark} {check.name}: {check.found or 'yes'} (expected {check.expected})")
        lines.append(
            "verified" if exported.verification.passed else "verification FAILED; see verification.json"
        )
    return "\n".join(lines)
