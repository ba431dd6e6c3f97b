"""transformers' own tests for model classes, run on NEZHA's."""

from __future__ import annotations

import importlib
import sys
import types
import unittest
from pathlib import Path
from unittest import mock

import pytest
import torch
import transformers
import upstream
from packaging.version import Version
from transformers.cache_utils import DynamicCache
from transformers.models.auto import modeling_auto

import nezha

RELEASE = transformers.__version__
if Version(RELEASE) < Version("5"):
    pytest.skip(f"written for the tests of transformers 5, {RELEASE} is installed", allow_module_level=True)


class UnregisteredMarks:
    """A `pytest.mark` whose every mark, with arguments or without, leaves a test as it is."""

    def __getattr__(self, name: str):
        return lambda *given, **named: given[0] if len(given) == 1 and callable(given[0]) else lambda test: test


def _load_upstream_tests(folder: Path) -> types.ModuleType:
    """`test_modeling_common.py`, under a package name of its own: ours and theirs are both called `tests`."""
    package = "transformers_release_tests"
    root = types.ModuleType(package)
    root.__path__ = [str(folder)]
    # The source distribution carries only the top of their test folder; these two mixins live below it. What they would
    # test, exporting and generating text, is not tested here.
    absent = {
        "exporters": {},
        "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
        "generation": {},
        "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    }
    sys.modules[package] = root
    for name, content in absent.items():
        module = types.ModuleType(f"{package}.{name}")
        vars(module).update(content)
        sys.modules[module.__name__] = module
    # They label tests with marks that only their own pytest configuration registers.
    with mock.patch.object(pytest, "mark", UnregisteredMarks()):
        return importlib.import_module(f"{package}.test_modeling_common")


try:
    common = _load_upstream_tests(upstream.release_tests(RELEASE) / "tests")
except upstream.UnavailableError as reason:
    pytest.skip(str(reason), allow_module_level=True)


class NezhaModelTester:
    def __init__(self, parent) -> None:
        self.parent = parent
        self.batch_size = 13
        self.seq_length = 7
        self.is_training = True
        self.vocab_size = 99
        self.hidden_size = 32
        self.num_hidden_layers = 2
        self.num_attention_heads = 4
        self.num_choices = 4

    def get_config(self):
        return nezha.NezhaConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            max_relative_position=4,
            num_labels=3,
        )

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {
            "input_ids": common.ids_tensor([self.batch_size, self.seq_length], self.vocab_size),
            "token_type_ids": common.ids_tensor([self.batch_size, self.seq_length], 2),
            "attention_mask": common.random_attention_mask([self.batch_size, self.seq_length]),
        }


# How their tests tell which inputs and labels a class takes: by its name, in the tables behind the Auto classes.
TASKS = {
    "MODEL_MAPPING_NAMES": nezha.NezhaModel,
    "MODEL_FOR_PRETRAINING_MAPPING_NAMES": nezha.NezhaForPreTraining,
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES": nezha.NezhaForMaskedLM,
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": nezha.NezhaForCausalLM,
    "MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES": nezha.NezhaForNextSentencePrediction,
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": nezha.NezhaForSequenceClassification,
    "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES": nezha.NezhaForMultipleChoice,
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": nezha.NezhaForTokenClassification,
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES": nezha.NezhaForQuestionAnswering,
}


# They ask for the mixin of a model that generates. It is not in the source distribution; tests/model/test_generation.py
# tests that.
class NezhaModelTest(common.ModelTesterMixin, common.GenerationTesterMixin, unittest.TestCase):
    all_model_classes = tuple(TASKS.values())
    # Off by default for models older than 2023; ours is new.
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self) -> None:
        self.model_tester = NezhaModelTester(self)
        for table, model_class in TASKS.items():
            patch = mock.patch.dict(getattr(modeling_auto, table), {"nezha": model_class.__name__})
            patch.start()
            self.addCleanup(patch.stop)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is nezha.NezhaForPreTraining:
            tester = self.model_tester
            inputs["labels"] = torch.zeros(tester.batch_size, tester.seq_length, dtype=torch.long)
            inputs["next_sentence_label"] = torch.zeros(tester.batch_size, dtype=torch.long)
        return inputs

    def test_bc_cache_name_forward(self) -> None:
        """Theirs asks for a warning at the older name. Our model also runs in releases before 5.24, and takes both."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = nezha.NezhaForCausalLM(config).eval()
        older, newer = DynamicCache(), DynamicCache()
        logits = model(**inputs, past_key_values=older).logits
        assert torch.equal(logits, model(**inputs, cache=newer).logits)
        assert older.get_seq_length() == newer.get_seq_length() == self.model_tester.seq_length
