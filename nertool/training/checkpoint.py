"""A training between two epochs, in one file: enough to go on to the same bits.

An epoch depends on the weights, the state of the update rules and of the averages, the random stream of dropout,
and the number of the epoch (its batches are drawn from seed and number alone). All of that is in the file, which
is replaced as a whole: whenever a training is stopped, its last epoch boundary is there. It stays after the end of
the training, so that more epochs can be asked for.

The file vouches for the model of the best epoch beside it by the digest of its weights. When an epoch replaces
them, the weights before are kept under another name until the checkpoint of that epoch is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nertool.config.files import remove_files, sync_folder
from nertool.config.loading import flow, in_force
from nertool.config.schema import TrainingConfig
from nertool.data.streaming import StreamedCorpus
from nertool.errors import BundleError, NertoolError
from nertool.model.concurrency import fork_safe
from nertool.model.model import Model
from nertool.tagging.bundle import WEIGHTS, load_bundle, save_bundle, training_digest
from nertool.tagging.tensorfile import DIGEST, check_digest, read_tensors, read_texts, write_tensors
from nertool.training.preparation import STARTED_FROM, Prepared
from nertool.training.step import Learner
from nertool.training.trainer import Epoch

CHECKPOINT = "checkpoint.safetensors"
KEPT = f".{WEIGHTS}.kept"
_FORMAT = "4"
_LARGEST_HEADER = 2**26  # bytes: the records of all epochs are in it, about a thousand each
# They do not change what was learnt.
_FUTURE = {"training.epochs", "training.patience", "training.threads", "training.device"}
_AGAINST_DIVERGENCE = {"training.learning_rate", "training.clip", "training.clip_by"}


@dataclass(frozen=True)
class Identity:
    """What a training has learnt from so far.

    Attributes:
        settings: Settings that decide what is learnt, by their full names.
        reading: Settings of how the corpus is read; they matter as far as they change the content.
        content: Digests of the training split, the validation split, the inputs, and the model to start from.
    """

    settings: dict[str, Any]
    reading: dict[str, Any]
    content: dict[str, str]

    def differences(self, before: Identity) -> list[str]:
        """List what is not as it was before, in words."""
        names = sorted(self.settings.keys() | before.settings.keys())
        found = [_change(name, self.settings, before.settings) for name in names]
        splits = [name for name in ("training", "validation") if self.content[name] != before.content.get(name)]
        found += [f"the content of the {name} split" for name in splits]
        if self.content.get(STARTED_FROM) != before.content.get(STARTED_FROM):
            found.append(f"{STARTED_FROM}: the content of the model to start from")
        if splits:
            found += [_change(name, self.reading, before.reading) for name in sorted(self.reading)]
        elif not any(found):  # else they follow from what is named already
            names = sorted(self.content.keys() | before.content.keys())
            found += [
                f"inputs.{name}: the content of its files"
                for name in names
                if self.content.get(name) != before.content.get(name)
            ]
        return [each for each in found if each]


def identify(prepared: Prepared) -> Identity:
    """Tell what a training learns from; where files are does not matter, their content does."""
    config = prepared.config
    tree = in_force(config)
    settings = {name: value for name, value in _flat(tree["training"], "training.") if name not in _FUTURE}
    if config.training.schedule.kind in ("cosine", "one_cycle"):  # they are laid out over all epochs
        settings["training.epochs"] = config.training.epochs
    if settings["training.precision"] == "fp32":  # as in checkpoints from before there was a choice
        del settings["training.precision"]
    settings |= dict(_flat(tree["model"], "model."))
    settings |= {name: value for name, value in _flat(tree["start"], "start.") if name != STARTED_FROM}
    if isinstance(prepared.encoded, StreamedCorpus):
        if not prepared.encoded.covered:
            settings["corpus.shuffle"] = config.corpus.shuffle
        if prepared.encoded.parts > 1:
            settings["corpus.epoch_tokens"] = config.corpus.epoch_tokens
    settings["inputs"] = list(config.active_inputs)  # in order
    for name, entry in config.active_inputs.items():
        elsewhere = {*entry.file_settings, *entry.places}
        chosen = {key: value for key, value in tree["inputs"][name].items() if key not in elsewhere}
        settings |= dict(_flat(chosen, f"inputs.{name}."))
    reading = {name: value for name, value in _flat(tree["corpus"], "corpus.") if name != "corpus.test"}
    return Identity(settings, reading, prepared.digests)


class Checkpoint:
    """The state of a training in its folder, beside the model of the best epoch.

    Args:
        folder: The run directory.
        learner: New, of the network as built at the beginning of the training.
        identity: What the training learns from.
    """

    def __init__(self, folder: Path, learner: Learner, identity: Identity) -> None:
        self._folder = folder
        self._path = folder / CHECKPOINT
        self._learner = learner
        self._identity = identity
        self._vouched = ""  # digest of the weights of the best epoch

    def exists(self) -> bool:
        """Say whether there is a state to go on from."""
        return self._path.exists()

    @fork_safe
    def load(self) -> list[Epoch]:
        """Restore the state of a training.

        Returns:
            The epochs so far.

        Raises:
            BundleError: The checkpoint is corrupt, of a training that learns from something else, or the model
                beside it is not the one that it vouches for.
            NertoolError: The training diverged, and nothing has changed that could help.
        """
        tensors, metadata = read_tensors(self._path, ("nertool-checkpoint", _FORMAT), _LARGEST_HEADER)
        check_digest(self._path, tensors, metadata)
        learner = self._learner
        try:
            before = Identity(**json.loads(metadata["identity"]))
            epochs = [Epoch.from_json(tree) for tree in json.loads(metadata["epochs"])]
            vouched, best = metadata["weights"], epochs[-1].best
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as problem:
            raise BundleError(f"{self._path}: corrupt ({problem})") from None
        self._compare(before, metadata.get("diverged"))
        self._find_best(vouched, best)
        try:
            learner.restore(tensors)
        except Exception as problem:  # torch raises errors of many types
            raise BundleError(f"{self._path}: corrupt ({problem})") from None
        return epochs

    def save_best(self, model: Model) -> None:
        """Write the model of the best epoch so far; the one before can be had until `save` is called.

        Raises:
            NertoolError: It cannot be written; the one before is still there.
        """
        if self.exists():
            kept = self._folder / KEPT
            remove_files(self._folder, [KEPT])
            try:
                kept.hardlink_to(self._folder / WEIGHTS)
            except OSError:  # a file system without links
                with suppress(OSError):
                    shutil.copy2(self._folder / WEIGHTS, kept)
        save_bundle(model, self._folder)
        self._vouched = read_texts(self._folder / WEIGHTS, _LARGEST_HEADER)[DIGEST]

    @fork_safe
    def save(self, epochs: Sequence[Epoch]) -> None:
        """Write the state of the training after an epoch.

        Args:
            epochs: All so far. The network holds the weights that training goes on from (not their averages).

        Raises:
            NertoolError: It cannot be written; the checkpoint before it is still there.
        """
        tensors = self._learner.state()
        metadata = {
            "nertool-checkpoint": _FORMAT,
            "identity": json.dumps(asdict(self._identity)),
            "weights": self._vouched,
            "epochs": json.dumps([epoch.to_json() for epoch in epochs]),
        }
        write_tensors(self._path, tensors, metadata)
        remove_files(self._folder, [KEPT])

    def mark_diverged(self, epoch: int) -> None:
        """Note that the training diverged in the epoch after this state, so that it is not repeated as it was."""
        tensors, metadata = read_tensors(self._path, ("nertool-checkpoint", _FORMAT), _LARGEST_HEADER)
        write_tensors(self._path, tensors, {**metadata, "diverged": str(epoch)})

    def _compare(self, before: Identity, diverged: str | None) -> None:
        changed = {name for name in _AGAINST_DIVERGENCE if _change(name, self._identity.settings, before.settings)}
        if diverged is not None and changed:
            before = Identity(
                {**before.settings, **{name: self._identity.settings.get(name) for name in changed}},
                before.reading,
                before.content,
            )
        differences = self._identity.differences(before)
        if differences:
            listed = "".join(f"\n  - {each}" for each in differences)
            raise BundleError(
                f"{self._path}: the training in this folder has learnt from something else so far:{listed}\n"
                f"Go on with what it had (the folder's config.yaml, with --resume and --output {self._folder}), "
                "or train from the beginning without --resume"
            )
        if diverged is not None and not changed:
            training = self._learner.config
            raise NertoolError(
                f"{self._folder}: this training diverged in epoch {diverged}, and would again; "
                + what_helps(training)
            )

    def _find_best(self, vouched: str, best: int) -> None:
        """Make sure that the model in the folder is that of the best epoch, and that it loads."""
        weights, kept = self._folder / WEIGHTS, self._folder / KEPT
        if _digest(weights) != vouched:
            if _digest(kept) != vouched:
                raise BundleError(
                    f"{weights}: not the model of epoch {best}, the best one, that {CHECKPOINT} belongs to; put "
                    "it back, or train from the beginning without --resume"
                )
            try:
                kept.replace(weights)
            except OSError as problem:
                raise NertoolError(f"{weights}: cannot be replaced: {problem.strerror or problem}") from None
            sync_folder(self._folder)
        remove_files(self._folder, [KEPT])
        load_bundle(self._folder)
        self._vouched = vouched


def what_helps(training: TrainingConfig) -> str:
    """Say what helps a training that diverged under these settings."""
    clip = f"smaller training.clip (now {training.clip:g})" if training.clip else "training.clip (now 0, no limit)"
    return (
        f"what helps is a smaller training.learning_rate (now {training.learning_rate:g}) or a {clip}, such as "
        f"--set training.learning_rate={training.learning_rate / 5:.2g}"
    )


def _digest(path: Path) -> str | None:
    try:
        return training_digest(path)
    except BundleError:
        return None


def _change(name: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    if now.get(name) == before.get(name):
        return ""
    return f"{name}: {flow(now.get(name))}, was {flow(before.get(name))}"


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
