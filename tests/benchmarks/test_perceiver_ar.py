import json

import numpy as np
import pytest

from benchmarks import perceiver_ar, perceiver_ar_scaling


def test_both_caches_sample_the_same_tokens():
    """They begin with as many latents, so that each token is predicted from as many."""
    config = perceiver_ar.make_config(perceiver_ar.TINY, 24, 8, final_layer_init_zeros=False)
    tokens = perceiver_ar.random_batch(config)["decoder_input_tokens"]
    params = perceiver_ar.random_network_params(config)
    sampled = []
    for make in (perceiver_ar.our_loop, perceiver_ar.rolled_loop):
        start, run = make(config, 10)
        sampled.append(np.asarray(run(params, start(params, tokens), tokens)))
    np.testing.assert_array_equal(*sampled)
    assert len(set(sampled[0][0].tolist())) > 1


@pytest.mark.slow
def test_the_curves_are_measured_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    picture, table = tmp_path / "curves.png", tmp_path / "deeper" / "curves.json"
    perceiver_ar_scaling.main([str(picture), "--json", str(table), "--tiny"])
    assert picture.stat().st_size > 10_000
    found = json.loads(table.read_text())
    assert [(p["T"], p["N"]) for p in found["T"]] == [(8, 8), (32, 8)]
    assert [(p["T"], p["N"]) for p in found["N"]] == [(32, 4), (32, 16)]
    for point in found["T"] + found["N"]:
        assert min(*point["bytes"].values(), *point["products"].values()) > 0
