"""Models that are trained and asked in a notebook."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from t5x.checkpoints import all_steps
from t5x.data import Feature, PassThroughVocabulary
from t5x.interactive_model import InteractiveModel
from tests.t5x import toy

GUIDE = Path(__file__).resolve().parent.parent.parent / "docs" / "t5x.md"
TRAINING, HELD_OUT = toy.examples(24, 0), toy.examples(10, 1)
FEATURES = {"targets": Feature(PassThroughVocabulary(toy.VOCAB), add_eos=False)}


def counting(**options):
    """The toy model, which learns to count in a ring."""
    return InteractiveModel(
        model=toy.ToyModel(toy.optimizer()),
        task_feature_lengths={"targets": 9},
        batch_size=4,
        learning_rate_fn=0.03,
        features=FEATURES,
        **options,
    )


def test_trains_evaluates_saves_and_goes_on(tmp_path):
    model = counting(output_dir=tmp_path)
    before = model.evaluate(HELD_OUT)
    metrics = model.train_step(TRAINING[:3])
    assert (model.step, metrics) == (1, model.train_summary)
    history = model.train_loop(
        60, TRAINING, eval_period=40, eval_examples=HELD_OUT, metric_fns=[toy.exact_match]
    )
    assert [entry["step"] for entry in history] == [41, 61]
    assert history[-1]["train"]["loss"] < metrics["loss"]
    last = history[-1]["eval"]
    assert last["loss"] < before["loss"]
    assert last["accuracy"] > 0.5 > 0.3 > before["accuracy"]
    assert 0 <= last["exact"] <= 1
    assert model.save_checkpoint() == str(tmp_path / "checkpoint_61")
    assert all_steps(tmp_path) == [61]
    resumed = counting(output_dir=tmp_path)
    assert resumed.step == 61
    started = counting(checkpoint_path=tmp_path / "checkpoint_61", restore_mode="specific")
    for other in (resumed, started):
        same = jax.tree.map(np.array_equal, other.train_state.params, model.train_state.params)
        assert all(jax.tree.leaves(same))


def test_scores_do_not_depend_on_the_batch():
    model = counting()
    together = model.score(HELD_OUT)
    assert [example for example, _ in together] == HELD_OUT
    alone = [model.score([example])[0][1] for example in HELD_OUT[-2:]]
    np.testing.assert_allclose([score for _, score in together[-2:]], alone, rtol=1e-6)
    params = model.train_state.params
    row = HELD_OUT[0]["targets"]
    batch = {
        "decoder_input_tokens": np.concatenate([[0], row[:-1]])[None],
        "decoder_target_tokens": row[None],
        "decoder_loss_weights": np.ones((1, len(row))),
    }
    expected = model.model.score_batch(params, batch)
    np.testing.assert_allclose(together[0][1], expected[0], rtol=1e-5)
    pairs, aux = model.predict_with_aux(HELD_OUT)
    assert len(pairs) == len(aux["scores"]) == len(HELD_OUT)


def test_bad_use_is_named():
    model = counting()
    with pytest.raises(ValueError, match="takes 1 to batch_size=4 examples, got 5"):
        model.train_step(TRAINING[:5])
    with pytest.raises(ValueError, match="needs examples to train on"):
        model.train_loop(1, [])
    with pytest.raises(ValueError, match="give InteractiveModel an output_dir"):
        model.save_checkpoint()
    with pytest.raises(ValueError, match=r"score: example 1 has no 'targets'"):
        model.score([TRAINING[0], "text"])


def test_the_guides_model_encodes_and_decodes_text():
    section = GUIDE.read_text().partition("## In a notebook")[2]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(block.group(1), names)
    model, vocabulary = names["model"], names["vocabulary"]
    assert model.step == 10
    pairs = model.predict(["abc", {"inputs": "de"}, "a long text"])
    assert [example for example, _ in pairs] == ["abc", {"inputs": "de"}, "a long text"]
    assert all(isinstance(text, str) for _, text in pairs)
    ends = np.array([[1, 0, 0, 0]] * 2, np.int32)  # targets that are not known are EOS
    seen = {
        "encoder_input_tokens": np.array(
            [[100, 101, 102, 1, 0, 0], [103, 104, 1, 0, 0, 0]], np.int32
        ),
        "decoder_target_tokens": ends,
        "decoder_input_tokens": np.roll(ends, 1, axis=1),
        "decoder_loss_weights": ends,
    }
    predict = model._functions["predict_fn"]  # compiled by the guide's block
    key = jax.random.fold_in(jax.random.PRNGKey(0), 0)
    ids = predict(model.train_state.params, seen, key)
    assert [text for _, text in pairs[:2]] == [vocabulary.decode(row) for row in ids.tolist()]
