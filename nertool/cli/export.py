"""`nertool export`: a model as one file that runs without torch."""

from __future__ import annotations

from pathlib import Path

import click

from nertool.cli.common import examples, model_folder
from nertool.cli.door import explains_errors, say
from nertool.errors import NertoolError


@click.command(
    epilog=examples("nertool export runs/conll03 conll03.onnx", "nertool export runs/demo d.onnx --int8")
)
@click.argument("model")
@click.argument("output", metavar="OUT.onnx")
@click.option("--fp16", is_flag=True, help="Keep weights as 16-bit floats: half the size.")
@click.option("--int8", is_flag=True, help="Keep weights as 8-bit integers: a quarter of the size.")
@explains_errors
def export(model: str, output: str, fp16: bool, int8: bool) -> None:
    """Write MODEL as one ONNX file that tags without torch.

    MODEL is a run directory or hub:owner/name. The file has the network, the scores of the CRF and the
    vocabularies. Commands take it as a model: nertool tag --model OUT.onnx, and so does Tagger.load.
    """
    if fp16 and int8:
        raise NertoolError("--fp16 and --int8: choose one")
    if Path(output).suffix.lower() != ".onnx":
        raise NertoolError(f"{output}: the name of an exported model ends in .onnx")
    folder = model_folder(model)
    if not folder.is_dir():
        raise NertoolError(f"{folder}: expected a run directory; an exported model cannot be exported again")
    from nertool.tagging.bundle import load_bundle
    from nertool.tagging.export import export_model

    export_model(load_bundle(folder), Path(output), "int8" if int8 else "fp16" if fp16 else "fp32")
    say(f"written: {output} ({Path(output).stat().st_size / 1e6:.1f} MB)", err=False)
