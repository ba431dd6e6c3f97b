"""NEZHA for transformers. Importing this package registers `model_type: nezha` with `AutoModel...from_pretrained`."""

try:
    import torch  # noqa: F401  (first: without it, transformers warns before the model's code fails)
    import transformers
except ModuleNotFoundError as _missing:
    _install = "pip install 'nezha-convert[torch]' --extra-index-url https://download.pytorch.org/whl/cpu"
    raise ModuleNotFoundError(
        f"{_missing}; the package nezha needs torch and transformers: {_install}", name=_missing.name
    ) from _missing
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertTokenizer,
)

from .configuration_nezha import NezhaConfig
from .modeling_nezha import (
    NezhaForCausalLM,
    NezhaForMaskedLM,
    NezhaForMultipleChoice,
    NezhaForNextSentencePrediction,
    NezhaForPreTraining,
    NezhaForPreTrainingOutput,
    NezhaForQuestionAnswering,
    NezhaForSequenceClassification,
    NezhaForTokenClassification,
    NezhaModel,
    NezhaPreTrainedModel,
)

__version__ = "0.1.0"
"""nezha_convert's version, which the same distribution contains; a test compares the two."""

__all__ = [
    "NezhaConfig",
    "NezhaForCausalLM",
    "NezhaForMaskedLM",
    "NezhaForMultipleChoice",
    "NezhaForNextSentencePrediction",
    "NezhaForPreTraining",
    "NezhaForPreTrainingOutput",
    "NezhaForQuestionAnswering",
    "NezhaForSequenceClassification",
    "NezhaForTokenClassification",
    "NezhaModel",
    "NezhaPreTrainedModel",
    "__version__",
]

# exist_ok: transformers 4 already has a deprecated class under the name "nezha", which ours replaces.
AutoConfig.register("nezha", NezhaConfig, exist_ok=True)
AutoTokenizer.register(
    NezhaConfig,
    slow_tokenizer_class=BertTokenizer,
    fast_tokenizer_class=transformers.BertTokenizerFast,  # type: ignore[attr-defined]  # an alias in transformers 5
    exist_ok=True,
)
for _auto, _model in (
    (AutoModel, NezhaModel),
    (AutoModelForTextEncoding, NezhaModel),
    (AutoModelForPreTraining, NezhaForPreTraining),
    (AutoModelForMaskedLM, NezhaForMaskedLM),
    (AutoModelForCausalLM, NezhaForCausalLM),
    (AutoModelForNextSentencePrediction, NezhaForNextSentencePrediction),
    (AutoModelForSequenceClassification, NezhaForSequenceClassification),
    (AutoModelForMultipleChoice, NezhaForMultipleChoice),
    (AutoModelForTokenClassification, NezhaForTokenClassification),
    (AutoModelForQuestionAnswering, NezhaForQuestionAnswering),
):
    _auto.register(NezhaConfig, _model, exist_ok=True)
