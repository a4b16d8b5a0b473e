"""Find likely annotation errors: models tag what they did not learn from, and are compared with the annotation."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nertool.comparison.processes import LOG, Processes, Running, epochs_in, failure, prepare_folder
from nertool.config.files import is_stream, refuse_links
from nertool.config.schema import Config
from nertool.data.corpus import Split
from nertool.data.folds import make_folds
from nertool.errors import ConfigError, NertoolError
from nertool.experiments.fold import HELD_OUT, JOB, FoldJob, HeldOut, read_held_out, write_job
from nertool.experiments.suspects import Judgement, judge
from nertool.tagging.bundle import FILES
from nertool.training.checkpoint import CHECKPOINT
from nertool.training.run import METRICS, RESULTS

DOUBT = 0.7  # what each model that disagrees multiplies the weight of a sentence by


@dataclass(frozen=True)
class FoldEnded:
    """A training of an audit has ended.

    Attributes:
        job: Which.
        result: What its model says of the fold that it did not learn from.
        before: Whether it had ended before this call.
    """

    job: FoldJob
    result: HeldOut
    before: bool


@dataclass(frozen=True)
class Audit:
    """A whole audit.

    Attributes:
        data: Name of the data.
        split: What was checked.
        config: Of the trainings.
        folds, repeats: How often was trained.
        judgement: What the models say.
        f1: Mean F1 of the models on the sentences that chose their best epochs.
    """

    data: str
    split: Split
    config: Config
    folds: int
    repeats: int
    judgement: Judgement
    f1: float

    def weights(self) -> np.ndarray:
        """Return a weight for each sentence, (sentences,): `DOUBT` to the power of the models that disagree.

        (CrossWeigh, Wang et al. 2019, section 3.3: there the power is the number of repeats in which a sentence is
        flagged, and the base is 0.7.)
        """
        result: np.ndarray = DOUBT ** self.judgement.disagreements.astype(float)
        return result

    def to_json(self, top: int | None = None) -> dict[str, Any]:
        """Return plain values.

        Args:
            top: How many suspects are listed at most; None: all.
        """
        suspects = self.judgement.suspects
        return {
            "data": self.data,
            "folds": self.folds,
            "repeats": self.repeats,
            "validation_f1": self.f1,
            "sentences": len(self.split),
            "tokens": self.split.token_count,
            "entities": sum(self.split.entity_counts().values()),
            "suspects": [
                {
                    "rank": rank,
                    self.split.unit: line_of(self.split, each.sentence, each.region.start),
                    "sentence": each.sentence,
                    "sentence_line": line_of(self.split, each.sentence, 0),
                    **each.to_json(),
                    "tokens": list(self.split.sentences[each.sentence].tokens),
                }
                for rank, each in enumerate(suspects[:top], 1)
            ],
            "found": len(suspects),
        }


def line_of(split: Split, sentence: int, token: int) -> int:
    """Return the line of a token, or the row of its sentence, from 1."""
    origin = split.sentences[sentence].origin
    if origin is None or not origin.starts:
        return sentence + 1
    return origin.line(0, token) or origin.starts[0]


def judged(
    data: str, split: Split, config: Config, jobs: Sequence[FoldJob], results: Mapping[FoldJob, HeldOut]
) -> Audit:
    """Compare the annotation with what all models say.

    Args:
        data: Name of the data.
        split: As from `read_whole`.
        config: Of the trainings.
        jobs: All trainings.
        results: Of each.

    Raises:
        NertoolError: The data was changed, or the models learnt nothing.
    """
    repeats = sorted({job.repeat for job in jobs})
    views = [[results[job] for job in jobs if job.repeat == repeat] for repeat in repeats]
    if sum(len(each.sentences) for each in views[0]) != len(split):
        raise NertoolError("the data was changed while models were trained; start again")
    f1 = sum(each.f1 for each in results.values()) / len(results)
    if f1 == 0:
        raise NertoolError(
            "no model found an entity of the sentences that chose its best epoch (F1 0), so that what they "
            "suggest means nothing: train longer (--set training.epochs=N), or with word vectors (--vectors)"
        )
    return Audit(data, split, config, len(views[0]), len(views), judge(split, views), f1)


def check_config(config: Config) -> Config:
    """Return the config of an audit's trainings: without a test split, one thread each unless it says otherwise.

    Raises:
        ConfigError: A file can be read only once, or the config takes a part of the data.
    """
    if config.corpus.fold is not None or config.corpus.fraction < 1:
        raise ConfigError("corpus.fold and corpus.fraction: all of the data is checked; leave them out")
    for key in ("keep_labels", "self_label"):
        if getattr(config.start, key):
            raise ConfigError(
                f"start.{key}: an audit is for types that the data annotates, and the models would find others; "
                "leave it out"
            )
    names = [name for name in (config.corpus.train, config.corpus.validation) if name]
    if config.corpus.hub is None and (once := [name for name in names if is_stream(Path(name))]):
        raise ConfigError(f"{', '.join(once)}: can be read only once, and each training reads it; name a file")
    training = config.training.model_copy(update={"threads": config.training.threads or 1})
    corpus = config.corpus.model_copy(update={"test": None})
    return config.model_copy(update={"corpus": corpus, "training": training})


def plan_folds(split: Split, folds: int, repeats: int) -> list[FoldJob]:
    """Return all trainings: those of the first repeat, then those of the second.

    Raises:
        CorpusError: The split has fewer documents, or sentences, than folds.
    """
    make_folds(split, folds)
    return [FoldJob(repeat, fold, folds) for repeat in range(repeats) for fold in range(folds)]


def run_folds(
    config: Config, jobs: Sequence[FoldJob], folder: Path, side_by_side: int
) -> Generator[FoldEnded | Running, None, None]:
    """Run the trainings that have not ended yet, each in a process. Closing the iterator stops them.

    Args:
        config: As from `check_config`; each repeat has the next seed.
        jobs: All of the audit.
        folder: For the run directories.
        side_by_side: How many processes there may be at once.

    Raises:
        NertoolError: A training failed, or a folder cannot be written to.
    """
    waiting: list[int] = []
    for number, job in enumerate(jobs):
        result = read_held_out(_folder(folder, job), _config(config, job), job)
        if result is None:
            waiting.append(number)
        else:
            yield FoldEnded(job, result, True)
    with Processes("nertool.experiments.fold") as processes:
        while waiting or len(processes):
            while waiting and len(processes) < side_by_side:
                number = waiting.pop(0)
                own = _folder(folder, jobs[number])
                _prepare_folder(own, _config(config, jobs[number]), jobs[number])
                processes.start(number, own, config.training.threads)
            for number, code in processes.ended():
                own = _folder(folder, jobs[number])
                result = read_held_out(own, _config(config, jobs[number]), jobs[number]) if code == 0 else None
                if result is None:
                    why = failure(own, code) if code else "the data was changed while it was trained"
                    raise NertoolError(f"fold {jobs[number].fold + 1}: {why} (log: {own / LOG})")
                yield FoldEnded(jobs[number], result, False)
            yield Running({number: epochs_in(own) for number, own in processes.folders.items()})


def _config(config: Config, job: FoldJob) -> Config:
    seed = (config.training.seed + job.repeat) % 2**32
    return config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})


def _folder(folder: Path, job: FoldJob) -> Path:
    return folder / f"repeat-{job.repeat + 1}" / f"fold-{job.fold + 1}-of-{job.folds}"


def _prepare_folder(folder: Path, config: Config, job: FoldJob) -> None:
    home = folder.parent.parent
    own = folder.relative_to(home)
    names = (*FILES, CHECKPOINT, RESULTS, METRICS, HELD_OUT, JOB, LOG)
    refuse_links(home, [str(own / name) for name in names])
    prepare_folder(folder, config, names)
    write_job(folder, job)
