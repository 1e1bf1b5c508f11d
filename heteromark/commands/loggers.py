"""Back ends that a run's metrics are also sent to: TensorBoard, W&B, MLflow, through TorchRL."""

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
from heteromark.training.random_state import preserved_random_state

log = logging.getLogger("heteromark")


@dataclass(frozen=True)
class Backend:
    """One open back end.

    Attributes:
        logger: TorchRL's interface to it.
        close: ends it; is told whether the training went well.
        run: what it calls this run, to go on with it after an interruption; None: no need.
        logged_frames: rows up to here are there already.
    """

    logger: Logger
    close: Callable[[bool], None]
    run: str | None = None
    logged_frames: int = 0


@dataclass(frozen=True)
class _Attempt:
    """What a back end is opened with; `run` is None where nothing is gone on with."""

    config: RunConfig
    folder: Path
    frames: int
    run: str | None

    @property
    def name(self) -> str:
        return f"{self.config.agent.short_name} seed {self.config.seed}"


class MetricLoggers:
    """Sends every row of metrics to the back ends in `logger.backends`; a context manager.

    Back ends never change a run: the random streams are left alone, and one that fails after its
    start, because a server is gone, say, is told of once and then left out.

    Args:
        config: the run.
        folder: the run's folder; files go into `tensorboard/`, `wandb/` and `mlflow/` there.
        frames: trained before this attempt.
        runs: what earlier attempts' `runs` said.

    Raises:
        ValueError: a back end does not start.
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
                    f"logger.backends: {name} does not start: {error}; mend it, or leave it out"
                ) from error

    @property
    def runs(self) -> dict[str, str]:
        """What the back ends call this run."""
        return {name: b.run for name, b in self._backends.items() if b.run is not None}

    def log(self, row: Mapping[str, float]) -> None:
        """Send the finite numbers of a row, at the step `row["frames"]`."""
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
                    "no more metrics are sent to %s, which failed (%s: %s); the run goes on",
                    name,
                    type(error).__name__,
                    error,
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close(kind is None)

    def _close(self, went_well: bool) -> None:
        for name, backend in self._backends.items():
            try:
                with preserved_random_state():
                    backend.close(went_well)
            except Exception as error:
                log.warning("%s was not closed: %s", name, error)
        self._backends.clear()


class _ResumingTensorBoard(TensorboardLogger):
    """TorchRL's, hiding what an earlier attempt logged after the checkpoint that is resumed."""

    def __init__(self, folder: Path, frames: int) -> None:
        self._first_step = frames + 1
        super().__init__(exp_name="tensorboard", log_dir=str(folder))

    def _create_experiment(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(f"{self.log_dir}/{self.exp_name}", purge_step=self._first_step)


def _open_tensorboard(attempt: _Attempt) -> Backend:
    logger = _ResumingTensorBoard(attempt.folder, attempt.frames)
    log.info("metrics also go to TensorBoard: tensorboard --logdir %s", logger.log_dir)
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
        log_env_packages=False,  # run.json has the versions that matter
    )
    logger.log_hparams(_parameters(attempt.config))
    return Backend(  # where its files are, W&B says by itself
        logger,
        close=lambda went_well: logger.experiment.finish(exit_code=0 if went_well else 1),
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
        os.environ["MLFLOW_RUN_ID"] = attempt.run  # how MLflow is told to go on with a run
    logger = MLFlowLogger(
        attempt.config.logger.project,
        tracking,
        artifact_location=None if "MLFLOW_TRACKING_URI" in os.environ else home.as_uri(),
    )
    active = logger.experiment
    if attempt.run is None:
        mlflow.set_tag("mlflow.runName", attempt.name)
        logger.log_hparams(_parameters(attempt.config))
    log.info("metrics also go to MLflow: mlflow ui --backend-store-uri %s", tracking)
    return Backend(
        logger,
        close=lambda went_well: mlflow.end_run("FINISHED" if went_well else "FAILED"),
        run=active.info.run_id,
        logged_frames=int(active.data.metrics.get("frames", 0)),
    )


def _parameters(config: RunConfig) -> dict[str, Any]:
    """The resolved config by dotted keys."""
    return flatten(config.model_dump(mode="json"))


_OPEN: dict[str, Callable[[_Attempt], Backend]] = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
}
