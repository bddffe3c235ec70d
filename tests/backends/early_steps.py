"""Random checkpoints whose query scale steps within a few tokens: a path that leaves it out or takes it twice shows."""

from tests.checkpoints import Checkpoint

STEP = 16  # positions, in the place of the published 8192


class EarlySteps(Checkpoint):
    def hf_text_config(self) -> dict:
        config = super().hf_text_config()
        config["rope_parameters"]["original_max_position_embeddings"] = STEP
        return config
