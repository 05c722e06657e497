"""The command line: thin, fast to start, one function a verb.  What a verb does is in the rooms below."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import groundup
from groundup.errors import GroundupError, StorageError, explaining_imports

app = typer.Typer(
    name="groundup",
    help="Machine learning from the ground up: one proof chain from the equation to the endpoint.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeArgument = Annotated[Path, typer.Argument(help="The recipe, or the folder it is in.", show_default=True)]
BundleArgument = Annotated[str, typer.Argument(help="A bundle's folder, or models:/NAME@champion from the registry.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe, as in train.lr=1e-3.")
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Folder of caches, runs and the registry, and of what a run publishes; .groundup and build beside the recipe by default.",
    ),
]


def main() -> None:
    """Entry point: errors of ours become one readable message and an exit status."""
    # Idle OpenMP threads spin by default and starve small networks on a busy machine; read when PyTorch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        with explaining_imports(f"groundup {' '.join(sys.argv[1:2])}".strip()):
            app()
    except OSError as e:  # ours are among them; others have a file that is not there, or is no file, or may not be read
        if os.environ.get("GROUNDUP_TRACEBACK") or not (isinstance(e, GroundupError) or e.filename):
            raise
        place = e.filename2 or e.filename
        _fail(e if isinstance(e, GroundupError) else StorageError(f"{place}: {e.strerror}; give a path that is there and may be used"))
    except GroundupError as e:
        if os.environ.get("GROUNDUP_TRACEBACK"):
            raise
        _fail(e)


def _fail(error: GroundupError) -> NoReturn:
    from groundup.console import fail

    fail(str(error))
    sys.exit(error.exit_code)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"groundup {groundup.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")] = False,
) -> None:
    pass


# ── recipes ─────────────────────────────────────────────────────────────────────────────────────────


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to write recipe.yaml.")] = Path("."),
    template: Annotated[str, typer.Option("--template", "-t", help="What kind of recipe; `--template list` shows them.")] = "tabular",
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe that is there.")] = False,
) -> None:
    """Write a recipe that runs unedited, with the schema that lets an editor complete it."""
    from groundup.recipe import templates

    if template == "list":
        from groundup.console import table

        table([(t.name, t.summary) for t in templates.all_templates()], ("template", "what it does"))
        return
    written = templates.write(folder, template, force=force)
    typer.echo(f"wrote {written}\n\n    groundup run {written}")


@app.command()
def schema(output: Annotated[Path | None, typer.Argument(help="File to write; standard output by default.")] = None) -> None:
    """Print the recipe's JSON schema, for editors."""
    import json

    from groundup.bundle.files import write_bytes
    from groundup.recipe.schema import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_bytes(output, text.encode())


@app.command()
def validate(recipe: RecipeArgument = Path("recipe.yaml"), set_: SetOption = None, home: HomeOption = None) -> None:
    """Try early everything that can fail late: keys, data, model, libraries, gates, space on disk."""
    from groundup.console import err, table
    from groundup.lifecycle.validate import validate as check
    from groundup.recipe import Recipe

    findings = check(Recipe.load(recipe, set_ or ()), home)
    table([("✓" if f.passed else "✗", f.what, f.detail) for f in findings], ("", "checked", "found"))
    if bad := [f for f in findings if not f.passed]:
        err.print(f"{len(bad)} of {len(findings)} checks failed", style="bold red")
        raise typer.Exit(2)


@app.command()
def plan(recipe: RecipeArgument = Path("recipe.yaml"), set_: SetOption = None, home: HomeOption = None) -> None:
    """Show what a run would do: what is cached and why not, expected time and memory.  Nothing is run."""
    from groundup import console
    from groundup.lifecycle.estimate import estimate
    from groundup.recipe import Recipe

    loaded = Recipe.load(recipe, set_ or ())
    rows = []
    for line in estimate(loaded, home=home):
        state = {True: "cached", False: "to run", None: "to run"}[line.planned.cached]
        rows.append((line.planned.name, state, line.time, line.memory, line.planned.why))
    console.table(rows, ("stage", "", "expected time", "expected memory", "why"))


# ── stages ──────────────────────────────────────────────────────────────────────────────────────────


def _run(recipe: Path, set_: list[str] | None, home: Path | None, until: str = "report", start: str | None = None) -> Any:
    from groundup.console import Watch
    from groundup.lifecycle.run import run as run_recipe
    from groundup.recipe import Recipe

    loaded = Recipe.load(recipe, set_ or ())
    with Watch() as watch:
        return run_recipe(loaded, home=home, until=until, start=start, progress=watch, handle_signals=True)


@app.command()
def run(
    recipe: RecipeArgument = Path("recipe.yaml"),
    set_: SetOption = None,
    from_: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Make this stage and all after it again.")] = None,
    to: Annotated[str, typer.Option("--to", metavar="STAGE", help="Stop after this stage.")] = "report",
    home: HomeOption = None,
) -> None:
    """Carry data through every stage to a proven, compressed, rehearsed bundle and its report."""
    from groundup.summary import show

    show(_run(recipe, set_, home, until=to, start=from_))


def _stage_verb(name: str, text: str) -> None:
    def verb(recipe: RecipeArgument = Path("recipe.yaml"), set_: SetOption = None, home: HomeOption = None) -> None:
        from groundup.summary import show

        show(_run(recipe, set_, home, until=name))

    verb.__doc__ = text
    verb.__name__ = name
    app.command(name=name)(verb)


for _name, _text in {
    "prepare": "Read, check, split and transform the data (and what comes before).",
    "tune": "Search for better settings (and what comes before).",
    "train": "Fit the model (and what comes before).",
    "evaluate": "Measure the model with intervals, slices and a baseline (and what comes before).",
    "compress": "Make smaller graphs, measure them here, and judge whether it paid (and what comes before).",
    "package": "Write the bundle (and what comes before).",
    "rehearse": "Start the real server and prove its answers, its speed and its alarms (and what comes before).",
    "register": "Register the bundle and promote it once the gates pass (and what comes before).",
}.items():
    _stage_verb(_name, _text)


# ── bundles ─────────────────────────────────────────────────────────────────────────────────────────


def _bundle(reference: str, home: Path | None) -> Path:
    if reference.startswith("models:/"):
        from groundup.lifecycle.register import resolve_reference

        return resolve_reference(reference, home or Path(".groundup"))
    return Path(reference)


@app.command()
def serve(
    bundle: BundleArgument,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8080,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="File with the bearer token; GROUNDUP_TOKEN works too.")] = None,
    home: HomeOption = None,
) -> None:
    """Serve a bundle: /predict, Open Inference Protocol v2, /invocations, /metrics and a page to try it at /."""
    from groundup.serving.server import run as run_server

    run_server(_bundle(bundle, home), host=host, port=port, token_file=token_file)


@app.command()
def verify(
    bundle: Annotated[str | None, typer.Argument(help="A bundle's folder, or NAME, NAME@ALIAS, NAME/VERSION from the registry.")] = None,
    models: Annotated[bool, typer.Option("--models", help="Prove the catalogue instead: every model beside its reference.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="With --models: these alone.")] = None,
    seeds: Annotated[str, typer.Option(help="With --models: the seeds to draw from, 0-99 or 0,3,5.")] = "0",
    home: HomeOption = None,
) -> None:
    """Check a bundle on this machine (hashes, golden answers, the proofs that it carries), or prove the models."""
    from groundup.console import err, out
    from groundup.errors import RecipeError

    if (bundle is None) != models:
        raise RecipeError("expected either a bundle to check or --models; run: groundup verify build/bundle, or groundup verify --models")
    if bundle is not None:
        from groundup.serving.verify import verify as check

        proofs = iter(check(_bundle(bundle, home)))
    else:
        from groundup.proof import check_all

        proofs = check_all(_numbers(seeds), only or ())
    failed = n = 0
    for n, proof in enumerate(proofs, 1):  # noqa: B007 - counted
        out.print(str(proof), markup=False, style="green" if proof.passed else "red")
        failed += not proof.passed
    out.print(f"{n - failed} of {n} proofs passed")
    if failed:
        err.print("the bundle must not be served on this machine" if bundle else "not equal on this machine", style="bold red")
        raise typer.Exit(7)


def _numbers(text: str) -> list[int]:
    """``0-99`` or ``0,3,5``."""
    from groundup.errors import RecipeError

    try:
        first, dash, last = text.partition("-")
        found = list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise RecipeError(f"--seeds: expected numbers as 0-99 or 0,3,5, got {text!r}")
    return found


@app.command()
def score(
    bundle: BundleArgument,
    data: Annotated[str, typer.Argument(help="Records to answer: CSV, Parquet, JSON Lines, .npz, or a folder of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Parquet or CSV file to write.")] = Path("predictions.parquet"),
    format_: Annotated[str | None, typer.Option("--format", help="What the data is (data.format), where its ending does not tell.")] = None,
    home: HomeOption = None,
) -> None:
    """Answer every record of a file with a bundle, in pieces of constant memory."""
    from groundup.console import Watch
    from groundup.lifecycle.score import score as score_file

    with Watch() as watch:
        written = score_file(_bundle(bundle, home), data, output, format=format_, progress=watch)
    typer.echo(
        f"wrote {written.rows} answers to {output}"
        + (f"; {written.refused} records were refused, see {written.refusals}" if written.refused else "")
    )


@app.command()
def monitor(
    bundle: BundleArgument,
    log: Annotated[Path, typer.Option("--log", help="Folder of the server's prediction log.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML report to write.")] = Path("monitor.html"),
    since: Annotated[datetime | None, typer.Option(help="Rows from this time on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Rows before this time, UTC.")] = None,
    home: HomeOption = None,
) -> None:
    """Report drift from a server's prediction log; the exit status is 20 when the last window raised the alarm."""
    from groundup.lifecycle.monitor import monitor as report_drift

    found = report_drift(_bundle(bundle, home), log, output, since=since, until=until)
    typer.echo(f"{found.sentence}\nwrote {output}")
    if found.alarm:
        raise typer.Exit(found.exit_code)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="The registered model.")],
    to: Annotated[str | None, typer.Option(help="Version to go back to; the previous champion by default.")] = None,
    home: HomeOption = None,
) -> None:
    """Make the previous champion champion again; who, when and why is kept."""
    from groundup.lifecycle.register import rollback as roll

    typer.echo(roll(name, home or Path(".groundup"), to=to))


@app.command()
def history(name: Annotated[str, typer.Argument(help="The registered model.")], home: HomeOption = None) -> None:
    """Show who was champion, when, and why."""
    from groundup.console import table
    from groundup.lifecycle.register import history as past

    table(
        [tuple(str(v) for v in event.values()) for event in past(name, home or Path(".groundup"))],
        ("when", "version", "event", "by", "why"),
    )


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(help="A run: its id, 'latest', or its folder.")],
    run_b: Annotated[str, typer.Argument(help="Another run.")],
    home: HomeOption = None,
) -> None:
    """Set two runs side by side: settings, metrics with the paired difference, bytes, latency."""
    from groundup.lifecycle.compare import compare as compare_runs
    from groundup.lifecycle.compare import find_run

    base = home or Path(".groundup")
    typer.echo(compare_runs(find_run(run_a, base), find_run(run_b, base)).text)


# ── catalogues ──────────────────────────────────────────────────────────────────────────────────────


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="One model, in detail.")] = None,
    preset: Annotated[str | None, typer.Option(help="A published size of a model over tokens: gpt3-175b.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences that memory is stated for.")] = 1,
    context: Annotated[int | None, typer.Option(min=1, help="Tokens a sequence; the model's own context where left out.")] = None,
    trace: Annotated[str | None, typer.Option(metavar="TEXT", help="Show every intermediate value while the model reads this.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="With --trace: folder with weights and a tokenizer; a small random network of bytes where left out.")
    ] = None,
    attention: Annotated[Path | None, typer.Option(help="With --trace: SVG to write, who looks at whom in every head.")] = None,
    lens: Annotated[Path | None, typer.Option(help="With --trace: SVG to write, what every layer would say (logit lens).")] = None,
) -> None:
    """List the models, or show one: parameters, published sizes, operations, memory; or look inside while it reads a text."""
    from groundup import catalogue
    from groundup.console import out, table
    from groundup.errors import RecipeError

    if trace is not None:
        if name is None or preset is not None or context is not None or batch != 1:
            raise RecipeError("--trace takes one model and none of --preset, --batch, --context; write: groundup models gpt --trace TEXT")
        _look_inside(name, trace, checkpoint, attention, lens)
        return
    if checkpoint or attention or lens:
        raise RecipeError("--checkpoint, --attention and --lens go with --trace: groundup models gpt --trace TEXT --attention out.svg")
    if name is None:
        table(catalogue.table(), ("name", "kind", "tasks", "what it is"))
        return
    entry = catalogue.find(name)
    if entry.kind == "sequence":
        shown = str(catalogue.describe_sequence(name, preset, batch=batch, context=context))
        shown += f"\n\npresets: {', '.join(entry.presets)}" if preset is None else ""
    elif preset is not None or context is not None:
        raise RecipeError(f"{name} reads features, not tokens; --preset and --context are for {', '.join(catalogue.names('sequence'))}")
    else:
        shown = str(catalogue.describe(name))
    out.print(shown, markup=False, highlight=False)


def _look_inside(name: str, text: str, checkpoint: Path | None, attention: Path | None, lens: Path | None) -> None:
    """Everything is computed before anything is written."""
    from groundup.console import out
    from groundup.inside import example

    read = example(name, text, checkpoint)
    steps = str(read.steps())
    drawings = [(attention, read.attention() if attention else None), (lens, read.lens() if lens else None)]
    out.print(read.note, markup=False, soft_wrap=True)
    out.print(f"{len(read.tokens)} tokens\n\n{steps}", markup=False, highlight=False, soft_wrap=True)
    for path, drawing in drawings:
        if path and drawing:
            drawing.save(path)
            out.print(f"wrote {path}", markup=False, soft_wrap=True)


@app.command()
def data() -> None:
    """List the named data sets."""
    from groundup.console import table
    from groundup.data import sources

    table([(s.name, s.task, f"{s.rows:,}", s.licence, s.where) for s in sources()], ("name", "task", "rows", "licence", "where it is from"))


if __name__ == "__main__":
    main()
