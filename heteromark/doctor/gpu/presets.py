"""The language models in a project's config/model/. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from heteromark.config.compose.composition import CONFIG_FOLDER, ROOT
from heteromark.config.errors import ConfigError, faults_of
from heteromark.config.models.agent import Hyperparameters
from heteromark.config.models.llm import ModelConfig
from heteromark.doctor.gpu.model_memory import Work


class Preset(NamedTuple):
    """A file of config/model/, composed with the rest of config/.

    Attributes:
        name: name of the file, as in `model=NAME`.
        model: the model's config.
        work: the amount of work computed at once.
    """

    name: str
    model: ModelConfig
    work: Work


def model_presets(root: Path = Path()) -> list[Preset]:
    """Return all presets of a project by name, with the defaults of agent configs.

    Raises:
        ConfigError: there is no config/, or a file in it is invalid.
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
            sections: dict[str, Any] = {
                section: OmegaConf.to_container(tree[section], resolve=True)
                for section in ("model", "grpo", "generation")
            }
        try:
            model = ModelConfig.model_validate(sections["model"])
        except ValidationError as error:
            file = str(root / CONFIG_FOLDER / "model" / f"{name}.yaml")
            raise ConfigError(faults_of(error, ModelConfig, file)) from error
        work = Work(
            responses=sections["grpo"]["micro_batch_size"],
            prompt_length=sections["generation"]["max_prompt_length"],
            response_length=sections["generation"]["max_response_length"],
            lora_rank=model.lora_rank,
        )
        presets.append(Preset(name, model, work))
    return presets
