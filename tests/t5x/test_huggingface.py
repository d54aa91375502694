"""Parameters under the names of Hugging Face transformers, there and back, with their files."""

import json

import numpy as np
import pytest

from t5x.checkpoints import CheckpointError, huggingface, load_safetensors, save_safetensors
from t5x.examples.scalable_t5 import network as scalable
from t5x.examples.t5 import network
from tests.t5x import networks

GATED = networks.TINY.replace(num_encoder_layers=2, num_decoder_layers=2)
TIED = GATED.replace(mlp_activations=("relu",), logits_via_embedding=True)


def params_of(config):
    return networks.tiny_t5(config)[1]


def same(a, b):
    assert networks.flat(a).keys() == networks.flat(b).keys()
    for name, value in networks.flat(a).items():
        np.testing.assert_array_equal(value, networks.flat(b)[name], err_msg=name)


def test_names_and_layouts_of_t5_1_1():
    params = params_of(GATED)
    theirs = huggingface.to_hugging_face(params)
    assert len(theirs) == len(networks.flat(params))
    encoder = params["encoder"]
    attention = encoder["layers_1"]["attention"]
    query = theirs["encoder.block.1.layer.0.SelfAttention.q.weight"]
    np.testing.assert_array_equal(query, attention["query"]["kernel"].T)
    table = theirs["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    assert table.shape == (32, 2)
    np.testing.assert_array_equal(table, encoder["relpos_bias"]["rel_embedding"].T)
    mlp = theirs["decoder.block.0.layer.2.DenseReluDense.wi_1.weight"]
    np.testing.assert_array_equal(mlp, params["decoder"]["layers_0"]["mlp"]["wi_1"]["kernel"].T)
    assert theirs["lm_head.weight"].shape == (24, 16)
    assert theirs["shared.weight"].shape == (24, 16)
    assert "decoder.block.1.layer.1.EncDecAttention.o.weight" in theirs
    assert "decoder.final_layer_norm.weight" in theirs


@pytest.mark.parametrize("config", [GATED, TIED], ids=["1.1", "1.0"])
def test_state_dicts_there_and_back(config):
    params = params_of(config)
    theirs = huggingface.to_hugging_face(params)
    same(huggingface.from_hugging_face(theirs), params)
    # Files may repeat the embedding under other names.
    shared = theirs["shared.weight"]
    copies = {f"{stack}.embed_tokens.weight": shared for stack in ("encoder", "decoder")}
    if config.logits_via_embedding:
        copies["lm_head.weight"] = shared
    same(huggingface.from_hugging_face({**theirs, **copies}), params)
    only_copies = {k: v for k, v in {**theirs, **copies}.items() if k != "shared.weight"}
    same(huggingface.from_hugging_face(only_copies), params)


def test_tables_in_every_layer_are_those_of_umt5(tmp_path):
    config = scalable.T5Config(
        **{k: getattr(GATED, k) for k in GATED.__dataclass_fields__}, scan_layers=False
    )
    params = params_of(GATED)
    for stack in ("encoder", "decoder"):
        params[stack].pop("relpos_bias")
        for i in range(2):
            table = np.random.default_rng(i).normal(size=(2, 32)).astype(np.float32)
            params[stack][f"layers_{i}"]["relpos_bias"] = {"rel_embedding": table}
    theirs = huggingface.to_hugging_face(params)
    assert "decoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight" in theirs
    same(huggingface.from_hugging_face(theirs), params)
    huggingface.save_hugging_face(tmp_path, params, config)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "umt5"


@pytest.mark.parametrize("config", [GATED, TIED], ids=["1.1", "1.0"])
def test_folders_there_and_back(config, tmp_path):
    params = params_of(config)
    huggingface.save_hugging_face(tmp_path / "model", params, config)
    ours, fields = huggingface.load_hugging_face(tmp_path / "model")
    same(ours, params)
    assert network.T5Config(**fields) == config
    assert load_safetensors(tmp_path / "model" / "model.safetensors")[1] == {"format": "pt"}


def test_weights_in_several_files(tmp_path):
    params = params_of(GATED)
    huggingface.save_hugging_face(tmp_path, params, GATED)
    state_dict = huggingface.to_hugging_face(params)
    parts = {"a.safetensors": {}, "b.safetensors": {}}
    for i, (name, value) in enumerate(state_dict.items()):
        parts[["a.safetensors", "b.safetensors"][i % 2]][name] = value
    for file, part in parts.items():
        save_safetensors(tmp_path / file, part)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    same(huggingface.load_hugging_face(tmp_path)[0], params)


def test_published_configurations():
    small = {
        "model_type": "t5", "d_ff": 1024, "d_kv": 64, "d_model": 512, "dropout_rate": 0.1,
        "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-06, "num_decoder_layers": 8,
        "num_heads": 6, "num_layers": 8, "relative_attention_num_buckets": 32,
        "tie_word_embeddings": False, "vocab_size": 32128,
    }  # fmt: skip
    fields = huggingface.config_from_hugging_face(small)
    assert fields["mlp_activations"] == ("gelu", "linear")
    assert (fields["emb_dim"], fields["head_dim"], fields["mlp_dim"]) == (512, 64, 1024)
    assert not fields["logits_via_embedding"]
    old = {k: v for k, v in small.items() if k not in ("num_decoder_layers", "tie_word_embeddings")}
    fields = huggingface.config_from_hugging_face({**old, "feed_forward_proj": "relu"})
    assert fields["num_decoder_layers"] == 8
    assert fields["logits_via_embedding"]
    for changed, words in (
        ({"model_type": "bert"}, "bert"),
        ({"feed_forward_proj": "gelu"}, "gated-gelu"),
        ({"relative_attention_num_buckets": 64}, "relative_attention_num_buckets=64"),
    ):
        with pytest.raises(CheckpointError, match=words):
            huggingface.config_from_hugging_face({**small, **changed})
    with pytest.raises(CheckpointError, match="d_model"):
        huggingface.config_from_hugging_face({k: small[k] for k in small if k != "d_model"})
    with pytest.raises(CheckpointError, match="swish"):
        huggingface.config_to_hugging_face(GATED.replace(mlp_activations=("swish",)))


def test_what_does_not_fit_is_named(tmp_path):
    params = params_of(GATED)
    theirs = huggingface.to_hugging_face(params)
    with pytest.raises(CheckpointError, match=r"1 are missing \['shared.weight'\]"):
        huggingface.from_hugging_face({k: v for k, v in theirs.items() if k != "shared.weight"})
    with pytest.raises(CheckpointError, match=r"classifier.weight"):
        huggingface.from_hugging_face({**theirs, "classifier.weight": np.zeros(2)})
    with pytest.raises(CheckpointError, match="one embedding"):
        huggingface.from_hugging_face({**theirs, "encoder.embed_tokens.weight": np.zeros(2)})
    with pytest.raises(CheckpointError, match="encoder/conv"):
        huggingface.to_hugging_face({**params, "encoder": {**params["encoder"], "conv": {"w": 1}}})
    with pytest.raises(CheckpointError, match=r"config\.json"):
        huggingface.load_hugging_face(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        huggingface.load_hugging_face(tmp_path)
    content = huggingface.config_to_hugging_face(GATED)
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="safe_serialization"):
        huggingface.load_hugging_face(tmp_path)


@pytest.mark.parametrize("config", [GATED, TIED], ids=["1.1", "1.0"])
def test_transformers_computes_the_same_logits(config, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    module, params, batch = networks.tiny_t5(config)
    huggingface.save_hugging_face(tmp_path, params, config)
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    ours = networks.apply(module, params, *(batch[k] for k in names))
    tokens = {k: torch.tensor(batch[k], dtype=torch.long) for k in names}
    with torch.no_grad():
        logits = theirs(
            input_ids=tokens["encoder_input_tokens"],
            attention_mask=(tokens["encoder_input_tokens"] > 0).long(),
            decoder_input_ids=tokens["decoder_input_tokens"],
        ).logits.numpy()
    seen = batch["decoder_target_tokens"] > 0
    np.testing.assert_allclose(logits[seen], np.asarray(ours)[seen], atol=1e-4)
