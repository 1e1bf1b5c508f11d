"""PettingZoo environments, Parallel and AEC, as batched TorchRL environments."""
