"""The evaluator."""

import numpy as np
import pytest

from t5x.data import (
    ByteVocabulary,
    EncDecFeatureConverter,
    Evaluator,
    Feature,
    Mixture,
    Task,
    TaskRegistry,
)
from t5x.data.preprocessors import append_eos, tokenize

WORDS = ["do", "re", "mi", "fa", "sol"]
FEATURES = {"inputs": Feature(ByteVocabulary()), "targets": Feature(ByteVocabulary())}


def exact(targets, predictions):
    return {"exact": np.mean([t == p for t, p in zip(targets, predictions, strict=True)])}


def mean_score(targets, scores):
    assert len(targets) == len(scores)
    return {"score": float(np.mean(scores))}


def confidence(targets, predictions, aux_values):
    assert len(aux_values["confidence"]) == len(predictions) == len(targets)
    return {"confidence": float(np.sum(aux_values["confidence"]))}


def _task(metric_fns=(exact, mean_score), name="upper", **options):
    rows = [{"inputs": w.upper(), "targets": w} for w in WORDS]
    source = {"validation": rows, "train": rows[:1]}
    return Task(name, source, [tokenize, append_eos], FEATURES, metric_fns, **options)


def _evaluator(task, batch_size=2, **options):
    converter = EncDecFeatureConverter(pack=False)
    return Evaluator(task, converter, batch_size=batch_size, **options)


def _lower(batch):
    """Answers in lower case, except for words with an L."""
    tokens = batch["encoder_input_tokens"]
    letters = (tokens > 3) & ~(tokens == ord("L") + 3).any(axis=1, keepdims=True)
    return np.where(letters, tokens + 32, tokens)


def _scores(batch):
    return batch["decoder_loss_weights"].sum(axis=1)


def test_metrics_of_predictions_and_scores():
    sizes = []

    def predict(batch):
        sizes.append(len(batch["encoder_input_tokens"]))
        return _lower(batch)

    evaluator = _evaluator(_task())
    results = evaluator.evaluate(predict, _scores)
    assert results == {"upper": {"exact": 0.8, "score": np.mean([len(w) + 1 for w in WORDS])}}
    assert sizes == [2, 2, 2]
    assert evaluator.evaluate(predict, _scores) == results


def test_lengths_are_measured_or_given():
    evaluator = _evaluator(_task())
    assert evaluator.sequence_length == {"inputs": 4, "targets": 4}
    given = _evaluator(_task([mean_score]), sequence_length={"inputs": 3, "targets": 3})
    assert given.evaluate(score_fn=_scores)["upper"]["score"] == 3

    def needs_length(example, sequence_length):
        return example

    task = Task("t", {"validation": []}, [needs_length], FEATURES, [exact])
    with pytest.raises(ValueError, match="needs_length of task 't' needs a sequence_length"):
        _evaluator(task)


def test_targets_are_computed_once_and_postprocessed():
    calls = []

    def postprocess(value, example, is_target):
        calls.append(is_target)
        return f"{value}/{example['inputs_pretokenized']}"

    for keep in (True, False):
        calls.clear()
        evaluator = _evaluator(
            _task([exact], postprocess_fn=postprocess), use_memory_cache=keep, num_examples=3
        )
        for _ in range(2):
            assert evaluator.evaluate(_lower)["upper"] == {"exact": 1.0}
        assert calls.count(True) == 3
        assert calls.count(False) == 6


def test_aux_values_and_several_decodes():
    def best_of(targets, predictions, aux_values):
        assert all(t in p for t, p in zip(targets, predictions, strict=True))
        return {}

    def predict(batch):
        tokens = batch["decoder_target_tokens"]
        decodes = np.stack([tokens, tokens[:, ::-1]], axis=1)
        return decodes, {"confidence": np.ones(len(tokens))}

    evaluator = _evaluator(_task([confidence, best_of]))
    assert evaluator.evaluate(predict_with_aux_fn=predict)["upper"] == {"confidence": 5.0}


def test_mixtures_are_evaluated_by_task():
    tasks = [_task(name="eval_a"), _task(name="eval_b"), Task("eval_none", {}, (), FEATURES)]
    try:
        for task in tasks:
            TaskRegistry.add(task)
        mixture = Mixture("m", [(task.name, 1) for task in tasks])
    finally:
        for task in tasks:
            TaskRegistry.remove(task.name)
    results = _evaluator(mixture).evaluate(_lower, _scores)
    assert list(results) == ["eval_a", "eval_b"]


def test_loggers_are_called(tmp_path):
    logged = []

    class Logger:
        def __init__(self, output_dir):
            self.output_dir = output_dir

        def __call__(self, task_name, step, metrics, dataset, targets, inferences):
            logged.append((task_name, step, metrics, len(list(dataset)), targets, inferences))

    evaluator = _evaluator(_task([exact]), logger_cls=[Logger], log_dir=str(tmp_path))
    evaluator.evaluate(_lower, step=7)
    ((name, step, metrics, size, targets, inferences),) = logged
    assert (name, step, metrics, size, targets) == ("upper", 7, {"exact": 0.8}, 5, WORDS)
    assert inferences["prediction"] == ["do", "re", "mi", "fa", "SOL"]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="metric mean_score of task 'upper' needs a score_fn"):
        _evaluator(_task()).evaluate(_lower)
    with pytest.raises(ValueError, match="two metrics named 'exact'"):
        _evaluator(_task([exact, lambda targets, predictions: {"exact": 1}])).evaluate(_lower)
    with pytest.raises(ValueError, match="expected \\(targets, predictions\\)"):
        _evaluator(_task([lambda a, b: {}])).evaluate(_lower)
    with pytest.raises(ValueError, match="pack=False"):
        Evaluator(_task(), EncDecFeatureConverter(pack=True))
    with pytest.raises(ValueError, match="log_dir"):
        _evaluator(_task(), logger_cls=[print])
