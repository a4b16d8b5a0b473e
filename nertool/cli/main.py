"""The command line: parse, call, print, exit code. Anything heavy is imported where it is used."""

from __future__ import annotations

import io
import sys

import click

import nertool
from nertool.cli.audit import audit
from nertool.cli.common import examples
from nertool.cli.compare import compare
from nertool.cli.data import check, convert, list_formats
from nertool.cli.door import Door
from nertool.cli.export import export
from nertool.cli.hub import card, pull, push
from nertool.cli.init import init
from nertool.cli.label import label
from nertool.cli.look import look
from nertool.cli.model import attention, errors, evaluate, info
from nertool.cli.score import score
from nertool.cli.serve import serve
from nertool.cli.suggest import suggest
from nertool.cli.tag import tag
from nertool.cli.train import train
from nertool.cli.tune import tune
from nertool.cli.vectors import vectors


@click.group(
    cls=Door,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("nertool train demo.yaml", 'echo "Ada lives in London." | nertool tag -'),
)
@click.version_option(nertool.__version__)
def main() -> None:
    """Label sequences with BiLSTM-CNN-CRF: train, evaluate, tag."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where the locale lacks a character, a substitute is better than a traceback.
        sys.stdout.reconfigure(errors="replace")


# The order of the help page.
for command in (
    # a model, from training to use
    train,
    evaluate,
    tag,
    errors,
    info,
    serve,
    export,
    push,
    pull,
    card,
    # data
    init,
    check,
    convert,
    list_formats,
    vectors,
    # labelling
    label,
    suggest,
    audit,
    # experiments, and what goes on in a model
    compare,
    tune,
    score,
    look,
    attention,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
