"""The `heteromark` command: each subcommand parses options, makes one call, prints the result."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from heteromark import __version__
from heteromark.config.errors import ConfigError, naming_options
from heteromark.config.fields import Device, Seat
from heteromark.config.models.components import EvaluationOpponent, Preset

app = typer.Typer(
    help="Train heterogeneous multi-agent reinforcement learning systems reproducibly. "
    "Run it in a project folder (the one with params.yaml). `snakemake --cores N` runs the whole "
    "workflow; these commands run its parts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override any key of params.yaml, the agent config or a component, e.g. "
        "--set smoke.total_frames=10000 --set policy.share_policy_params=false. Repeatable.",
    ),
]
SweepSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of params.yaml, e.g. --set smoke.seeds=[0,1]; the values of a variant "
        "take precedence. Repeatable.",
    ),
]
ModeOption = Annotated[str, typer.Option(help="smoke (short) or full (long).")]
EnvironmentOption = Annotated[
    str | None, typer.Option(help="Name of a file in config/environment/.")
]
FloatOption = Annotated[str | None, typer.Option(metavar="FLOAT")]
IntOption = Annotated[str | None, typer.Option(metavar="INT")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"heteromark {__version__}")
        raise typer.Exit


@app.callback()
def common_options(
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Also print debug messages and tracebacks."),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print only results, warnings and errors."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Set what all commands print besides their results."""
    from heteromark.commands.console import set_verbosity

    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet cannot be combined")
    set_verbosity(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)


@app.command()
def train(
    agent_config: Annotated[
        Path, typer.Option("--agent-config", help="Base config or sweep variant, YAML or JSON.")
    ],
    mode: ModeOption = "smoke",
    seed: Annotated[int | None, typer.Option(help="Default: the mode's first seed.")] = None,
    total_timesteps: Annotated[
        int | None, typer.Option(help="Frames to train for. Default: params.yaml.")
    ] = None,
    episodes: Annotated[
        int | None,
        typer.Option(help="Full-length episodes to train for, instead of frames."),
    ] = None,
    learning_rate: FloatOption = None,
    gamma: FloatOption = None,
    n_steps: IntOption = None,
    batch_size: IntOption = None,
    n_epochs: IntOption = None,
    num_envs: Annotated[
        int | None, typer.Option(help="Number of environment copies stepped in parallel.")
    ] = None,
    environment: EnvironmentOption = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    base_config: Annotated[
        Path | None,
        typer.Option(help="Base config of a variant. Default: the one next to the variant."),
    ] = None,
    set_: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the run's files. Default: results/{mode}/{name}-{digest}/…"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(help="Resume an unfinished run from its last checkpoint, or start over."),
    ] = True,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Override a key of params.yaml. Unlike with --set, the values of a variant take "
            "precedence.",
        ),
    ] = None,
    expect: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Train one config with one seed, or take the finished run from the run store.

    Precedence, low to high: schema default, base config, params.yaml, variant, command line.
    To resume an interrupted run, run the same command again.
    """
    from heteromark.commands.console import outcome_lines
    from heteromark.commands.launch import train_run
    from heteromark.commands.progress import progress_of
    from heteromark.commands.request import (
        TrainRequest,
        check_output,
        resolve_request,
        rounding_lines,
        typed_options,
    )

    request = TrainRequest(
        agent_config=agent_config,
        mode=mode,
        seed=seed,
        total_frames=total_timesteps,
        episodes=episodes,
        hyperparameters={
            "learning_rate": learning_rate,
            "gamma": gamma,
            "n_steps": n_steps,
            "batch_size": batch_size,
            "n_epochs": n_epochs,
        },
        num_envs=num_envs,
        environment=environment,
        device=device,
        base_config=base_config,
        assignments=tuple(set_ or ()),
        param_assignments=tuple(param or ()),
    )
    config, folder = resolve_request(request)
    target = output or folder
    check_output(target)
    if expect and f"-{expect}" not in folder.parent.name:
        raise ConfigError.single(
            str(agent_config),
            f"resolves to {folder.parent.name}, but the plan says {expect}: a config or "
            "params.yaml has changed since; run the same command again",
        )
    for line in rounding_lines(config):
        typer.echo(line)
    with naming_options(typed_options(request)), progress_of(config) as on_progress:
        record, from_store = train_run(
            config,
            config_path=str(agent_config),
            target=target,
            resume=resume,
            on_progress=on_progress,
        )
    for line in outcome_lines(record, from_store, target):
        typer.echo(line)


@app.command()
def sweep(
    configs: Annotated[
        list[str],
        typer.Argument(help="Agent configs: paths or glob patterns."),
    ],
    mode: ModeOption = "smoke",
    episodes: Annotated[
        int | None, typer.Option(help="Episodes per run. Default: frames from params.yaml.")
    ] = None,
    total_timesteps: Annotated[int | None, typer.Option(help="Frames per run.")] = None,
    base_config: Annotated[
        Path | None,
        typer.Option(help="Base config of the variants. Default: the one next to each variant."),
    ] = None,
    environment: EnvironmentOption = None,
    cores: Annotated[int | None, typer.Option(help="CPU cores to use. Default: all.")] = None,
    set_: SweepSetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only print what would run.")] = (
        False
    ),
) -> None:
    """Run every matching config with the seeds from params.yaml, and print a table.

    It uses the rules of the workflow, so a later `snakemake` does not repeat these runs. A failed
    run does not stop the others; the exit status is then 1.
    """
    from heteromark.workflow.sweep import run_sweep, sweep_overrides

    overrides, typed = sweep_overrides(
        configs, mode, episodes, total_timesteps, base_config, environment, tuple(set_ or ())
    )
    raise typer.Exit(run_sweep(overrides, typed, mode, cores=cores, dry_run=dry_run))


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="Run folder, checkpoint file, or digest of a run.")],
    episodes: Annotated[
        int,
        typer.Option(min=1, help="Episodes to play; for language-model agents: problems."),
    ] = 100,
    seed: Annotated[
        int,
        typer.Option(
            min=0, help="Seed of the episodes. The run's own evaluation used its training seed."
        ),
    ] = 1000,
    deterministic: Annotated[
        bool | None,
        typer.Option(
            "--deterministic/--sampled",
            " /--no-deterministic",
            help="Take the most likely action, or sample from the policy. Default: the most likely "
            "action; for language-model agents, see --preset.",
        ),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            metavar="[final|best|PATH]",
            help="Weights to evaluate. final: after training. best: of the best evaluation during "
            "training; requires a run with evaluation.interval > 0. Or a file, also relative to "
            "the run's folder, e.g. in checkpoints/.",
        ),
    ] = "final",
    opponent: Annotated[
        EvaluationOpponent | None,
        typer.Option(
            help="Turn-based games: who plays the other seats. random: random legal actions. "
            "heuristic: the game's built-in player, or environment.opponent.heuristic. past_self: "
            "past policies of a run that was trained against them. self: the policy plays all "
            "seats, and wins are not counted. Skirmish: the script for the other side: nearest, "
            "attack_move, focus_fire, kite or random. Default: as in training.",
        ),
    ] = None,
    seat: Annotated[
        Seat | None,
        typer.Option(help="The policy's seat against an opponent. Default: as in training."),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Cut off episodes after this many frames. Default: as in training."
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the policy runs.")] = "auto",
    output: Annotated[Path | None, typer.Option(help="Also write the report as JSON.")] = None,
    gif: Annotated[
        Path | None, typer.Option(help="Also write one episode as an animated GIF.")
    ] = None,
    fps: Annotated[
        int | None,
        typer.Option(min=1, max=50, help="Frames per second of the GIF. Default: 10."),
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(
            help="Language-model agents: how to sample responses. greedy: the most likely token; "
            "standard: temperature 0.7, likely tokens only; liberal: temperature 0.85, more "
            "tokens; sampled: as in training. Default: as in the run's evaluation config."
        ),
    ] = None,
    passes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Language-model agents: attempts per problem; pass@k needs at least k. "
            "Default: as in the run's evaluation config.",
        ),
    ] = None,
    swap_roles: Annotated[
        bool,
        typer.Option(
            "--swap-roles",
            help="Language-model agents: also evaluate with the policies swapped between roles, "
            "and with untrained policies.",
        ),
    ] = False,
    single_agent: Annotated[
        bool,
        typer.Option(
            "--single-agent",
            help="Language-model agents: the task's last role works alone, for the same number of "
            "rounds.",
        ),
    ] = False,
    transcripts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Language-model agents: print the transcripts of the first N problems.",
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Import code that a checkpoint from elsewhere names. It has all your rights.",
        ),
    ] = False,
) -> None:
    """Evaluate a trained run on new episodes, or language-model agents on held-out problems."""
    options = locals()
    from rich.console import Console
    from rich.text import Text

    from heteromark.commands.evaluate_run import evaluate_run
    from heteromark.training.evaluation_request import EvaluationRequest
    from heteromark.training.trust import TRUST_VARIABLE

    if options.pop("trust"):
        os.environ[TRUST_VARIABLE] = "1"
    try:
        lines = evaluate_run(EvaluationRequest(**options))
    except KeyboardInterrupt:
        typer.echo("SIGINT: the evaluation was interrupted; nothing was written", err=True)
        raise typer.Exit(128 + signal.SIGINT) from None
    console = Console()
    for line in lines:
        if isinstance(line, str):
            typer.echo(line)
        else:  # let the terminal wrap plain text, so that it can be copied without line breaks
            console.print(line, soft_wrap=isinstance(line, Text))


@app.command()
def validate(
    configs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Agent configs to check. Default: those in params.yaml. With --config-name: "
            "overrides (key=value)."
        ),
    ] = None,
    set_: SweepSetOption = None,
    config_name: Annotated[
        str | None,
        typer.Option(
            "--config-name",
            metavar="NAME",
            help="Print the checklist for a config of the Hydra entry, e.g. math_L2_model.",
        ),
    ] = None,
    agent_config: Annotated[
        Path | None,
        typer.Option("--agent-config", help="Print the checklist for one agent config."),
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(help="With --agent-config: name of a file in config/environment/."),
    ] = None,
) -> None:
    """Check configs and print what would run. Trains nothing.

    Without options: check params.yaml and the agent configs of the workflow. With --config-name or
    --agent-config: print a checklist, with a remedy for each item that fails. The exit status is 1
    if any item fails.
    """
    if config_name or agent_config or environment:
        from heteromark.commands.checklist import all_right, check, checklist_lines

        verdicts = check(config_name, configs or [], agent_config, environment, set_ or [])
        for line in checklist_lines(verdicts):
            typer.echo(line)
        raise typer.Exit(0 if all_right(verdicts) else 1)
    from heteromark.workflow.display import plan_lines
    from heteromark.workflow.plan import make_plan
    from heteromark.workflow.sweep import sweep_overrides

    overrides, typed = sweep_overrides(configs or [], "smoke", assignments=tuple(set_ or ()))
    for line in plan_lines(make_plan(overrides=overrides, typed=typed)):
        typer.echo(line)


@app.command("show-config")
def show_config(
    agent_config: Annotated[Path, typer.Argument(help="Agent config, YAML or JSON.")],
    mode: ModeOption = "smoke",
    seed: Annotated[int | None, typer.Option()] = None,
    environment: EnvironmentOption = None,
    set_: SetOption = None,
) -> None:
    """Print the resolved config of a run, its digest and its folder."""
    from heteromark.commands.request import TrainRequest, resolve_request, rounding_lines
    from heteromark.config.files import to_yaml
    from heteromark.runs.digest import run_digest

    assignments = tuple(set_ or ())
    request = TrainRequest(
        agent_config, mode, seed, environment=environment, assignments=assignments
    )
    config, folder = resolve_request(request)
    typer.echo(f"# run {run_digest(config)} in {folder}")
    for line in rounding_lines(config):
        typer.echo(f"# {line}")
    typer.echo(to_yaml(config.recorded()), nl=False)


@app.command()
def doctor(
    thorough: Annotated[
        bool,
        typer.Option("--thorough", help="Also verify the files of every run in the store."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look for common problems, and print the command that fixes each. Changes nothing.

    The exit status is 1 if there is a problem, and 0 if there are only warnings and notes.
    """
    from rich.console import Console

    from heteromark.doctor.finding import Project
    from heteromark.doctor.report import examine, is_healthy, show, to_json
    from heteromark.runs.store import RunStore

    examined = examine(Project(Path(), RunStore(), thorough))
    if as_json:
        typer.echo(to_json(examined))
    else:
        show(examined, Console())
    raise typer.Exit(0 if is_healthy(examined) else 1)


@app.command("check-gpu")
def check_gpu() -> None:
    """Print the available hardware, and which language models of config/model/ fit into it."""
    from rich.console import Console

    from heteromark.doctor.finding import Project
    from heteromark.doctor.gpu.check_gpu import report
    from heteromark.doctor.gpu.devices import this_machine
    from heteromark.doctor.gpu.presets import model_presets
    from heteromark.doctor.machine import gpu
    from heteromark.runs.store import RunStore

    presets = model_presets() if Path("config").is_dir() else []
    machine = this_machine()
    findings = () if machine.gpus else tuple(gpu(Project(Path(), RunStore())))
    console = Console()
    for each in report(machine, presets, findings):
        if isinstance(each, str):
            typer.echo(each)
        else:  # do not wrap at 80 columns in a file or a pipe
            console.print(each, width=max(console.width, 100))


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5173,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. There is no password: 0.0.0.0 shows the history to "
            "everyone who can connect to this machine."
        ),
    ] = "127.0.0.1",
    store: Annotated[
        Path | None, typer.Option(help="Run store to show. Default: that of `heteromark store`.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Results folder to show. Default: results/.")
    ] = None,
    browser: Annotated[
        bool,
        typer.Option("--browser/--no-browser", help="Open a browser, if there is a display."),
    ] = True,
) -> None:
    """Serve the Training History pages: runs, curves, comparisons and the sweep."""
    from heteromark.ui.server import serve

    serve(host, port, store, results, browser)


def _add_groups() -> None:
    if app.registered_groups:
        return
    from heteromark.runs.commands import store_app
    from heteromark.workflow.commands import workflow_app

    app.add_typer(store_app, name="store")
    app.add_typer(workflow_app, name="workflow", hidden=True)


def main() -> None:
    """Run the command line; expected errors end in a message and an exit status."""
    from heteromark.commands.console import exit_on_expected_errors, prepare_process
    from heteromark.commands.evaluate_run import EvaluationError
    from heteromark.ui.server import UiError
    from heteromark.workflow.errors import WorkflowError

    prepare_process()
    _add_groups()
    with exit_on_expected_errors(WorkflowError, EvaluationError, UiError):
        app()


if __name__ == "__main__":
    main()
