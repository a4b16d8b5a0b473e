"""The input `transformer`, over tiny random networks made on the spot; compared with what transformers does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from networks import CLOSE, alone, whole  # noqa: E402

from nertool.config.loading import load_config, locate_files, parse_config, without_folders  # noqa: E402
from nertool.config.schema import Config  # noqa: E402
from nertool.data import states  # noqa: E402
from nertool.data.encoding import EncodedCorpus, Table  # noqa: E402
from nertool.data.pretrained import open_pretrained  # noqa: E402
from nertool.data.subtokens import Subtokens  # noqa: E402
from nertool.errors import BundleError, ConfigError, NertoolError  # noqa: E402
from nertool.model.inputs.base import Resources  # noqa: E402
from nertool.model.model import Model, new_model  # noqa: E402
from nertool.model.transformer import cut_windows  # noqa: E402
from nertool.tagging.bundle import load_bundle, pack, save_bundle, unpack  # noqa: E402
from nertool.tagging.predictor import Predictor  # noqa: E402
from nertool.tagging.tagger import Tagger  # noqa: E402
from nertool.text.document import Context, Document, in_context  # noqa: E402
from nertool.text.schemes import Scheme  # noqa: E402
from nertool.training.run import Finished, run  # noqa: E402
from nertool.training.states import Computing  # noqa: E402
from nertool.training.step import Learner  # noqa: E402

LONGEST = 40
LAYERS, SIZE = 3, 8
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-"


def write_tokenizer(folder: Path) -> None:
    """A WordPiece tokenizer that knows every letter, and some pieces."""
    pieces = [*LETTERS, *(f"##{letter}" for letter in LETTERS), "lon", "##don", "##ing", "the", "in"]
    vocabulary = {piece: n for n, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *pieces])}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    marks = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    made.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", None, marks)
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    made.save(str(folder / "tokenizer.json"))


def write_bert(folder: Path, seed: int = 1, **settings: object) -> Path:
    """Write a random BERT with its tokenizer; the random state of the process stays."""
    folder.mkdir(parents=True)
    sizes = {"vocab_size": 100, "hidden_size": SIZE, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "max_position_embeddings": LONGEST, "initializer_range": 0.5}
    return write_model(folder, transformers.BertConfig(**sizes, **settings), seed)


def write_model(folder: Path, config: object, seed: int = 1) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("transformers") / "tiny-bert")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test, and no way to the hub."""
    monkeypatch.setenv("NERTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "states"


def config_of(folder: Path, **settings: object) -> Config:
    tree = {
        "corpus": {"train": "none"},
        "inputs": {
            "words": {"dimensions": 5},
            "characters": None,
            "bert": {"kind": "transformer", "model": str(folder), "layers": [-1], **settings},
        },
        "model": {"encoder": {"hidden": 6}, "dropout": 0.0},
    }
    return Config.model_validate(tree)


TEXT = (
    ["the", "rain", "in", "London"],
    ["a", "\u200b", "longer", "sentence", "with", "\ud83d", "words", "9.45", "x" * 30],
    ["in"],
    ["London", "Londoning", "Oslo", "."],
)


def documents() -> list[Document]:
    tokens = [token for sentence in TEXT for token in sentence]
    starts = np.cumsum([0, *map(len, TEXT[:-1])]).tolist()
    labels = tuple("B-LOC" if token[0].isupper() else "O" for token in tokens)
    return [Document(tuple(tokens), sentence_starts=tuple(starts), labels=labels, scheme=Scheme.IOB2)]


def sentences() -> list[Document]:
    return [sentence for document in documents() for sentence in document.sentences()]


def model_of(folder: Path, **settings: object) -> Model:
    model = new_model(config_of(folder, **settings), sentences(), Scheme.IOB2, Resources())
    model.network.eval()
    return model


def vectors(model: Model, texts: list[Document]) -> list[np.ndarray]:
    """The vectors of the tokens of sentences, all in one batch."""
    corpus = EncodedCorpus(model.inputs, texts)
    batch = whole(corpus)
    with torch.no_grad():
        result = model.network.input("bert")(*batch.token_features["bert"])
    return [result[: len(text), column].numpy() for column, text in enumerate(texts)]


def reference(folder: Path, text: list[str], before: list[str], after: list[str], layers: list[int], pooling: str):
    """The same by transformers' own tokenizer and model, one sentence at a time."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), unk_token="[UNK]", pad_token="[PAD]"
    )
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    encoded = tokenizer([*before, *text, *after], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(
            input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], output_hidden_states=True
        ).hidden_states
    states = torch.stack([hidden[layer] for layer in layers]).mean(0)[0].numpy()
    rows = []
    for number in range(len(before), len(before) + len(text)):
        places = [place for place, word in enumerate(encoded.word_ids()) if word == number]
        rows.append(states[places[0]] if pooling == "first" else states[places].mean(0))
    return np.stack(rows)


class TestVectors:
    @pytest.mark.parametrize("pooling", ["first", "mean"])
    @pytest.mark.parametrize("layers", [[-1], [1, 2], [0, 3]], ids=str)
    def test_they_are_those_of_transformers(self, bert, pooling, layers):
        model = model_of(bert, pooling=pooling, layers=layers)
        text = TEXT[3]
        (found,) = vectors(model, [Document(tuple(text))])
        np.testing.assert_allclose(found, reference(bert, text, [], [], layers, pooling), atol=1e-5)

    def test_context_is_read_on_either_side(self, bert):
        model = model_of(bert, context=2)
        whole_text = ("u", "v", "w", "ab", "cd", "ef", "x", "y", "z")
        short = [Document(whole_text[3:6], context=Context(whole_text, 3))]
        (own,) = vectors(model, short)
        np.testing.assert_allclose(
            own, reference(bert, ["ab", "cd", "ef"], ["v", "w"], ["x", "y"], [-1], "first"), atol=1e-5
        )
        (without,) = vectors(model_of(bert), short)
        assert np.abs(own - without).max() > 1e-3

    @pytest.mark.parametrize("kind", ["roberta", "distilbert", "deberta-v2", "modernbert", "gpt2", "electra"])
    def test_other_kinds(self, tmp_path, kind):
        names = transformers.AutoConfig.for_model(kind)
        sizes = {"vocab_size": 100, "hidden_size": SIZE, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
        sizes |= {"intermediate_size": 16, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
        sizes |= {"cls_token_id": 2, "sep_token_id": 3, "embedding_size": SIZE, "max_position_embeddings": 50}
        known = {key: value for key, value in sizes.items() if hasattr(names, key)}
        folder = write_model(tmp_path / kind, transformers.AutoConfig.for_model(kind, **known))
        model = model_of(folder, layers=[1, -1], pooling="mean")
        found = vectors(model, [Document(tuple(TEXT[number])) for number in (3, 0)])
        for rows, number in zip(found, (3, 0), strict=True):
            np.testing.assert_allclose(rows, reference(folder, TEXT[number], [], [], [1, -1], "mean"), atol=1e-5)
        long = Document(tuple(TEXT[0] * 40))
        assert np.isfinite(vectors(model, [long])[0]).all()

    @pytest.mark.parametrize("context", [0, 3])
    def test_no_vector_depends_on_batch_or_padding(self, bert, context):
        model = model_of(bert, context=context)
        corpus = EncodedCorpus(model.inputs, sentences(), model.label_numbers)
        together = vectors(model, sentences())
        for number, expected in enumerate(together):
            with torch.no_grad():
                own = model.network.input("bert")(*alone(corpus, number).token_features["bert"])
            np.testing.assert_allclose(own[:, 0].numpy(), expected, atol=1e-5)

    def test_every_token_has_a_vector_however_long_the_sentence(self, bert):
        model = model_of(bert, pooling="mean", context=4)
        text = [*TEXT[0] * 30, "y" * 200, "end"]
        (found,) = vectors(model, [Document(tuple(text))])
        assert found.shape == (len(text), SIZE)
        assert (np.abs(found).sum(1) > 0).all() and np.isfinite(found).all()
        # The beginning is in the first window, as a text of that length is.
        room = LONGEST - 2
        pieces = Subtokens((bert / "tokenizer.json").read_text())
        _, counts = pieces.encode(text)
        fits = int((np.cumsum(counts) <= room).sum())
        assert int(counts[:fits].sum()) == room, "the window ends where a word does"
        (first,) = vectors(model, [Document(tuple(text[:fits]))])
        np.testing.assert_allclose(found[: fits // 2], first[: fits // 2], atol=1e-5)

    def test_a_word_without_sub_tokens_counts_as_unknown(self, bert):
        pieces = Subtokens((bert / "tokenizer.json").read_text())
        values, counts = pieces.encode(["\u200b", "", "in", "\ud83d"])
        assert counts.tolist() == [1, 1, 1, 1]
        assert values[0] == values[1] == 1  # [UNK]
        again, _ = pieces.encode(["in", "\u200b"])
        assert again.tolist() == [values[2], values[0]]

    def test_learnt_mix(self, bert):
        model = model_of(bert, mix="learned", layers=[1, 2, 3])
        (mean,) = vectors(model_of(bert, layers=[1, 2, 3]), sentences()[:1])
        (found,) = vectors(model, sentences()[:1])
        np.testing.assert_allclose(found, mean, atol=1e-5)
        module = model.network.input("bert")
        with torch.no_grad():
            module.weights.copy_(torch.tensor([50.0, 0.0, 0.0]))
            module.scale.fill_(2.0)
        (found,) = vectors(model, sentences()[:1])
        (first,) = vectors(model_of(bert, layers=[1]), sentences()[:1])
        np.testing.assert_allclose(found, 2 * first, atol=1e-5)

    def test_words_of_byte_pairs_begin_with_their_space(self, tmp_path):
        made = tokenizers.Tokenizer(tokenizers.models.BPE({"Ġ": 0, "a": 1, "Ġa": 2, "b": 3}, [("Ġ", "a")]))
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        values, counts = Subtokens(made.to_str()).encode(["a", "ab"])
        assert (values.tolist(), counts.tolist()) == ([2, 2, 3], [1, 2])


class TestWindows:
    @pytest.mark.parametrize("size", [1, 9, 10, 11, 18, 25, 100])
    def test_each_sub_token_is_taken_once_from_a_window_that_fits(self, size):
        windows = cut_windows(np.array([size]), np.ones(size, bool), 10)
        assert (windows.ends - windows.begins <= 10).all() and windows.ends.max() == size
        taken = [place for a, b in zip(windows.first, windows.last, strict=True) for place in range(a, b)]
        assert taken == list(range(size))
        for begin, end, first, last in zip(*windows, strict=True):
            assert begin <= first < last <= end
            # Where there is more text, some of it is seen on both sides.
            assert begin == 0 or first > begin
            assert end == size or last < end

    def test_context_fills_what_is_left(self):
        own = np.array([False] * 6 + [True] * 4 + [False] * 6)
        windows = cut_windows(np.array([16]), own, 10)
        assert [each.tolist() for each in windows] == [[3], [13], [6], [10]]
        windows = cut_windows(np.array([11]), own[:11], 10)  # more on the left, where the right has less
        assert [each.tolist() for each in windows] == [[1], [11], [6], [10]]

    def test_a_transformer_that_sees_nothing_is_refused(self):
        with pytest.raises(ConfigError, match="only 3 sub-tokens"):
            cut_windows(np.array([5]), np.ones(5, bool), 3)


class TestContext:
    def test_sentences_know_their_document(self):
        second = sentences()[2]
        assert second.around(2) == (("9.45", "x" * 30), tuple(TEXT[3][:2]))
        assert second.around(0) == ((), ())
        assert Document(("a", "b")).around(5) == ((), ())
        part = second.part(0, 1)
        assert part.around(1) == (("x" * 30,), ("London",))

    def test_parts_of_a_document_know_it(self):
        parts = [Document(("a", "b"), id="1"), Document(("c",), id="1"), Document(("d",), id="2")]
        assert [each.around(9) for each in in_context(parts)] == [((), ("c",)), (("a", "b"), ()), ((), ())]

    def test_what_is_known_is_kept(self):
        some = sentences()[1:3]
        assert [each.around(1) for each in in_context(some)] == [each.around(1) for each in some]

    def test_a_context_that_no_document_has_is_refused(self, bert):
        with pytest.raises(ConfigError, match=r"inputs\.bert\.context: has no effect"):
            new_model(config_of(bert, context=3), [Document(("a",), labels=("O",))], Scheme.IOB2, Resources())

    def test_tagging_sees_what_training_saw(self, bert):
        model = model_of(bert, context=3)
        together = Predictor(model).predict(documents(), marginals=True)
        single = Predictor(model).predict(sentences(), marginals=True)
        for number in range(len(TEXT)):
            np.testing.assert_allclose(together.marginals(number), single.marginals(number), atol=1e-5)
        lone = Predictor(model).predict([Document(tuple(TEXT[2]))], marginals=True)
        assert np.abs(lone.marginals(0) - single.marginals(2)).max() > 1e-6


class TestFiles:
    def test_pickled_weights_are_refused_with_what_to_do(self, bert, tmp_path):
        folder = tmp_path / "pickled"
        shutil.copytree(bert, folder)
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(ConfigError, match=r"unpickled.*save_pretrained"):
            model_of(folder)

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
    def test_missing_and_corrupt_files(self, bert, tmp_path, name):
        folder = tmp_path / "broken"
        shutil.copytree(bert, folder)
        (folder / name).write_bytes(b"{]")
        with pytest.raises(ConfigError, match="broken"):
            model_of(folder)
        (folder / name).unlink()
        with pytest.raises(ConfigError, match=name):
            model_of(folder)

    def test_weights_in_parts_and_of_a_larger_model(self, bert, tmp_path):
        """Those of a model with a head have other names; they may be in several files."""
        from safetensors.torch import load_file, save_file

        folder = tmp_path / "parts"
        shutil.copytree(bert, folder)
        tensors = {f"bert.{name}": value for name, value in load_file(bert / "model.safetensors").items()}
        (folder / "model.safetensors").unlink()
        names = sorted(tensors)
        index = {}
        for number, own in enumerate((names[::2], names[1::2])):
            file = f"model-0000{number}-of-00002.safetensors"
            save_file({name: tensors[name] for name in own}, folder / file)
            index |= dict.fromkeys(own, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        np.testing.assert_array_equal(
            np.concatenate(vectors(model_of(folder), sentences())),
            np.concatenate(vectors(model_of(bert), sentences())),
        )

    def test_missing_weights_are_not_drawn(self, bert, tmp_path):
        from safetensors.torch import load_file, save_file

        folder = tmp_path / "half"
        shutil.copytree(bert, folder)
        tensors = load_file(bert / "model.safetensors")
        save_file(
            {name: value for name, value in tensors.items() if ".1." not in name}, folder / "model.safetensors"
        )
        before = torch.get_rng_state()
        with pytest.raises(ConfigError, match=r"lack \d+ of its weights"):
            model_of(folder)
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_hub_is_not_needed_where_its_cache_has_the_model(self, bert, tmp_path, monkeypatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        commit = "0123456789abcdef0123456789abcdef01234567"
        place = tmp_path / "hub" / "models--ada--tiny"
        shutil.copytree(bert, place / "snapshots" / commit)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(commit)
        import huggingface_hub

        real = huggingface_hub.snapshot_download

        def offline(**options):
            assert options.get("local_files_only"), "the hub was asked"
            return real(**options, cache_dir=tmp_path / "hub")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
        found = open_pretrained("ada/tiny", download=True)
        assert (found.folder, found.revision) == (place / "snapshots" / commit, commit)

    def test_without_a_network_the_error_says_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(
            ConfigError, match=r"neither a folder nobody/nothing .*`hf download nobody/nothing` gets"
        ):
            model_of(Path("nobody/nothing"))
        with pytest.raises(ConfigError, match="there is no folder"):
            model_of(Path("./no/such/folder"))

    def test_settings_without_effect_are_refused(self, bert, tmp_path):
        for settings, wanted in [
            ({"learning_rate": 0.1}, "learning_rate: has no effect"),
            ({"checkpointing": True}, "checkpointing: has no effect"),
            ({"trainable": True, "include": True}, "include: has no effect"),
            ({"layers": [1, 1]}, "named twice"),
        ]:
            with pytest.raises(ConfigError, match=wanted):
                parse_config(config_of(bert).model_dump() | {
                    "inputs": {"bert": {"kind": "transformer", "model": "a/b", **settings}}
                })  # fmt: skip
        with pytest.raises(ConfigError, match=r"there is no layer 4; it has 3"):
            model_of(bert, layers=[4])
        with pytest.raises(ConfigError, match=r"revision: has no effect"):
            locate_files(
                config_of(bert, revision="main").model_copy(update={"corpus": config_of(bert).corpus}), None
            )


class TestBundles:
    @pytest.mark.parametrize("settings", [{}, {"include": True}, {"trainable": True}], ids=str)
    def test_a_saved_model_gives_the_same(self, bert, tmp_path, settings):
        model = model_of(bert, context=2, mix="learned", layers=[1, 2], **settings)
        save_bundle(model, tmp_path / "model")
        again = load_bundle(tmp_path / "model")
        expected = Predictor(model).predict(documents(), marginals=True)
        found = Predictor(again).predict(documents(), marginals=True)
        np.testing.assert_allclose(found.tables.marginals, expected.tables.marginals, atol=1e-6)
        unpacked = unpack(pack(model), "bytes")
        assert Predictor(unpacked).predict(documents()).labels == expected.labels

    def test_another_transformer_of_the_same_shape_is_refused(self, bert, tmp_path):
        own = tmp_path / "own"
        shutil.copytree(bert, own)
        save_bundle(model_of(own), tmp_path / "model")
        shutil.rmtree(own)
        with pytest.raises(BundleError, match=r"there is no folder .*inputs\.bert\.model in the model's config"):
            load_bundle(tmp_path / "model")
        write_bert(own, seed=2)
        with pytest.raises(BundleError, match=r"has other weights .*inputs\.bert\.include=true"):
            load_bundle(tmp_path / "model")

    def test_the_folder_may_move(self, bert, tmp_path):
        own = tmp_path / "own"
        shutil.copytree(bert, own)
        save_bundle(model_of(own), tmp_path / "model")
        own.rename(tmp_path / "moved")
        config = tmp_path / "model" / "config.yaml"
        config.write_text(config.read_text().replace(str(own), str(tmp_path / "moved")))
        load_bundle(tmp_path / "model")

    @pytest.mark.parametrize("settings", [{"include": True}, {"trainable": True}], ids=str)
    def test_a_model_that_includes_it_needs_nothing_else(self, bert, tmp_path, settings):
        own = tmp_path / "own"
        shutil.copytree(bert, own)
        model = model_of(own, **settings)
        save_bundle(model, tmp_path / "model")
        shutil.rmtree(own)
        again = load_bundle(tmp_path / "model")
        assert Predictor(again).predict(documents()).labels == Predictor(model).predict(documents()).labels

    @pytest.mark.parametrize(
        ("key", "value"),
        [("layers", 99), ("size", -1), ("tokenizer", "{}"), ("config", {"model_type": "no-such"}), ("config", [])],
    )
    def test_states_of_strangers(self, bert, tmp_path, key, value):
        model = model_of(bert, include=True)
        tree = {**model.inputs["bert"].state(), key: value}
        with pytest.raises((ValueError, TypeError, LookupError, ConfigError)):
            type(model.inputs["bert"]).restore("bert", model.config.inputs["bert"], tree).module(
                model.network.noise
            )

    def test_a_config_to_be_published_does_not_say_where_its_folder_is(self, bert):
        assert without_folders(config_of(bert)).inputs["bert"].model == bert.name
        assert without_folders(config_of(Path("ada/tiny"))).inputs["bert"].model == "ada/tiny"

    def test_export_refuses_it_by_name(self, bert, tmp_path):
        pytest.importorskip("onnx")
        from nertool.tagging.export import export_model

        with pytest.raises(NertoolError, match=r"inputs\.bert: the kind 'transformer'"):
            export_model(model_of(bert), tmp_path / "model.onnx")


def settings_of(bert: Path, **settings: object) -> list[str]:
    entry = {"kind": "transformer", "model": str(bert), "layers": [2, 3], **settings}
    return [
        *(f"inputs.bert.{key}={json.dumps(value)}" for key, value in entry.items()),
        "inputs.characters=null",
        "training.epochs=3",
    ]


def finished(config: Config, folder: Path, **options: object) -> tuple[Finished, list[Computing]]:
    records = list(run(config, folder, **options))
    last = records[-1]
    assert isinstance(last, Finished)
    return last, [record for record in records if isinstance(record, Computing)]


class TestTraining:
    @pytest.fixture
    def config(self, tiny_yaml, bert):
        return lambda **settings: locate_files(load_config(tiny_yaml, settings_of(bert, **settings)), tiny_yaml)

    def test_states_are_computed_once(self, config, tmp_path, cache):
        first, computed = finished(config(), tmp_path / "one")
        assert {record.total for record in computed} == {computed[0].total}  # both splits have the same sentences
        assert computed[-1].done == computed[-1].total
        (file,) = cache.glob("*.safetensors")
        assert not [path for path in cache.iterdir() if path != file]
        second, computed = finished(config(), tmp_path / "two")
        assert not computed
        weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("one", "two")]
        assert weights[0] == weights[1]
        assert first.best.validation == second.best.validation
        # What is kept is what the transformer computes.
        from safetensors.numpy import load_file

        model = load_bundle(tmp_path / "one")
        corpus = nertool_sentences(config())
        found = np.concatenate(vectors(model, corpus))
        np.testing.assert_allclose(load_file(file)["states"], found, atol=1e-5)

    def test_a_corrupt_file_is_computed_again(self, config, tmp_path, cache):
        finished(config(), tmp_path / "one")
        (file,) = cache.glob("*.safetensors")
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        assert finished(config(), tmp_path / "two")[1]
        assert bytes(content) != file.read_bytes()

    @pytest.mark.parametrize("settings", [{}, {"trainable": True, "warmup": 5}, {"include": True}], ids=str)
    def test_resumed_to_the_same_bits(self, config, tmp_path, settings, cache):
        finished(config(**settings), tmp_path / "whole")
        running = run(config(**settings), tmp_path / "parts")
        for record in running:
            if getattr(record, "number", 0) == 2:
                next(running)  # the checkpoint of epoch 2 is written before the first step of epoch 3
                break
        running.close()
        shutil.rmtree(cache, ignore_errors=True)
        finished(config(**settings), tmp_path / "parts", resume=True)
        one, two = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "parts"))
        assert one == two

    def test_another_transformer_is_not_resumed_with(self, config, tmp_path, bert):
        finished(config(), tmp_path / "run")
        other = write_bert(tmp_path / "tiny-bert", seed=5)
        changed = config(model=str(other))
        changed = changed.model_copy(update={"training": changed.training.model_copy(update={"epochs": 4})})
        with pytest.raises(BundleError, match=r"inputs\.bert: the content"):
            list(run(changed, tmp_path / "run", resume=True))

    @pytest.mark.parametrize(
        ("before", "settings"),
        [({}, {}), ({}, {"trainable": True}), ({"trainable": True}, {"trainable": True}), ({"include": True}, {})],
        ids=str,
    )
    def test_another_training_starts_from_it(self, config, tmp_path, before, settings):
        finished(config(**before), tmp_path / "one")
        base = config(**settings)
        start = base.start.model_copy(update={"model": str(tmp_path / "one")})
        base = base.model_copy(update={"start": start})
        if before and not settings:
            with pytest.raises(ConfigError, match=r"include: the model to start from has the weights"):
                list(run(base, tmp_path / "two"))
        else:
            second, _ = finished(base, tmp_path / "two")
            assert second.epochs == 3 and second.best.validation.micro.f1 > 0

    def test_training_changes_it_only_where_it_shall(self, config, tmp_path, bert):
        for settings, same in [({"include": True}, True), ({"trainable": True, "learning_rate": 0.01}, False)]:
            folder = tmp_path / str(same)
            finished(config(**settings), folder)
            model = load_bundle(folder)
            own = model.network.input("bert").inner.state_dict()
            first = transformers.AutoModel.from_pretrained(bert, local_files_only=True).state_dict()
            assert all(torch.equal(own[name], first[name]) for name in own) == same

    def test_random_state_and_default_type_stay(self, config, tmp_path):
        before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
        finished(config(trainable=True, checkpointing=True), tmp_path / "run")
        after = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
        assert torch.equal(before[0], after[0]) and before[1:] == after[1:]

    def test_a_tagger_tags_with_it(self, config, tmp_path):
        finished(config(context=0), tmp_path / "run")
        tagger = Tagger.load(tmp_path / "run")
        document = tagger("Babbage lived in London. Nobody came.")
        assert len(document.sentence_starts) == 2

    def test_the_spacy_component_learns_with_it(self, bert):
        spacy = pytest.importorskip("spacy")
        from spacy.training import Example

        nlp = spacy.blank("en")
        entry = {"kind": "transformer", "model": str(bert), "layers": [-1]}
        settings = {"inputs": {"bert": entry, "characters": None, "words": {"dimensions": 4}}}
        nlp.add_pipe("nertool", config={"settings": settings})
        doc = nlp.make_doc("Ada lives in London")
        example = Example.from_dict(doc, {"entities": [(13, 19, "LOC")]})
        nlp.initialize(lambda: [example])
        losses = nlp.update([example])
        assert losses["nertool"] > 0
        nlp.get_pipe("nertool").add_label("PER")
        again = spacy.blank("en")
        again.add_pipe("nertool").from_bytes(nlp.get_pipe("nertool").to_bytes())
        assert [e.text for e in again("Ada lives in London").ents] == [
            e.text for e in nlp("Ada lives in London").ents
        ]


def nertool_sentences(config: Config) -> list[Document]:
    from nertool.data.corpus import read_corpus

    return read_corpus(config.corpus).train.sentences


class TestRates:
    def steps(self, bert, **settings):
        model = model_of(bert, trainable=True, **settings)
        learner = Learner(model.network, model.config.training)
        batch = EncodedCorpus(model.inputs, sentences(), model.label_numbers).batch(np.arange(len(TEXT)))
        return model, learner, batch

    def test_its_own_rate_rises_and_follows_the_schedule(self, bert):
        _, learner, batch = self.steps(bert, learning_rate=1e-3, warmup=4)
        peak = learner.config.learning_rate
        found = []
        for share in (1.0, 1.0, 0.5, 0.5, 0.5, 0.25):
            learner.accumulate(batch)
            learner.step(peak * share)
            found.append(learner.optimization._own_rules[0].param_groups[0]["lr"])
        wanted = [
            1e-3 * s * w for s, w in zip((1, 1, 0.5, 0.5, 0.5, 0.25), (0.25, 0.5, 0.75, 1, 1, 1), strict=True)
        ]
        np.testing.assert_allclose(found, wanted)

    def test_gradients_reach_it_and_checkpointing_changes_none(self, bert):
        found = []
        for settings in ({}, {"checkpointing": True}):
            model, _, batch = self.steps(bert, **settings)
            model.network.train()
            from nertool.model.batch import Batch

            model.network.loss(Batch.of(batch)).backward()
            inner = model.network.input("bert").inner
            found.append({name: each.grad for name, each in inner.named_parameters() if each.grad is not None})
            assert float(inner.embeddings.word_embeddings.weight.grad.abs().sum()) > 0
        assert found[0].keys() == found[1].keys()
        for name, each in found[0].items():
            torch.testing.assert_close(each, found[1][name], **CLOSE)


class TestStates:
    def test_the_least_recently_used_go_first(self, cache, monkeypatch):
        monkeypatch.setenv(states.LIMIT, "0.00001")  # 10 kB
        for number, key in enumerate("ab"):
            with states.written(key, (100, 8)) as block:  # 3.7 kB
                block[:] = number
            os.utime(cache / f"{key}.safetensors", (number, number))
        assert states.read("a", (100, 8))[5, 5] == 0  # now it was used later than the other
        with states.written("c", (100, 8)) as block:
            block[:] = 2
        assert sorted(path.stem for path in cache.iterdir()) == ["a", "c"]
        assert states.read("a", (100, 9)) is None and states.read("b", (100, 8)) is None

    def test_what_is_too_large_is_not_kept(self, cache, monkeypatch):
        monkeypatch.setenv(states.LIMIT, "0")
        with states.written("a", (10, 8)) as block:
            block[:] = 1
        assert not cache.exists() or not list(cache.iterdir())
        monkeypatch.setenv(states.LIMIT, "much")
        with pytest.raises(ConfigError, match="expected a number of GB"), states.written("a", (10, 8)):
            pass

    def test_sentences_are_found_in_any_order(self):
        known = states.States()
        block = np.arange(12.0).reshape(6, 2)
        known.add([b"a", b"b", b"c"], np.array([1, 2, 3]), block)
        assert known.find([b"b", b"c"], np.array([2, 3])).base is not None
        np.testing.assert_array_equal(known.find([b"c", b"a"], np.array([3, 1])), block[[3, 4, 5, 0]])
        assert known.find([b"a", b"x"], np.array([1, 1])) is None

    def test_keys_tell_sentences_apart(self):
        table = Table(np.array([1, 2, 3, 1, 2, 3]), np.array([0, 1, 3, 5, 6]))
        one, two = states.sentence_keys(table, np.array([2, 2]))
        assert one != two
        assert states.sentence_keys(Table(table.values[:3], table.offsets[:3]), np.array([2])) == [one]
