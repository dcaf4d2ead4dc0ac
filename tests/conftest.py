"""What all tests share: no network, no user's cache, one thread, and shapes checked."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

# All of this is read when the packages are first imported.
CACHE = tempfile.TemporaryDirectory(prefix="omg-tests-")
os.environ["OMG_CACHE"] = CACHE.name
os.environ["HF_HUB_CACHE"] = f"{CACHE.name}/hub"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("OMG_TEXT_ENCODER", None)

import jaxtyping  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from filelock import FileLock  # noqa: E402

if TYPE_CHECKING:
    from omg_graph.model.model import Model
    from omg_graph.record.results import SavedRun

# The modules whose annotations give shapes. Others use typing.Self and plain protocols, which beartype
# refuses.
SHAPED = [
    "omg_graph.executor",
    "omg_graph.predictor",
    "omg_graph.priors",
    "omg_graph.encoders.observation",
    "omg_graph.retriever.evidence",
    "omg_graph.retriever.query",
]
jaxtyping.install_import_hook(SHAPED, "beartype.beartype")
CHECKED = (
    *(f"tests/{name.split('.')[1]}/" for name in SHAPED),
    "tests/test_pipeline.py",
    "tests/training/test_stages.py",
)
"""Where shapes are checked at every call; elsewhere the checks would only take a quarter of the time."""
torch.set_num_threads(1)


LONG = [
    "tests/training/test_graph.py",
    "tests/docs/test_examples.py",
    "tests/bench/ablation/test_variants.py",
    "tests/bench/ablation/test_ablate.py",
    "tests/bench/study/test_study.py",
    "tests/training/test_seeds_and_folds.py",
    "tests/training/test_distillation.py",
    "tests/evaluation/test_evaluate.py",
    "tests/cli/test_seeds_and_folds.py",
    "tests/cli/test_train.py",
    "tests/test_threads.py",
    "tests/test_telemetry.py",
]
"""What takes longest goes first, so that no worker is left with it at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(LONG)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    jaxtyping.config.update("jaxtyping_disable", not item.nodeid.startswith(CHECKED))


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed doesn't depend on the terminal, nor on pytest's workers, which set a width."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session", autouse=True)
def settings_apply() -> Iterator[Callable[[Any], None]]:
    """Commands set no threads, variables and log levels of this process; what they would set them by."""
    from omg_graph.cli.app import Settings

    with pytest.MonkeyPatch.context() as patch:
        apply = Settings.apply
        patch.setattr(Settings, "apply", lambda self: None)
        yield apply


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real data sets; tests that need them are skipped where they aren't there."""
    folder = Path(os.environ.get("OMG_DATA", ""))
    if not os.environ.get("OMG_DATA") or not folder.is_dir():
        pytest.skip("OMG_DATA doesn't name the folder of the real data sets")
    return folder


class ChatServer:
    """A provider of chat completions on loopback, which answers as a test says.

    ``reply`` is given a request's body and its number, and returns a text, a message's fields as a mapping,
    (status, headers, body), seconds to hang for, or None to drop the connection.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.reply: Callable[[dict[str, Any], int], Any] = lambda _, __: "{}"
        self.over = threading.Event()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    number = len(outer.requests)
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    outer.requests.append(body | {"_headers": headers})
                told = outer.reply(body, number)
                if isinstance(told, float):
                    outer.over.wait(told)
                    told = None
                if told is None:
                    self.close_connection = True
                    return
                status, headers, content = (
                    told if isinstance(told, tuple) else (200, {}, outer.completion(body, told))
                )
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @staticmethod
    def completion(request: dict[str, Any], told: str | dict[str, Any]) -> dict[str, Any]:
        """A chat completion, with log-probabilities if they were asked for and there are some."""
        fields = {"content": told} if isinstance(told, str) else dict(told)
        tokens, ended = fields.pop("tokens", None), fields.pop("finish_reason", "stop")
        choice = {"index": 0, "finish_reason": ended, "message": {"role": "assistant", **fields}}
        if tokens is not None and request.get("logprobs"):
            choice["logprobs"] = {"content": tokens, "refusal": None}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A chat provider of the test's own."""
    server = ChatServer()
    yield server
    server.close()


VIEWS = ("fou", "fac", "kar", "pix", "zer", "mor")
TINY_ENCODER = "tests/tiny-encoder"
"""A text encoder of random weights, in this run's own Hugging Face cache."""


@pytest.fixture(scope="session")
def tiny_text_encoder() -> str:
    """A BERT of random weights, 16 wide, that transformers finds by its name like any other."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from omg_graph.seeding import seeded

    repository = Path(os.environ["HF_HUB_CACHE"]) / f"models--{TINY_ENCODER.replace('/', '--')}"
    folder = repository / "snapshots" / ("0" * 40)
    alphabet = [chr(code) for code in range(33, 127)]
    words = ["[PAD]", "[UNK]", *alphabet, *(f"##{letter}" for letter in alphabet)]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=40))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    wrapped.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
    )
    with seeded("tiny text encoder"):
        BertModel(config).save_pretrained(folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    return TINY_ENCODER


@pytest.fixture(scope="session")
def tiny_thinker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-Omni thinker of random weights with a tokenizer of its kind. Read it, never write."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
    )

    from omg_graph.planner.prompting import load_prompt
    from omg_graph.planner.schemas import AFFECT, load_schema
    from omg_graph.seeding import seeded

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
    special += ["<|vision_bos|>", "<|vision_eos|>", "<|IMAGE|>", "<|VIDEO|>"]
    tokenizer = Tokenizer(models.BPE())
    # words with the space before them, digits, punctuation with the space before it, space
    pieces = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(pieces, "isolated"), letters])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    told = load_prompt("en").system_message(load_schema(AFFECT))
    tokenizer.train_from_iterator([told, '{"Entity": "story", "Action": "praises"}'], trainer)
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    folder = tmp_path_factory.mktemp("thinker")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    ).save_pretrained(folder)
    ids = {word: tokenizer.token_to_id(word) for word in special}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    sound = {"num_mel_bins": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    words = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = Qwen2_5OmniThinkerConfig(
        vision_config={**vision, "fullatt_block_indexes": [1], "initializer_range": 0.2},
        audio_config={**sound, "d_model": 32, "output_dim": 32, "initializer_range": 0.2},
        text_config={
            **words,
            "vocab_size": tokenizer.get_vocab_size() + 7,  # more than the tokenizer has, as in the real one
            "num_key_value_heads": 2,
            "rope_parameters": rotary,
            "initializer_range": 0.2,
        },
        audio_token_index=ids["<|AUDIO|>"],
        image_token_index=ids["<|IMAGE|>"],
        video_token_index=ids["<|VIDEO|>"],
        audio_start_token_id=ids["<|audio_bos|>"],
        audio_end_token_id=ids["<|audio_eos|>"],
        vision_start_token_id=ids["<|vision_bos|>"],
        vision_end_token_id=ids["<|vision_eos|>"],
        initializer_range=0.2,
    )
    with seeded("tiny thinker"):
        Qwen2_5OmniThinkerForConditionalGeneration(config).save_pretrained(folder)
    return folder


TINY_NETWORKS = {"members": 2, "hidden": 8, "epochs": 2}


@pytest.fixture(scope="session")
def tiny_settings(tiny_text_encoder: str) -> dict[str, Any]:
    """A training configuration that takes seconds."""
    return {
        "name": "tiny",
        "autoencoder": {"max_width": 8},
        "encoder": {"text_encoder": tiny_text_encoder, "hidden": 16, "epochs": 2},
        "planner": {"width": 16, "epochs": 2, "folds": 2, "patterns": 4},
        "retriever": {"epochs": 1, "top_k": 4},
        "executor": {"width": 16, "heads": 2, "train_steps": 50, "sample_steps": 5},
        "task": {"direct": TINY_NETWORKS},
        "optimiser": {"epochs": 2, "batch_size": 32},
    }


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where data and models that tests read lie: one folder for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny"
    folder.mkdir(exist_ok=True)
    return folder


def once(path: Path, make: Callable[[], object]) -> Path:
    """Have a file or folder made by whichever worker asks first; the others wait for it."""
    with FileLock(path.with_name(path.name + ".lock")):
        if not path.exists():
            make()
    return path


@pytest.fixture(scope="session")
def tiny_stages(tiny_folder: Path) -> Path:
    """Stages that trainings have in common, for tests that ask what a model does and not how it was made."""
    return tiny_folder / "stages"


@pytest.fixture(scope="session")
def train_tiny(tiny_settings: dict[str, Any], tiny_folder: Path, tiny_stages: Path) -> Callable[..., Path]:
    """Train on a file, through the graph; the model's folder."""
    from omg_graph.training.graph import build_training_graph

    common = {"overrides": tiny_settings, "shared_stages": str(tiny_stages)}

    def train(data: Path, name: str, **request: Any) -> Path:
        output = tiny_folder / name
        given = {"data": str(data), "output": str(output)} | common | request
        return once(output, lambda: build_training_graph().invoke(given))

    return train


Embed = Callable[[list[str]], np.ndarray]


@pytest.fixture(scope="session")
def hashed() -> Callable[[int], Embed]:
    """By width, what stands in for a sentence encoder: each text's own random unit vector."""
    from omg_graph.seeding import derived_seed

    def embed(texts: list[str], width: int) -> np.ndarray:
        rows = np.stack(
            [np.random.default_rng(derived_seed("test", text)).standard_normal(width) for text in texts]
        )
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return lambda width: partial(embed, width=width)


@pytest.fixture
def hashed_sentences(hashed: Callable[[int], Embed], monkeypatch: pytest.MonkeyPatch) -> None:
    """No sentence goes through a real encoder: thousands of them take a quarter of a minute."""
    embed = hashed(384)
    monkeypatch.setattr("omg_graph.encoders.text.SentenceEncoder.embed", lambda _, texts: embed(texts))


@pytest.fixture
def quickly_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regressions and times are most of what it costs to measure a planner: one of each does for a test."""
    from omg_graph.bench.planning import planning

    monkeypatch.setattr("omg_graph.bench.baselines.machines.LOGISTIC_COSTS", (0.03,))
    monkeypatch.setattr(planning, "speeds", partial(planning.speeds, repeats=1))


@pytest.fixture
def stages_in_common(tiny_stages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training of the test takes what another one has made, and leaves what it makes for others."""
    from omg_graph.training.cache import StageCache

    beside = StageCache.beside
    monkeypatch.setattr(
        StageCache, "beside", lambda output, shared=None: beside(output, shared or tiny_stages)
    )


@pytest.fixture(scope="session")
def tiny_data_file(tiny_folder: Path, hashed: Callable[[int], Embed]) -> Path:
    """Simulated clips: text, audio and vision, with transcripts and a sentiment, complete."""
    from omg_graph.data.writing import save_corpus
    from omg_graph.simulator import AffectSimulator, SimulatorConfig

    config = SimulatorConfig(
        entities=("story", "music"),
        actions=("praises", "criticises", "hesitates"),
        audio_features=5,
        vision_features=4,
    )
    corpus = AffectSimulator(config, hashed(12)).corpus({"train": 12, "valid": 4, "test": 3}, 4, seed=0)
    splits = {name: simulated.split for name, simulated in corpus.items()}
    path = tiny_folder / "clips.pkl"
    return once(path, lambda: save_corpus(path, splits))


@pytest.fixture(scope="session")
def tiny_model_folder(tiny_data_file: Path, train_tiny: Callable[..., Path]) -> Path:
    """Three modalities, transcripts, a sentiment in [-3, 3]; trained for two epochs. Read it, never write."""
    return train_tiny(tiny_data_file, "clips-model")


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Model:
    """The same, loaded."""
    from omg_graph.model.folder import load_model

    return load_model(tiny_model_folder)


@pytest.fixture
def sample(tiny_data_file: Path) -> dict[str, Any]:
    """A clip without its audio, as another program would send it: lists of numbers, and null."""
    from omg_graph.data.reader import read_data_file

    split = read_data_file(tiny_data_file).splits["test"]
    assert split.raw_text is not None
    return {
        "id": split.ids[0],
        "raw_text": split.raw_text[0],
        "text": split.arrays["text"][0].tolist(),
        "audio": None,
        "vision": split.arrays["vision"][0].tolist(),
    }


@pytest.fixture(scope="session")
def tiny_folds_folder(tiny_data_file: Path, tiny_settings: dict[str, Any], tiny_folder: Path) -> Path:
    """Two folds of the clips with two seeds each, in one folder. Read it, never write."""
    from omg_graph.training.request import TrainingRequest
    from omg_graph.training.seeds_and_folds import train_collection

    output = tiny_folder / "folds"
    request = TrainingRequest(data=str(tiny_data_file), output=str(output), overrides=tiny_settings)
    return once(output, lambda: train_collection(request, seeds=2, folds=2))


@pytest.fixture(scope="session")
def tiny_views_file(tiny_folder: Path) -> Path:
    """Six vectors a sample, classes by name, no text; a fifth of the slots is missing."""
    from omg_graph.seeding import derived_seed

    random = np.random.default_rng(1)
    splits: dict[str, dict[str, Any]] = {}
    for name, rows in (("train", 48), ("valid", 16)):
        classes = random.integers(0, 3, rows)
        hidden = random.standard_normal((rows, 3)) + 2 * np.eye(3)[classes]
        observed = random.random((rows, len(VIEWS))) > 0.2
        observed[np.arange(rows), random.integers(0, len(VIEWS), rows)] = True
        splits[name] = {
            "id": [f"{name}-{row}" for row in range(rows)],
            "classification_labels": [("ant", "bee", "cat")[index] for index in classes],
            "observed": {view: observed[:, column] for column, view in enumerate(VIEWS)},
        }
        for width, view in enumerate(VIEWS, start=2):
            loadings = np.random.default_rng(derived_seed(view)).standard_normal((3, width))
            splits[name][view] = hidden @ loadings + 0.3 * random.standard_normal((rows, width))
    path = tiny_folder / "views.pkl"
    return once(path, lambda: path.write_bytes(pickle.dumps(splits, protocol=4)))


@pytest.fixture(scope="session")
def tiny_views_folder(tiny_views_file: Path, train_tiny: Callable[..., Path]) -> Path:
    """Six vector modalities, classes, no text."""
    return train_tiny(tiny_views_file, "views-model")


@pytest.fixture(scope="session")
def tiny_plain_file(tiny_folder: Path) -> Path:
    """No text and no labels: a vector called ``keys``, a padded sequence ``a.b``, and two kinds of images."""
    random = np.random.default_rng(2)
    splits: dict[str, dict[str, Any]] = {}
    for name, rows in (("train", 32), ("valid", 12), ("test", 6)):
        hidden = random.standard_normal((rows, 2))
        sequence = hidden[:, None, :] + 0.1 * random.standard_normal((rows, 5, 2))
        lengths = random.integers(2, 6, rows)
        sequence[np.arange(5)[None] >= lengths[:, None]] = 0.0
        image = hidden @ random.standard_normal((2, 2 * 3 * 4)) + random.standard_normal((rows, 24))
        grey = np.clip(128 + 40 * (hidden @ random.standard_normal((2, 9))), 0, 255)
        splits[name] = {
            "id": [f"{name}-{row}" for row in range(rows)],
            "keys": np.concatenate([hidden, random.standard_normal((rows, 1))], axis=1),
            "a.b": sequence,
            "a.b_lengths": lengths,
            "photo": image.reshape(rows, 2, 3, 4),
            "grey": grey.reshape(rows, 3, 3).astype(np.uint8),
        }
    path = tiny_folder / "plain.pkl"
    return once(path, lambda: path.write_bytes(pickle.dumps(splits, protocol=4)))


@pytest.fixture(scope="session")
def tiny_plain_folder(tiny_plain_file: Path, train_tiny: Callable[..., Path]) -> Path:
    """Four modalities of three kinds, neither text nor labels."""
    return train_tiny(tiny_plain_file, "plain-model")


def _run(folder: Path, *arguments: str) -> SavedRun:
    from omg_graph.cli import main
    from omg_graph.record.results import open_run

    common = ["--no-report", "--keep-path", "all", "--json"]
    assert main(["run", "--output", str(folder), *common, *arguments]) == 0
    return open_run(folder)


@pytest.fixture(scope="session")
def clips_run(
    tiny_data_file: Path, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> SavedRun:
    """Twelve clips whose audio was hidden: labels, transcripts, intervals of three draws."""
    folder = tmp_path_factory.mktemp("runs") / "clips"
    common = ["--input", str(tiny_data_file), "--model", str(tiny_model_folder), "--split", "test"]
    return _run(folder, *common, "--missing", "audio", "--draws", "3")


@pytest.fixture(scope="session")
def plain_run(
    tiny_plain_file: Path, tiny_plain_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> SavedRun:
    """A padded sequence and two kinds of images that were hidden; no labels, no transcripts, one draw."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    hidden = [word for name in ("a.b", "photo", "grey") for word in ("--missing", name)]
    common = ["--input", str(tiny_plain_file), "--model", str(tiny_plain_folder), "--split", "test"]
    return _run(folder, *common, "--limit", "2", *hidden)
