"""The language models that a project's config/ offers. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from heteromark.config.compose.composition import CONFIG_FOLDER, ROOT
from heteromark.config.errors import ConfigError, faults_of
from heteromark.config.models.agent import Hyperparameters
from heteromark.config.models.llm import ModelConfig
from heteromark.doctor.gpu.model_memory import Work


class Preset(NamedTuple):
    """A file of config/model/, composed with the rest of config/.

    Attributes:
        name: of the file, as in `model=NAME`.
        model: what it says.
        work: what is computed at once with it.
    """

    name: str
    model: ModelConfig
    work: Work


def model_presets(root: Path = Path()) -> list[Preset]:
    """All of a project's, by name; agent configs say nothing else than their defaults.

    Raises:
        ConfigError: there is no config/, or a file in it is at fault.
    """
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from heteromark.config.compose.hydra_loader import as_config_errors, open_hydra

    loader = open_hydra(root / CONFIG_FOLDER).config_loader
    presets = []
    for name in loader.get_group_options("model"):
        with as_config_errors():
            tree = loader.load_configuration(ROOT, [f"model={name}"], RunMode.RUN)
            OmegaConf.set_struct(tree, False)
            tree.agent = Hyperparameters().model_dump()
            model, grpo, generation = (
                OmegaConf.to_container(tree[section], resolve=True)
                for section in ("model", "grpo", "generation")
            )
        try:
            valid = ModelConfig.model_validate(model)
        except ValidationError as error:
            file = str(root / CONFIG_FOLDER / "model" / f"{name}.yaml")
            raise ConfigError(faults_of(error, ModelConfig, file)) from error
        work = Work(
            responses=grpo["micro_batch_size"],
            prompt_length=generation["max_prompt_length"],
            response_length=generation["max_response_length"],
            lora_rank=valid.lora_rank,
        )
        presets.append(Preset(name, valid, work))
    return presets
