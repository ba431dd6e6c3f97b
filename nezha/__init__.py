"""NEZHA for transformers. Importing this package makes `AutoModel...from_pretrained` know `model_type: nezha`."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertTokenizer,
    BertTokenizerFast,
)

from .configuration_nezha import NezhaConfig
from .modeling_nezha import (
    NezhaForMaskedLM,
    NezhaForMultipleChoice,
    NezhaForNextSentencePrediction,
    NezhaForPreTraining,
    NezhaForQuestionAnswering,
    NezhaForSequenceClassification,
    NezhaForTokenClassification,
    NezhaModel,
    NezhaPreTrainedModel,
)

__all__ = [
    "NezhaConfig",
    "NezhaForMaskedLM",
    "NezhaForMultipleChoice",
    "NezhaForNextSentencePrediction",
    "NezhaForPreTraining",
    "NezhaForQuestionAnswering",
    "NezhaForSequenceClassification",
    "NezhaForTokenClassification",
    "NezhaModel",
    "NezhaPreTrainedModel",
]

# exist_ok: transformers 4 knows the name "nezha" already, for a deprecated class that ours replaces.
AutoConfig.register("nezha", NezhaConfig, exist_ok=True)
AutoTokenizer.register(
    NezhaConfig, slow_tokenizer_class=BertTokenizer, fast_tokenizer_class=BertTokenizerFast, exist_ok=True
)
for _auto, _model in (
    (AutoModel, NezhaModel),
    (AutoModelForPreTraining, NezhaForPreTraining),
    (AutoModelForMaskedLM, NezhaForMaskedLM),
    (AutoModelForNextSentencePrediction, NezhaForNextSentencePrediction),
    (AutoModelForSequenceClassification, NezhaForSequenceClassification),
    (AutoModelForMultipleChoice, NezhaForMultipleChoice),
    (AutoModelForTokenClassification, NezhaForTokenClassification),
    (AutoModelForQuestionAnswering, NezhaForQuestionAnswering),
):
    _auto.register(NezhaConfig, _model, exist_ok=True)
