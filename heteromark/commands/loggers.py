"""Send a run's metrics to TensorBoard, W&B or MLflow, through TorchRL."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torchrl.record.loggers import Logger, TensorboardLogger
from torchrl.record.loggers.mlflow import MLFlowLogger
from torchrl.record.loggers.wandb import WandbLogger

from heteromark.config.models.run import RunConfig
from heteromark.config.nested import flatten
from heteromark.modules.random_state import preserved_random_state

log = logging.getLogger("heteromark")


@dataclass(frozen=True)
class Backend:
    """One open back end.

    Attributes:
        logger: TorchRL's interface to it.
        close: closes it; receives whether the training succeeded.
        run: the back end's ID of this run, for resuming it; None: not needed.
        logged_frames: rows up to this number of frames are already logged.
    """

    logger: Logger
    close: Callable[[bool], None]
    run: str | None = None
    logged_frames: int = 0


@dataclass(frozen=True)
class _Attempt:
    """What a back end is opened with; `run` is the ID of a run to resume, or None."""

    config: RunConfig
    folder: Path
    frames: int
    run: str | None

    @property
    def name(self) -> str:
        return f"{self.config.agent.short_name} seed {self.config.seed}"


class MetricLoggers:
    """Sends every row of metrics to the back ends in `logger.backends`; a context manager.

    Back ends do not affect a run: the random streams are preserved. If a back end fails during the
    run, for example because a server is down, one warning is logged and the back end is dropped.

    Args:
        config: the run.
        folder: the run's folder; files go into its `tensorboard/`, `wandb/` and `mlflow/`.
        frames: frames trained by earlier attempts.
        runs: `runs` of earlier attempts.

    Raises:
        ValueError: a back end cannot be started.
    """

    def __init__(
        self, config: RunConfig, folder: Path, frames: int, runs: Mapping[str, str]
    ) -> None:
        self._backends: dict[str, Backend] = {}
        for name in config.logger.backends:
            try:
                with preserved_random_state():
                    attempt = _Attempt(config, Path(folder).resolve(), frames, runs.get(name))
                    self._backends[name] = _OPEN[name](attempt)
            except Exception as error:
                self._close(False)
                raise ValueError(
                    f"logger.backends: cannot start {name}: {error}; fix this, or remove {name}"
                ) from error

    @property
    def runs(self) -> dict[str, str]:
        """The ID of this run by back end."""
        return {name: b.run for name, b in self._backends.items() if b.run is not None}

    def log(self, row: Mapping[str, float]) -> None:
        """Send the finite values of a row, with `row["frames"]` as the step."""
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        for name, backend in list(self._backends.items()):
            if row["frames"] <= backend.logged_frames:
                continue
            try:
                with preserved_random_state():
                    backend.logger.log_metrics(finite, step=row["frames"])
                    backend.logger.flush()
            except Exception as error:
                del self._backends[name]
                log.warning(
                    "%s failed and gets no more metrics (%s: %s); the run continues",
                    name,
                    type(error).__name__,
                    error,
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close(kind is None)

    def _close(self, succeeded: bool) -> None:
        for name, backend in self._backends.items():
            try:
                with preserved_random_state():
                    backend.close(succeeded)
            except Exception as error:
                log.warning("cannot close %s: %s", name, error)
        self._backends.clear()


class _ResumingTensorBoard(TensorboardLogger):
    """TorchRL's logger; hides rows that an earlier attempt logged after the resumed checkpoint."""

    def __init__(self, folder: Path, frames: int) -> None:
        self._first_step = frames + 1
        super().__init__(exp_name="tensorboard", log_dir=str(folder))

    def _create_experiment(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(f"{self.log_dir}/{self.exp_name}", purge_step=self._first_step)


def _open_tensorboard(attempt: _Attempt) -> Backend:
    logger = _ResumingTensorBoard(attempt.folder, attempt.frames)
    log.info("logging to TensorBoard; view: tensorboard --logdir %s", logger.log_dir)
    return Backend(logger, close=lambda _: logger.close())


def _open_wandb(attempt: _Attempt) -> Backend:
    settings = attempt.config.logger
    logger = WandbLogger(
        attempt.name,
        offline=settings.offline,
        save_dir=attempt.folder,
        id=attempt.run,
        project=settings.project,
        group=attempt.config.agent.short_name,
        log_env_packages=False,  # run.json has the relevant versions
    )
    logger.log_hparams(_parameters(attempt.config))
    return Backend(  # W&B itself prints where its files are
        logger,
        close=lambda succeeded: logger.experiment.finish(exit_code=0 if succeeded else 1),
        run=logger.experiment.id,
    )


def _open_mlflow(attempt: _Attempt) -> Backend:
    import mlflow

    home = attempt.folder / "mlflow"
    tracking = os.environ.get("MLFLOW_TRACKING_URI")
    if tracking is None:
        home.mkdir(exist_ok=True)
        tracking = f"sqlite:///{home / 'mlflow.db'}"
    if attempt.run is not None:
        os.environ["MLFLOW_RUN_ID"] = attempt.run  # makes MLflow resume this run
    logger = MLFlowLogger(
        attempt.config.logger.project,
        tracking,
        artifact_location=None if "MLFLOW_TRACKING_URI" in os.environ else home.as_uri(),
    )
    active = logger.experiment
    if attempt.run is None:
        mlflow.set_tag("mlflow.runName", attempt.name)
        logger.log_hparams(_parameters(attempt.config))
    log.info("logging to MLflow; view: mlflow ui --backend-store-uri %s", tracking)
    return Backend(
        logger,
        close=lambda succeeded: mlflow.end_run("FINISHED" if succeeded else "FAILED"),
        run=active.info.run_id,
        logged_frames=int(active.data.metrics.get("frames", 0)),
    )


def _parameters(config: RunConfig) -> dict[str, Any]:
    """Return the resolved config with dotted keys."""
    return flatten(config.recorded())


_OPEN: dict[str, Callable[[_Attempt], Backend]] = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
}
