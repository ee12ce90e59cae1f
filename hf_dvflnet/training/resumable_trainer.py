"""A Trainer whose checkpoints are whole, say from which run they are, and are never of broken weights."""

import signal
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import Trainer
from transformers.utils import logging

from .checkpoints import RUN, free_space, last_whole_checkpoint, refuse_other_run
from .digests import base_weights_digest
from .finite_numbers import refuse_broken_weights
from .sharding import class_before_sharding, refuse_unfit_sharding, sharding_of_checkpoints, whole_weights


logger = logging.get_logger(__name__)


class ResumableTrainer(Trainer):
    """
    The part of [`VideoClassificationTrainer`] that saves models and checkpoints, and finds the one to resume from.

    A model that FSDP shards is saved by `save_model` with whole weights, whatever the `state_dict_type` of the
    checkpoints.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        refuse_unfit_sharding(self.accelerator)
        self._last_clips: list[str] = []  # of this process in the last step
        self._base_weights = base_weights_digest(self.model)

    @property
    def clips_per_step(self) -> int:
        """Number of clips per update of the weights, over all processes."""
        return self.get_total_train_batch_size(self.args)

    def _about_run(self) -> dict[str, Any]:
        """What a checkpoint says of its run. `base_weights`, a digest, is there for adapters, which have no others."""
        about = {"processes": self.args.world_size, "clips_per_step": self.clips_per_step}
        return about if self._base_weights is None else {**about, "base_weights": self._base_weights}

    def checkpoint_to_resume(self, resume_from_checkpoint: str | bool | None) -> str | None:
        """
        The checkpoint that `train(resume_from_checkpoint=...)` means; True is the last whole one of the output folder.

        Raises:
            ValueError: If there is none, or if this run cannot resume from it ([`refuse_other_run`]).
        """
        if not resume_from_checkpoint:
            return None
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole_checkpoint(self.args.output_dir, self.args.world_size)
            if resume_from_checkpoint is None:
                raise ValueError(f"{self.args.output_dir}: contains no complete checkpoint to resume from")
        sharding = sharding_of_checkpoints(self.accelerator)
        refuse_other_run(resume_from_checkpoint, self.args, self._about_run(), self.model, sharding)
        return resume_from_checkpoint

    def leave(self, number: int):
        """End the process as the signal requests, after all processes have finished writing."""
        self.accelerator.wait_for_everyone()
        logger.warning(
            f"{self.args.output_dir}: stopped by {signal.Signals(number).name} after step {self.state.global_step} of "
            f"{self.state.max_steps}. A checkpoint was saved, so the run can be resumed"
        )
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def _save_checkpoint(self, model, trial):
        refuse_broken_weights(self.model, self.state.global_step, self._last_clips)
        folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
        # the only place in trainer_state.json for additional data
        self.state.stateful_callbacks[RUN] = self._about_run()
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            whole = last_whole_checkpoint(folder.parent, self.args.world_size)
            raise OSError(
                f"{folder}: the checkpoint cannot be written ({error}; {free_space(folder.parent)}). Free disk space, "
                f"or fix the cause given above; the run can then resume from {whole or 'the beginning'}"
            ) from error

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False):
        if _internal_call:  # `_save_checkpoint` reports errors
            super().save_model(output_dir, _internal_call)
            return
        refuse_broken_weights(self.model, self.state.global_step, self._last_clips)
        folder = output_dir or self.args.output_dir
        try:
            with whole_weights(self.accelerator):
                super().save_model(output_dir, _internal_call)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise OSError(f"{folder}: the model cannot be written ({error}; {free_space(Path(folder))})") from error

    def _save(self, *args, **kwargs):
        with class_before_sharding(self.model):
            super()._save(*args, **kwargs)


__all__ = ["ResumableTrainer"]
